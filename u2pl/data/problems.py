"""What is wrong with a data set or a list, told at once: one line a kind, with a count and examples."""

from collections.abc import Iterable, Sequence

Problem = tuple[str, str]
"""A kind of problem, and where it is."""

EXAMPLES = 4
"""Places named of each kind."""


def report(head: str, problems: Iterable[Problem], remedy: str) -> str:
    """`head`, a line for each kind of problem, and what to do."""
    groups: dict[str, list[str]] = {}
    for kind, where in problems:
        groups.setdefault(kind, []).append(where)
    return "\n".join([head, *(f"  {kind}: {some(places)}" for kind, places in groups.items()), remedy])


def some(places: Sequence[str]) -> str:
    """How many there are, and the first few."""
    more = "; ..." if len(places) > EXAMPLES else ""
    return f"{len(places)} ({'; '.join(places[:EXAMPLES])}{more})"


def count(number: int, what: str) -> str:
    """`1 picture`, `2 pictures`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
