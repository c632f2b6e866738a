"""Shows how far a plan is: a table, refreshed on a terminal, and plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from u2pl.reporting.durations import duration

from .terminal import console, say

if TYPE_CHECKING:
    from rich.console import RenderableType

    from u2pl.pipeline.scheduling import Entry, Observer
    from u2pl.pipeline.status import PlanStatus, RunStatus
    from u2pl.project import Project

REFRESH_SECONDS = 2.0
_COLORS = {
    "done": "green",
    "running": "cyan",
    "failed": "red",
    "stale": "magenta",
    "interrupted": "yellow",
    "waiting": "dim",
}


def rendered(status: "PlanStatus", lines: int | None = None) -> "RenderableType":
    """The runs, one a line, and the tables; in so many lines at most, of which those where something happens."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    shown = status.runs
    if lines is not None and len(shown) > lines - 6:
        shown = [run for run in shown if run.state not in ("done", "waiting")][: max(lines - 6, 1)]
    columns: dict[str, list[str | Text]] = {
        "run": [run.name for run in shown],
        "state": [Text(run.state, style=_COLORS[run.state]) for run in shown],
        "mIoU": ["" if run.miou is None else f"{run.miou:.2f} {run.over}".rstrip() for run in shown],
        "epoch": [
            "" if run.state == "done" or not run.epoch else f"{run.epoch}/{run.epochs}" for run in shown
        ],
        "step": ["" if run.state == "done" else _steps(run) for run in shown],
        "left": ["" if run.seconds_left is None else duration(run.seconds_left) for run in shown],
        "": [run.note or run.holder for run in shown],
    }
    columns = {heading: cells for heading, cells in columns.items() if any(str(cell) for cell in cells)}
    runs = Table(box=None, pad_edge=False)
    for heading in columns:
        runs.add_column(heading, no_wrap=heading not in ("run", ""), overflow="fold")
    for row in zip(*columns.values(), strict=True):
        runs.add_row(*row)
    tables = ", ".join(f"{table.name} {table.there}/{table.cells}" for table in status.tables)
    counts = {state: sum(run.state == state for run in status.runs) for state in _COLORS}
    said = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    words = [f"Plan {status.plan}: {len(status.runs)} runs, {said}.", f"Cells of the tables: {tables}."]
    if status.scheduler:
        words.append(f"`u2pl plan run` is at work ({status.scheduler}).")
    return Group(runs, *words)


def _steps(run: "RunStatus") -> str:
    if run.step is None:
        return ""
    return f"{run.step}" if run.share is None else f"{run.step}/{run.steps} ({100 * run.share:.0f} %)"


@contextmanager
def showing(project: "Project") -> "Iterator[tuple[Observer, Callable[[], None]]]":
    """Show the progress of the active plan on stderr; gives the observer and the tick that `run_plan` takes."""
    if not sys.stderr.isatty():
        yield _plain, lambda: time.sleep(0.1)
        return
    with live(project, stderr=True) as refresh:
        shown = 0.0

        def tick() -> None:
            nonlocal shown
            if time.monotonic() - shown > REFRESH_SECONDS:
                refresh()
                shown = time.monotonic()
            time.sleep(0.1)

        yield lambda name, entry: None, tick


@contextmanager
def live(project: "Project", *, stderr: bool = False) -> "Iterator[Callable[[], None]]":
    """A place on the terminal that shows how far the plan is; gives what brings it up to date.

    Where that cannot be found out, as while somebody edits params.yaml, it says so: the work goes on.
    """
    from rich.live import Live

    from u2pl.pipeline.status import status

    screen = console(stderr=stderr)
    with Live(console=screen, auto_refresh=False) as place:

        def refresh() -> None:
            try:
                shown = rendered(status(project), screen.height)
            except Exception as error:
                shown = f"How far the plan is cannot be told now ({type(error).__name__}: {error})."
            place.update(shown, refresh=True)

        try:
            yield refresh
        finally:
            refresh()


def _plain(name: str, entry: "Entry") -> None:
    """A line for each stage that starts, ends or is blocked."""
    took = f" in {duration(entry.ended - entry.started)}" if entry.ended and entry.started else ""
    said = f": {entry.sentence}" if entry.sentence else ""
    state = "stopped" if entry.state == "waiting" else entry.state
    say(f"{time.strftime('%H:%M:%S')} {name}: {state}{took}{said}", err=True)
