"""Tables of a plan that repeat each other's runs on one data set, put together."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from u2pl.pipeline import ActivePlan
from u2pl.reporting.results import TableResults


@dataclass
class Folded:
    """A table, and those that show little beside its runs."""

    main: TableResults
    others: list[TableResults] = field(default_factory=list)


def folded(plan: ActivePlan, tables: Sequence[TableResults]) -> list[Folded]:
    """The tables in their order; one that has at least half of its runs in a larger one stands behind that.

    Only tables of one data set that are of one kind, both ablations or neither, are put together. What counts are the
    runs that are planned, so that a page does not change its build as runs finish.
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
    alike = (small.table.dataset, small.table.ablate is None) == (
        large.table.dataset,
        large.table.ablate is None,
    )
    return alike and bool(shared) and 2 * len(shared) >= len(own)
