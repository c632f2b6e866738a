"""Progress of long work: a bar on a terminal; elsewhere plain lines, one at least every ten seconds."""

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .terminal import column, console, one_line, say

if TYPE_CHECKING:
    from u2pl.data.description import Progress as Counter
    from u2pl.training.trainer import Observer

WIDTH = 80
"""Most characters of a line."""
SILENCE = 9.0
"""Longest time in seconds without a line, looked after once a second: ten seconds never pass."""
_LEAST_NAME = 24
"""Characters that a long name keeps before anything else of its line is left out."""
_IN_BAR = 20


def shortened(name: str, room: int) -> str:
    """A name in so many characters: its beginning and its end, which say what it is of and with which seed."""
    if len(name) <= room:
        return name
    end = max((room - 1) // 3, 1)
    return f"{name[: max(room - 1 - end, 0)]}…{name[-end:]}"


def fitted(name: str, parts: Sequence[tuple[int, str]]) -> str:
    """A line about `name` that fits.

    Args:
        name: is shortened, but not below what tells it from others.
        parts: (rank, words) in their order; where there is no room for all, those of the highest rank go first.
            Those of rank 0 stay.
    """
    kept = [part for part in parts if part[1]]
    least = min(len(name), _LEAST_NAME)

    def words() -> str:
        return ", ".join(text for _, text in kept)

    while least + 2 + len(words()) > WIDTH and any(rank for rank, _ in kept):
        kept.remove(max(kept, key=lambda part: part[0]))
    return f"{shortened(name, max(WIDTH - 2 - len(words()), least))}: {words()}"


class Lines:
    """Lines on stderr: told as something happens, and repeated as it stands where nothing does.

    Args:
        latest: what is to be said when there was nothing for a while.
    """

    def __init__(self, latest: Callable[[], str]):
        self._latest = latest
        self._last = time.monotonic()
        self._lock = threading.RLock()

    def say(self, text: str) -> None:
        """Print a line."""
        with self._lock:
            say(text, err=True)
            self._last = time.monotonic()

    def is_due(self) -> bool:
        """Whether it was silent for so long that something has to be said."""
        return time.monotonic() - self._last >= SILENCE

    def tick(self) -> None:
        """Say how it stands if that is due."""
        with self._lock:
            if self.is_due():
                self.say(self._latest())

    @contextmanager
    def kept_up(
        self, wait: Callable[[threading.Event], bool] = lambda ended: ended.wait(1)
    ) -> Iterator[None]:
        """Tick in the block, from a thread of its own: a step or an image may take minutes.

        Args:
            wait: waits for a moment, or for the end; whether that has come.
        """
        ended = threading.Event()

        def run() -> None:
            while not wait(ended):
                self.tick()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


@contextmanager
def training(name: str) -> "Iterator[Observer]":
    """Show the progress of the run `name` on stderr; gives the observer that `trainer.train` takes."""
    if not sys.stderr.isatty():
        plain = _PlainTraining(name)
        with plain.lines.kept_up():
            yield plain.observe
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (
        column("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        column("{task.fields[note]}"),
    )
    with Progress(*columns, console=console(stderr=True), expand=True) as progress:
        task = progress.add_task(shortened(one_line(name), _IN_BAR), total=None, note="")
        notes: dict[str, str] = {}

        def observe(event: str, step: int, steps: int, metrics: Mapping[str, float]) -> None:
            if event == "memory":
                progress.console.print(_memory(metrics))
                progress.update(task, total=steps, note="the first steps ...")
                return
            if event == "step":
                notes[event] = f"loss {metrics['loss']:.3f}"
            elif "val/miou" in metrics:
                notes[event] = f"mIoU {metrics['val/miou']:.1f}"
            progress.update(task, completed=step, total=steps, note="  ".join(notes.values()))

        yield observe


class _PlainTraining:
    """Lines about a run; each says how long it will go on."""

    def __init__(self, name: str):
        self.name = one_line(name)
        self.lines = Lines(self._standing)
        self._start = time.monotonic()
        self._steps: int | None = None
        self._first: tuple[int, float] | None = None
        self._newest: tuple[int, float] | None = None
        self._loss: float | None = None

    def observe(self, event: str, step: int, steps: int, metrics: Mapping[str, float]) -> None:
        """As `trainer.train` tells it."""
        now = time.monotonic()
        if event == "memory":
            self.lines.say(_memory(metrics))
            self._start = now
            return
        self._steps, self._newest = steps, (step, now)
        if self._first is None:
            # The first step is longer than others; what it took counts until there are more.
            self._first = step, now
        self._loss = metrics.get("loss", metrics.get("train/loss", self._loss))
        if not self.lines.is_due() and (step < steps or event != "epoch"):
            return
        if event == "begun":  # it took long: say so before ten of them have passed
            self.lines.say(self._begun(now))
            return
        parts = self._parts()
        if event == "epoch":
            seen = f"mIoU {metrics['val/miou']:.1f} %" if "val/miou" in metrics else ""
            parts += [
                (2, seen),
                (3, f"{metrics['images_per_second']:.0f} images/s"),
                (4, f"{metrics['memory/peak_gib']:.1f} GiB"),
            ]
        self.lines.say(fitted(self.name, [*parts, (0, self._left(now))]))

    def _begun(self, now: float) -> str:
        from u2pl.reporting.durations import duration

        assert self._first is not None and self._steps is not None
        step, took = self._first[0], now - self._start
        ahead = f"about {duration(took * (self._steps - step))} at that pace"
        return fitted(self.name, [(1, f"the first of {self._steps} steps took {duration(took)}"), (0, ahead)])

    def _parts(self) -> list[tuple[int, str]]:
        step = self._newest[0] if self._newest else 0
        loss = "" if self._loss is None else f"loss {self._loss:.3f}"
        return [(0, f"step {step}/{self._steps}"), (1, loss)]

    def _standing(self) -> str:
        """How it stands between two of its own words."""
        now = time.monotonic()
        if self._newest is None:
            from u2pl.reporting.durations import duration

            waited = f"no step yet after {duration(now - self._start)}"
            return fitted(self.name, [(0, waited), (1, "time left not known yet")])
        return fitted(self.name, [*self._parts(), (0, self._left(now) or "time left not known yet")])

    def _left(self, now: float) -> str:
        if self._first is None or self._newest is None or self._steps is None:
            return ""
        return _ahead(self._first, self._newest, self._steps, now)


def _ahead(first: tuple[int, float], newest: tuple[int, float], total: int, now: float) -> str:
    """How long it goes on at the pace between two looks, each of how much was done, and when; empty without a pace."""
    from u2pl.reporting.durations import duration

    (begun, since), (done, at) = first, newest
    if not begun < done < total:
        return ""
    return f"about {duration(max((at - since) / (done - begun) * (total - done) - (now - at), 0))} left"


def _memory(metrics: Mapping[str, float]) -> str:
    step, available, at_once, largest = (
        metrics[f"memory/{name}"] for name in ("step_gib", "available_gib", "at_once", "largest")
    )
    return (
        f"A step takes {step:.1f} of {available:.1f} GiB with {at_once:.0f} images at once; "
        f"about {largest:.0f} would fit."
    )


@contextmanager
def counting() -> "Iterator[Counter]":
    """Show on stderr how many of how many things are done, with a bar for each kind of work."""
    if not sys.stderr.isatty():
        plain = _PlainCounter()
        with plain.lines.kept_up():
            yield plain.show
        return
    from rich import progress as rich

    columns = (
        column("{task.description}"),
        rich.BarColumn(bar_width=None),
        rich.MofNCompleteColumn(),
        rich.TimeRemainingColumn(compact=True),
    )
    with rich.Progress(*columns, console=console(stderr=True), expand=True) as bars:
        tasks: dict[str, rich.TaskID] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(shortened(one_line(what), WIDTH // 2), total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield show


class _PlainCounter:
    """Lines about each kind of work, one at its end."""

    def __init__(self) -> None:
        self.lines = Lines(self._standing)
        self._start = time.monotonic()
        self._first: tuple[int, float] | None = None
        self._newest: tuple[str, int, int, float] | None = None

    def show(self, what: str, done: int, total: int) -> None:
        """As the work tells it."""
        now = time.monotonic()
        if self._newest is None or self._newest[0] != what:
            self._first = done, now
        self._newest = what, done, total, now
        if done >= total or self.lines.is_due():
            self.lines.say(self._standing())

    def _standing(self) -> str:
        from u2pl.reporting.durations import duration

        now = time.monotonic()
        if self._newest is None or self._first is None:
            return f"At work for {duration(now - self._start)}; time left not known yet."
        what, done, total, at = self._newest
        unknown = "" if done >= total else "time left not known yet"
        left = _ahead(self._first, (done, at), total, now) or unknown
        return fitted(one_line(what), [(0, f"{done:,} of {total:,}"), (0, left)])
