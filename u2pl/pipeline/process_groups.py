"""Process groups that must not outlive their owner: how they are stopped, and who does it if the owner is killed."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable

import psutil

GRACE_SECONDS = 120.0
"""Time to save before what was told to stop is killed: a step, a checkpoint, a last word to the tracking store."""


def living(group: int) -> list[psutil.Process]:
    """The processes of a group that still do something."""
    try:
        os.killpg(group, 0)
    except OSError:
        return []
    found = []
    # The dead that nobody has collected, as in a container without an init process, do not count.
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def stop(group: int) -> None:
    """Ask a group to end.

    By SIGINT, which `dvc` leaves to the command that it runs and then tells how that ended.
    """
    with contextlib.suppress(OSError):
        os.killpg(group, signal.SIGINT)


def kill(group: int) -> None:
    """End a group, and what its processes have started in groups of their own."""
    for process in living(group):
        with contextlib.suppress(psutil.Error):
            for child in process.children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    child.kill()
    with contextlib.suppress(OSError):
        os.killpg(group, signal.SIGKILL)


def end(groups: Iterable[int], grace: float = GRACE_SECONDS) -> None:
    """Stop groups, and kill what is left of them after a while."""
    left = [group for group in groups if living(group)]
    for group in left:
        stop(group)
    deadline = time.monotonic() + grace
    while left and time.monotonic() < deadline:
        time.sleep(0.1)
        left = [group for group in left if living(group)]
    for group in left:
        kill(group)


class Reaper:
    """A process that ends the groups it was told of when its owner is gone, however that came about."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "u2pl.pipeline.process_groups"],
            stdin=subprocess.PIPE,
            start_new_session=True,
            text=True,
        )

    def watch(self, group: int) -> None:
        """Take care of a group from now on."""
        self._send(f"+{group}")

    def forget(self, group: int) -> None:
        """Leave a group alone that has ended: its number may become another's."""
        self._send(f"-{group}")

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()

    def close(self) -> None:
        """End the groups that are still there, and the reaper."""
        with contextlib.suppress(OSError):
            self._process.communicate()


def _main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        (groups.add if line.startswith("+") else groups.discard)(int(line[1:]))
    end(groups)


if __name__ == "__main__":
    _main()
