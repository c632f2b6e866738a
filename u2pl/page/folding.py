"""Tables of a plan that repeat each other's runs on one data set, put together."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from u2pl.pipeline import ActivePlan
from u2pl.reporting.results import CellResults, TableResults


@dataclass
class Folded:
    """A table, and those that repeat runs of it."""

    main: TableResults
    others: list[TableResults] = field(default_factory=list)

    @cached_property
    def together(self) -> TableResults:
        """The main table with a row for what the others have beside it (a column where splits are rows).

        Its series, labels and results are those of all of them; it is compared and drawn, and not printed.
        """
        cells = list(self.main.cells)
        for other in self.others:
            known = {tuple(run.name for run in cell.results) for cell in cells}
            labels = set(map(self.main.label, cells))
            new = [cell for cell in other.own if tuple(run.name for run in cell.results) not in known]
            cells += _renamed(new, self.main, labels, other.table.short_title)
        return replace(self.main, cells=cells)


def _renamed(
    cells: Sequence[CellResults], main: TableResults, labels: set[str], title: str
) -> Iterator[CellResults]:
    """Cells of another table as those of `main`: under its splits, and under labels that it does not have."""
    turned = main.split_is_a_row
    places = {cell.cell.split: cell.cell.row if turned else cell.cell.column for cell in main.cells}
    for each in cells:
        label = main.label(each)  # both tables are the same way round
        label = f"{label} ({title})" if label in labels else label
        place = places[each.cell.split]
        row, column = (place, label) if turned else (label, place)
        yield replace(each, cell=each.cell._replace(row=row, column=column))


def folded(plan: ActivePlan, tables: Sequence[TableResults]) -> list[Folded]:
    """The tables in their order; one that has at least half of its runs in a larger one stands with that.

    Only tables of one data set that are of one kind, both ablations or neither, and of which one has all splits of the
    other, are put together. What counts are the runs that are planned, so that a page does not change its build as runs
    finish.
    """
    runs = {filled.name: set(plan.tables[filled.name].cells) for filled in tables}
    places: dict[str, Folded] = {}
    for filled in sorted(tables, key=lambda each: -len(runs[each.name])):  # the sort is stable
        host = next((place for place in places.values() if _repeats(filled, place.main, runs)), None)
        if host is None:
            places[filled.name] = Folded(filled)
        else:
            host.others.append(filled)
    order = [filled.name for filled in tables]
    return sorted(places.values(), key=lambda place: min(map(order.index, _names(place))))


def _names(place: Folded) -> Iterable[str]:
    return (filled.name for filled in (place.main, *place.others))


def _repeats(small: TableResults, large: TableResults, runs: dict[str, set[str]]) -> bool:
    shared, own = runs[small.name] & runs[large.name], runs[small.name]
    kinds = [(each.table.dataset, each.table.ablate is None, each.split_is_a_row) for each in (small, large)]
    splits = [{cell.cell.split for cell in each.cells} for each in (small, large)]
    return kinds[0] == kinds[1] and splits[0] <= splits[1] and bool(shared) and 2 * len(shared) >= len(own)
