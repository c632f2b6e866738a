"""Reads a run's events while they are written, and gives its metrics the names that MLflow takes."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from u2pl.files import sha256
from u2pl.runs.records import Event, parse_event


class EventLog:
    """Reads an `events.jsonl` while it grows, or a `system.jsonl`, which is written in the same way."""

    def __init__(self, path: Path):
        self.path = path
        self.offset = 0
        self.state = "start"
        """The newest event that is no measurement: start, resume, end, failed, interrupted."""
        self.time = 0
        """Of the newest event, in milliseconds since the epoch; 0 before there is one."""
        self._step: Event | None = None
        self._names: dict[str, str] = {}

    def measurements(self) -> list[Event]:
        """The step, epoch and system events written since the last call, by step; of equal ones the last.

        What an epoch repeats of the step it ends with is left out. A last line without its end stays for
        the next call, and a line that is no event (its writer was killed) is passed over.
        """
        if not self.path.is_file():
            return []
        with self.path.open("rb") as file:
            file.seek(self.offset)
            written = file.read()
        whole = written[: written.rfind(b"\n") + 1]
        self.offset += len(whole)
        newest: dict[tuple[int, str], Event] = {}
        for each in filter(None, map(parse_event, whole.splitlines())):
            self.time = each["time"]
            if each["event"] == "step":
                self._step = each
            elif each["event"] == "system":
                pass  # in a file of its own, with numbers of its own for steps
            elif each["event"] == "epoch":
                known = self._step["metrics"] if self._step and self._step["step"] == each["step"] else {}
                each["metrics"] = {k: v for k, v in each["metrics"].items() if k not in known}
            else:
                self.state = each["event"]
                continue
            each["metrics"] = self._named(each["metrics"])
            newest[each["step"], each["event"]] = each
        return [newest[key] for key in sorted(newest)]

    def _named(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """The metrics by the names that MLflow takes, always the same in one log.

        Of two names that become one, as those of the classes `x!` and `x?`, the later gets a hash of what it was.
        """
        taken = set(self._names.values())
        # First those that stay as they are.
        for name in sorted(metrics.keys() - self._names.keys(), key=lambda name: metric_name(name) != name):
            wanted = metric_name(name)
            self._names[name] = f"{wanted[:240]}-{sha256(name)[:8]}" if wanted in taken else wanted
            taken.add(self._names[name])
        return {self._names[name]: value for name, value in metrics.items()}


def metric_name(name: str) -> str:
    """`name` as MLflow takes it: a relative path of letters, digits and `_.- :`, at most 250 characters."""
    parts = [re.sub(r"[^\w.\- :]", "_", part) for part in name.split("/")]
    return "/".join("_" if part in ("", ".", "..") else part for part in parts)[:250]


def finite(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The metrics that are finite numbers."""
    return {
        name: float(value)
        for name, value in metrics.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }


def milliseconds(iso: str) -> int:
    """A time of day since the epoch."""
    return int(datetime.fromisoformat(iso).timestamp() * 1000)


def in_batches(events: Iterable[Event], size: int) -> Iterator[list[Event]]:
    """The events in lists of at most `size` metrics; an event is never divided."""
    batch: list[Event] = []
    count = 0
    for each in events:
        if batch and count + len(each["metrics"]) > size:
            yield batch
            batch, count = [], 0
        batch.append(each)
        count += len(each["metrics"])
    if batch:
        yield batch
