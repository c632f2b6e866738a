"""What a click on a cell opens: its runs, one a seed, each set of them once."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from u2pl.reporting.results import Result, TableResults, split_title


@dataclass(frozen=True)
class Contender:
    """The runs of one cell."""

    label: str
    dataset: str
    split: str
    title: str
    """`1/8 (60 labelled)`."""
    table: str
    """The first table that shows it, as `Table 4`."""
    runs: tuple[Result, ...]

    @property
    def key(self) -> tuple[str, ...]:
        """Names of the runs: cells of several tables that show the same ones are one contender."""
        return tuple(run.name for run in self.runs)

    @property
    def place(self) -> tuple[str, str, str]:
        """Label, data set and split, by which it is chosen."""
        return self.label, self.dataset, self.title


def contenders(tables: Iterable[TableResults]) -> list[Contender]:
    """What has finished, under its label in the first table that shows it; with its title where two are alike."""
    found: dict[tuple[str, ...], Contender] = {}
    for filled in tables:
        for split, by_label in filled.series().items():
            for label, runs in by_label.items():
                title = split_title(split, {label: runs})
                each = Contender(
                    label, filled.table.dataset, split, title, filled.table.short_title, tuple(runs)
                )
                found.setdefault(each.key, each)
    alike = Counter(each.place for each in found.values())
    return [
        replace(each, label=f"{each.label} ({each.table})") if alike[each.place] > 1 else each
        for each in found.values()
    ]


def places_of(found: Iterable[Contender]) -> dict[tuple[str, ...], int]:
    """Names of each contender's runs -> its place."""
    return {each.key: place for place, each in enumerate(found)}
