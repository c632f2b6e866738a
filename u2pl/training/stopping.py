"""Whether training was asked to stop: by a signal, or because `dvc repro` that started it is no more."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import psutil

from u2pl import interrupts
from u2pl.errors import EndedElsewhere, Interrupted
from u2pl.training.place import is_first, started

_LOOK_SECONDS = 1.0


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Turn SIGTERM, SIGINT and the death of `dvc repro` into a question to ask after each step.

    Until it is asked for the first time there is nothing to save, and a signal ends the work at once. So does a second
    signal, unless this process is one of several, which may get one from the terminal and another from their launcher.

    Raises:
        Interrupted: a signal came before the question.
    """
    received: list[int] = []
    asked = False

    def handle(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if not several:
            for signal_number, handler in before.items():
                signal.signal(signal_number, handler)
        if not asked and len(received) == 1:
            # Unlike an Interrupted this passes by all who take an Exception for something of their own.
            raise KeyboardInterrupt

    def stopped() -> bool:
        nonlocal asked
        asked = True
        return bool(received) or orphaned()

    several, first = started(), is_first()
    orphaned = _orphaned()
    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        if interrupts.came():  # and was swallowed
            raise KeyboardInterrupt
        yield stopped
    except KeyboardInterrupt:
        if asked:
            raise
        if not first:
            raise EndedElsewhere(Interrupted.exit_code) from None
        raise Interrupted(
            "Stopped before training began; nothing is lost. Start the same command again to go on."
        ) from None
    finally:
        for signal_number, handler in before.items():
            signal.signal(signal_number, handler)


def _orphaned() -> Callable[[], bool]:
    """Whether the DVC process that runs this one as a stage has died; without such a process never.

    DVC passes no signal on, and a trainer left behind would go on to its end in a folder that nobody waits for. Who
    starts a run from a shell and logs out wants just that, so only DVC is watched.
    """
    if "DVC_ROOT" not in os.environ:  # set for the commands of stages
        return lambda: False
    # Between DVC and this process stand a shell and, with --nproc, the launcher; they may outlive it.
    watched = [
        process
        for process in psutil.Process().parents()
        if any(Path(word).name in ("dvc", "dvc.exe") for word in _words(process)[:3])
    ]
    looked, dead = time.monotonic(), False

    def ask() -> bool:
        nonlocal looked, dead
        if not dead and time.monotonic() - looked > _LOOK_SECONDS:
            looked = time.monotonic()
            dead = not all(map(_lives, watched))
        return dead

    return ask


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
