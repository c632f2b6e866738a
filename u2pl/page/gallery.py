"""Validation images of a plan with their truth, what each method makes of them, and where it is unsure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from u2pl.page.groups import Group, groups
from u2pl.reporting import examples
from u2pl.reporting.results import Result, TableResults

SHOWN = 6
"""Images of a table, or one a split where there are more splits."""
MOST = 18
"""Images of a page."""
SHEET = 3
"""Rows of the contact sheet, or one a split."""


@dataclass(frozen=True)
class Picture:
    """One picture of a validation image."""

    kind: str
    """Input, truth, prediction or entropy."""
    label: str
    """Whose prediction or entropy it is, else empty."""
    path: Path
    run: str = ""
    """The run that made it, where one did."""

    @property
    def title(self) -> str:
        """What stands below it."""
        return f"{self.label}, entropy" if self.kind == "entropy" else self.label or self.kind.capitalize()

    @property
    def address(self) -> str:
        """The picture itself, small."""
        return examples.thumbnail(self.path, exact=False if self.kind == "entropy" else None)


@dataclass(frozen=True)
class Row:
    """A validation image as the methods of one split see it."""

    dataset: str
    title: str
    """`1/8 (60 labelled)`."""
    image: str
    pictures: list[Picture]


def rows(tables: Sequence[TableResults]) -> list[Row]:
    """The images of all tables of methods, each once for a split; those of ablations where there are no others.

    What a second table has of an image stands beside what the first has.
    """
    methods = [filled for filled in tables if filled.table.ablate is None]
    found: dict[tuple[str, str, str], Row] = {}
    for filled in methods or tables:
        for row in rows_of(filled, SHOWN):
            known = found.setdefault((row.dataset, row.title, row.image), row)
            if known is not row:
                known.pictures.extend(_new(row, known, filled.table.short_title))
    return list(found.values())[:MOST]


def _new(row: Row, known: Row, title: str) -> Iterator[Picture]:
    """The pictures of runs that `known` lacks, under labels that it lacks."""
    runs, labels = ({getattr(each, name) for each in known.pictures} for name in ("run", "label"))
    for each in row.pictures:
        if each.run not in runs:
            taken = each.label in labels
            yield replace(each, label=f"{each.label} ({title})") if taken else each


def rows_of(filled: TableResults, shown: int) -> list[Row]:
    """Validation images with all that the runs of a table made of them, `shown` or one a split.

    They are the first ones there are, another each time: nobody picked them.
    """
    found = []
    compared = groups(filled)
    each = max(1, shown // max(1, len(compared)))
    for index, group in enumerate(compared):
        first = {label: runs[0] for label, runs in group.runs.items() if runs[0].images}
        if first:
            images = next(iter(first.values())).images
            places = dict.fromkeys((index * each + k) % len(images) for k in range(each))
            found += [_row(filled.table.dataset, group, images[place], first) for place in places]
    return found


def _row(dataset: str, group: Group, image: str, runs: Mapping[str, Result]) -> Row:
    any_run = next(iter(runs.values()))
    pictures = [
        Picture("input", "", any_run.sample(image, "input")),
        Picture("truth", "", any_run.sample(image, "truth")),
        *(
            Picture(kind, label, path, run.name)
            for kind in ("prediction", "entropy")
            for label, run in runs.items()
            if (path := run.sample(image, kind)).is_file()
        ),
    ]
    return Row(dataset, group.title, image, pictures)


def sheet_rows(filled: TableResults) -> Iterator[examples.SheetRow]:
    """The rows of a contact sheet: images with input, truth and predictions."""
    for row in rows_of(filled, SHEET):
        shown = {each.title: each.path for each in row.pictures if each.kind != "entropy"}
        yield examples.SheetRow(row.title, shown)
