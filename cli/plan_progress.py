"""Shows how far a plan is: a table, refreshed on a terminal, and plain lines elsewhere."""

import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import fmean
from typing import TYPE_CHECKING

from u2pl.reporting.durations import duration

from .progress import Lines, fitted, shortened
from .terminal import console

if TYPE_CHECKING:
    from rich.console import RenderableType

    from u2pl.pipeline.scheduling import Entry, Observer
    from u2pl.pipeline.status import OneRun, PlanStatus, RunStatus
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
    if lines is None:
        words += _untold(shown)
    return Group(runs, *words)


def _untold(runs: "list[RunStatus]") -> list[str]:
    """What is set in the runs whose names do not say it, a line for all seeds of a run."""
    from u2pl.settings import value_text

    settings = {re.sub(r"-s\d+$", "", run.name): run.set for run in runs if not run.is_told_by_name}
    said = [
        f"  {name}: {' '.join(f'{k}={value_text(v)}' for k, v in sorted(s.items()))}"
        for name, s in settings.items()
    ]
    return ["Not all that is set stands in these names:", *said] if said else []


def rendered_one(run: "OneRun") -> "RenderableType":
    """How far one run is, and what was set for it."""
    from rich.table import Table
    from rich.text import Text

    from u2pl.settings import value_text

    status, settings = run.status, run.status.set
    rows: dict[str, str | Text] = {
        "run": status.name,
        "state": Text(status.state, style=_COLORS[status.state]),
        "": status.note or status.holder,
        "mIoU": "" if status.miou is None else f"{status.miou:.2f} % {status.over}".rstrip(),
        "epoch": f"{status.epoch}/{status.epochs}" if status.epoch and status.state != "done" else "",
        "step": _steps(status) if status.state != "done" else "",
        "left": "" if status.seconds_left is None else duration(status.seconds_left),
        "data set": run.dataset,
        "split": run.split,
        "method": run.method,
        "seed": str(run.seed),
        "set": "" if settings else "nothing; all is as in params.yaml",
    }
    shown = Table(box=None, pad_edge=False, show_header=False)
    shown.add_column(no_wrap=True)
    shown.add_column(overflow="fold")
    for heading, cell in rows.items():
        if str(cell):
            shown.add_row(heading, cell)
    for heading, (key, value) in zip(("set", *[""] * len(settings)), sorted(settings.items()), strict=False):
        default = f" (params.yaml: {value_text(run.defaults[key])})" if key in run.defaults else ""
        shown.add_row(heading, f"{key}={value_text(value)}{default}")
    return shown


def _steps(run: "RunStatus") -> str:
    if run.step is None:
        return ""
    return f"{run.step}" if run.share is None else f"{run.step}/{run.steps} ({100 * run.share:.0f} %)"


@contextmanager
def showing(project: "Project") -> "Iterator[tuple[Observer, Callable[[], None]]]":
    """Show the progress of the active plan on stderr; gives the observer and the tick that `run_plan` takes."""
    if not sys.stderr.isatty():
        plain = _PlainPlan(project)

        def wait() -> None:
            plain.lines.tick()
            time.sleep(0.1)

        yield plain.observe, wait
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
def live(
    project: "Project", *, name: str | None = None, stderr: bool = False
) -> "Iterator[Callable[[], None]]":
    """A place on the terminal that shows how far the plan is, or one run; gives what brings it up to date.

    Where that cannot be found out, as while somebody edits params.yaml, it says so: the work goes on.
    """
    from rich.live import Live

    from u2pl.pipeline.status import one, status

    screen = console(stderr=stderr)
    with Live(console=screen, auto_refresh=False) as place:

        def refresh() -> None:
            try:
                shown = rendered_one(one(project, name)) if name else rendered(status(project), screen.height)
            except Exception as error:
                shown = (
                    f"How far {name or 'the plan'} is cannot be told now ({type(error).__name__}: {error})."
                )
            place.update(shown, refresh=True)

        try:
            yield refresh
        finally:
            refresh()


class _PlainPlan:
    """A line for each stage that starts, ends or is blocked, and how far all is where nothing of that happens."""

    def __init__(self, project: "Project"):
        self.project = project
        self.lines = Lines(self._standing)
        self._trained: dict[str, float] = {}
        """Run -> seconds that its training took."""

    def observe(self, name: str, entry: "Entry") -> None:
        """As `run_plan` tells it. Why a stage failed or is blocked is a sentence of its own, of any length."""
        took = entry.ended - entry.started if entry.ended and entry.started else None
        kind, _, run = name.partition("@")
        if kind == "train" and took is not None and entry.state == "done":
            self._trained[run] = took
        state = "stopped" if entry.state == "waiting" else str(entry.state)
        lasted = f"{state} in {duration(took)}" if took else state
        self.lines.say(fitted(f"{time.strftime('%H:%M:%S')} {name}", [(0, lasted)]))
        if entry.sentence:
            self.lines.say(f"  {entry.sentence}")

    def _standing(self) -> str:
        from u2pl.pipeline.status import status

        at = time.strftime("%H:%M:%S")
        try:
            runs = status(self.project).runs
        except Exception as error:  # as while somebody edits params.yaml; the work goes on
            return fitted(at, [(0, f"how far the plan is cannot be told now ({type(error).__name__})")])
        running = [run for run in runs if run.state == "running"]
        done = sum(run.state == "done" for run in runs)
        parts = [(0, f"{done} of {len(runs)} runs done")]
        if running:
            share = running[0].share
            percent = "" if share is None else f" {100 * share:.0f} %"
            parts.append((1, f"{shortened(running[0].name, 20)}{percent}"))
        if len(running) > 1:
            parts.append((2, f"{len(running) - 1} more at work"))
        return fitted(at, [*parts, (0, self._left(runs))])

    def _left(self, runs: "Sequence[RunStatus]") -> str:
        """What runs now, and then the others side by side, each as long as those did that were trained here."""
        running = [run.seconds_left for run in runs if run.state == "running"]
        waiting = sum(run.state in ("waiting", "interrupted", "stale") for run in runs)
        known = [seconds for seconds in running if seconds is not None]
        if len(known) < len(running) or (waiting and not self._trained):
            return "time left not known yet"
        if not running and not waiting:
            return "only tables, figures and the report are left"
        later = waiting * fmean(self._trained.values()) / max(len(running), 1) if waiting else 0.0
        return f"about {duration(max(known, default=0.0) + later)} left"
