"""Progress of long work: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .terminal import column, console, one_line, say

if TYPE_CHECKING:
    from u2pl.data.description import Progress as Counter
    from u2pl.training.trainer import Observer


@contextmanager
def training(name: str) -> "Iterator[Observer]":
    """Show the progress of the run `name` on stderr; gives the observer that `trainer.train` takes."""
    if not sys.stderr.isatty():
        yield _plain(name)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (
        column("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        column("{task.fields[note]}"),
    )
    with Progress(*columns, console=console(stderr=True)) as progress:
        task = progress.add_task(one_line(name), total=None, note="")
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


def _plain(name: str) -> "Observer":
    """At most one line every ten seconds, and one at the end; each says how long it will go on."""
    from u2pl.reporting.durations import duration

    last = start = time.monotonic()
    first: tuple[int, float] | None = None

    def left(event: str, step: int, steps: int, now: float) -> str:
        nonlocal first
        if first is None:
            # The first step is longer than others; what it took counts until there are more.
            first = step, now
            return (
                f", about {duration((now - start) * (steps - step))} at that pace" if event == "begun" else ""
            )
        if step == first[0] or step >= steps:
            return ""
        return f", about {duration((now - first[1]) / (step - first[0]) * (steps - step))} left"

    def observe(event: str, step: int, steps: int, metrics: Mapping[str, float]) -> None:
        nonlocal last, start
        if event == "memory":
            say(_memory(metrics), err=True)
            start = time.monotonic()
            return
        now = time.monotonic()
        ahead = left(event, step, steps, now)
        if now - last < 10 and (step < steps or event != "epoch"):
            return
        last = now
        if event == "begun":  # it took long: say so before ten of them have passed
            say(f"{name}: the first of {steps} steps took {duration(now - start)}{ahead}", err=True)
            return
        if event == "step":
            say(f"{name}: step {step}/{steps}, loss {metrics['loss']:.3f}{ahead}", err=True)
            return
        miou = f"mIoU {metrics['val/miou']:.1f} %, " if "val/miou" in metrics else ""
        say(
            f"{name}: step {step}/{steps}, loss {metrics['train/loss']:.3f}, {miou}"
            f"{metrics['images_per_second']:.0f} images/s, {metrics['memory/peak_gib']:.1f} GiB{ahead}",
            err=True,
        )

    return observe


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
        yield _plain_counter()
        return
    from rich import progress as rich

    columns = (
        column("{task.description}"),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TimeRemainingColumn(),
    )
    with rich.Progress(*columns, console=console(stderr=True)) as bars:
        tasks: dict[str, rich.TaskID] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(one_line(what), total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield show


def _plain_counter() -> "Counter":
    """At most one line every ten seconds, and one at the end of each kind of work."""
    last = time.monotonic()

    def show(what: str, done: int, total: int) -> None:
        nonlocal last
        if done < total and time.monotonic() - last < 10:
            return
        last = time.monotonic()
        say(f"{what}: {done:,} of {total:,}", err=True)

    return show
