"""Where a run stands, by the ends of its events.jsonl: how far it is, how fast it goes, why it failed."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from u2pl.runs.epochs import shown_epoch
from u2pl.runs.records import Event, Run, parse_event

TAIL_BYTES = 64 * 1024
"""As much of the end of events.jsonl is read as tells where a run stands and how fast it goes."""
_HEAD_BYTES = 4096
"""As much of its beginning as tells how many steps the run has."""


class RunState(StrEnum):
    """Where a run stands."""

    WAITING = "waiting"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    """It was stopped or killed, and goes on from its checkpoint when it is started again."""
    FAILED = "failed"
    DONE = "done"
    STALE = "stale"
    """Its folder holds a run of other settings than today's; started again, it begins anew."""
    DAMAGED = "damaged"
    """Its folder says of no run, or not what u2pl writes."""


@dataclass(frozen=True)
class Events:
    """The ends of an events.jsonl."""

    first: Event | None
    newest: Sequence[Event]
    """Those of the newest start that are not too long ago."""

    @classmethod
    def read(cls, path: Path, tail: int = TAIL_BYTES) -> "Events":
        """What is there of them; nothing where there is no file. Half a line is passed over.

        Args:
            path: of the file.
            tail: how many bytes of its end are looked at.
        """
        if not path.is_file():
            return cls(None, [])
        try:
            with path.open("rb") as file:
                head = file.read(_HEAD_BYTES)
                size = file.seek(0, 2)
                file.seek(max(0, size - tail))
                end = file.read()
        except OSError:
            return cls(None, [])
        newest: list[Event] = []
        for each in _events(end):
            newest = [each] if each["event"] in ("start", "resume") else [*newest, each]
        return cls(next(_events(head), None), newest)

    @property
    def time(self) -> int:
        """Of the newest event, in milliseconds since the epoch."""
        return int(self.newest[-1]["time"]) if self.newest else 0

    @property
    def failure(self) -> str | None:
        """Why the run failed; None where that is not the last thing that happened."""
        if not self.newest or self.newest[-1]["event"] != "failed":
            return None
        return str(self.newest[-1].get("message") or "It did not say why; start it again to see.")

    def state(self, *, held: bool, done: bool) -> RunState:
        """Where the run stands, given whether a process holds its folder, and whether that has its result."""
        if held:
            return RunState.RUNNING
        if done:
            return RunState.DONE
        if self.failure is not None:
            return RunState.FAILED
        return RunState.INTERRUPTED if self.newest else RunState.WAITING

    @property
    def steps(self) -> int | None:
        """Steps of the whole run; runs of earlier versions do not say."""
        known = [each["metrics"].get("steps") for each in (self.first, *self.newest) if each]
        return next((int(steps) for steps in known if steps), None)

    def where(self, run: Run | None) -> dict[str, Any]:
        """Steps, epochs and the newest mIoU, as a `RunStatus` has them."""
        if run is None or not self.newest:
            return {}
        step, epochs = int(self.newest[-1]["step"]), run["recipe"]["epochs"]
        measured = [e["metrics"]["val/miou"] for e in self.newest if "val/miou" in e["metrics"]]
        return {
            "step": step,
            "steps": self.steps,
            "epoch": min(shown_epoch(int(self.newest[-1]["epoch"])), epochs),
            "epochs": epochs,
            "miou": measured[-1] if measured else None,
        }

    def seconds_left(self) -> float | None:
        """At the pace since it was started, validations and checkpoints included; None before there is one."""
        paced = [each for each in self.newest if each["event"] in ("step", "epoch")]
        if not paced or self.steps is None or paced[-1]["step"] == paced[0]["step"]:
            return None
        first, last = paced[0], paced[-1]
        pace = (last["time"] - first["time"]) / 1000 / (last["step"] - first["step"])
        return max(0.0, (self.steps - last["step"]) * pace - (time.time() - last["time"] / 1000))


def _events(text: bytes) -> Iterator[Event]:
    yield from filter(None, map(parse_event, text.splitlines()))
