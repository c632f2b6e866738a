"""A run's work folder: who it belongs to, what happened, where training stands.

Loads torch only to begin a run, and to write or read its tensors: one that has finished is taken without.
"""

import json
import logging
import math
import os
import platform
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import filelock
import yaml

from u2pl.errors import UserError, is_out_of_memory
from u2pl.files import (
    holder_in_words,
    sweep,
    write_atomically,
    write_csv,
    write_holder,
    write_json,
    write_text,
)
from u2pl.project import Project
from u2pl.runs import set_aside
from u2pl.runs.origin import revision
from u2pl.runs.records import Run, is_complete, read_metrics, read_run
from u2pl.settings import ResolvedRun, differences, fingerprint
from u2pl.settings.device import torch_device

_log = logging.getLogger(__name__)

_STATE = (
    "metrics.json",
    "weights.pt",
    "best.pt",
    "last.pt",
    "last.pt.previous",
    "events.jsonl",
    "history.csv",
)
"""Files that tell where a run stands: beside a run.json that is not theirs, they would become another run's."""


def described(name: str, resolved: ResolvedRun, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What run.json says of a run, given all that decides its numbers."""
    return {
        "name": name,
        **({"named": True} if resolved.spec.name else {}),
        **{key: facts[key] for key in ("dataset", "split", "method", "seed")},
        "overrides": dict(resolved.spec.overrides),
        "flavor": resolved.flavor,
        "recipe": facts["recipe"],
        "hyper": facts["hyper"],
        "fingerprint": fingerprint(facts),
        "facts": facts,
    }


def device_name() -> str:
    """What trains here: the GPU's name, or `cpu`."""
    import torch

    device = torch_device()
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


class RunFolder:
    """`runs/NAME/`, held by one process at a time; of several that train one run together, the first.

    Args:
        path: the folder.
        writes: False for the others: what they would write is left out.
    """

    def __init__(self, path: Path, *, writes: bool = True):
        self.path, self.writes = path, writes
        self.begun = False
        """Whether `claim` found no run in it, and none to take back."""
        self._lock = filelock.FileLock(path / "lock")

    @classmethod
    def claim(
        cls, project: Project, name: str, description: Mapping[str, Any], *, fresh: bool
    ) -> "RunFolder":
        """Take the folder of a run, making it where there is none.

        Args:
            description: the contents of run.json but for what is known here (uid, creation time, machine).
            fresh: where the folder holds a run of other settings, set that aside instead of refusing. A run of these
                settings that was set aside before is taken back.

        Raises:
            UserError: another process holds the folder, it cannot be written, or it holds a run of other settings.
        """
        folder = cls(project.runs / name)
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
            folder._lock.acquire(timeout=1)  # whoever asks whether it is held holds it for an instant
        except filelock.Timeout:
            raise UserError(
                f"Another process{holder_in_words(folder.path)} is training {name}. Wait for it, or stop it first."
            ) from None
        except OSError as error:
            raise UserError(
                f"Cannot write {folder.path}: {error.strerror}. Make the folder writable, or set U2PL_ROOT to "
                "another copy of the project."
            ) from None
        try:
            folder._take(project.runs / ".old", description, fresh=fresh)
        except BaseException:
            folder.release()
            raise
        return folder

    def _take(self, store: Path, description: Mapping[str, Any], *, fresh: bool) -> None:
        """Make the folder, which is held, that of the run described; see `claim`."""
        write_holder(self.path)
        run, wanted = self.run(), description["fingerprint"]
        if run is not None:
            set_aside.mend(self.path, store, run)
        if run is not None and run["fingerprint"] != wanted:
            if not fresh:
                lines = "\n  ".join(differences(run["facts"], description["facts"]))
                raise UserError(
                    f"{self.path} holds a run of other settings:\n  {lines}\n"
                    "Add --fresh to set that run aside (it comes back with its settings), or take the old settings."
                )
            where = set_aside.put(self.path, store, run)
            _log.warning("The run of other settings in %s lies in %s now.", self.path, where)
            run = None
        if run is None:
            self._refuse_strays()
            if set_aside.take_back(self.path, store, wanted):
                _log.warning("%s holds the run of these settings again that had been set aside.", self.path)
            else:
                self._begin(description)
                self.begun = True
        self._end_half_written_line()

    def _refuse_strays(self) -> None:
        stray = [name for name in _STATE if (self.path / name).exists()]
        if stray:
            raise UserError(
                f"{self.path} holds {stray[0]} of a run, but no run.json that says of which. Move the folder "
                "elsewhere, then start the same command again."
            )

    def _begin(self, description: Mapping[str, Any]) -> None:
        """Say whose folder it is from now on."""
        import torch

        machine = {
            "host": platform.node(),
            "processor": platform.machine(),
            "device": device_name(),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "revision": revision(self.path, digits=40),
        }
        created = datetime.now(UTC).isoformat(timespec="seconds")
        run = {**description, "uid": uuid.uuid4().hex, "created": created, "tags": machine}
        write_text(
            self.path / "settings.yaml",
            yaml.safe_dump(
                {key: run[key] for key in ("dataset", "split", "method", "seed", "recipe", "hyper")},
                sort_keys=False,
            ),
        )
        write_json(self.path / "run.json", run)

    def release(self) -> None:
        """Let go of the folder."""
        self._lock.release()

    def run(self) -> Run | None:
        """Whose folder it is, None where nobody has claimed it."""
        return read_run(self.path) if os.path.lexists(self.path / "run.json") else None

    def is_finished(self) -> bool:
        """Whether the run has come to its end.

        Raises:
            UserError: the result that lies there is damaged, or another run's.
        """
        if not is_complete(self.path):
            return False
        if read_metrics(self.path)["fingerprint"] != read_run(self.path)["fingerprint"]:
            raise UserError(
                f"{self.path / 'metrics.json'} is the result of another run than run.json. Move {self.path} elsewhere, "
                "then start the same command again."
            )
        return True

    def event(
        self,
        event: str,
        step: int,
        epoch: int,
        metrics: Mapping[str, float] | None = None,
        message: str | None = None,
    ) -> None:
        """Append a line to events.jsonl, the truth about the run; values that are not finite are left out.

        Args:
            event: what happened.
            step: after how many steps.
            epoch: in which epoch.
            metrics: what was measured.
            message: why it happened, in words.
        """
        if not self.writes:
            return
        line = {
            "time": time.time_ns() // 1_000_000,
            "event": event,
            "step": step,
            "epoch": epoch,
            "metrics": {key: value for key, value in (metrics or {}).items() if math.isfinite(value)},
            **({"message": message} if message else {}),
        }
        with (self.path / "events.jsonl").open("ab") as file:
            file.write(json.dumps(line).encode() + b"\n")

    def write_history(self, rows: list[dict[str, float]]) -> None:
        """Write history.csv: one row an epoch."""
        if not self.writes:
            return
        names = list(dict.fromkeys(key for row in rows for key in row))
        write_csv(self.path / "history.csv", [names, *([row.get(name) for name in names] for row in rows)])

    def save(self, name: str, state: Mapping[str, Any]) -> None:
        """Write tensors and plain values to `name`; the file it replaces is kept as `name` + ".previous"."""
        if not self.writes:
            return
        import torch

        path = self.path / name
        try:
            write_atomically(path.with_name(f"{name}.new"), lambda temporary: torch.save(state, temporary))
        except (OSError, RuntimeError) as error:  # torch's own word for a full disk is a RuntimeError
            if is_out_of_memory(error):
                raise
            reason = getattr(error, "strerror", None) or error
            raise UserError(
                f"Cannot write {path}: {reason}. Free some space, then start the same command again."
            ) from None
        if path.exists():
            path.replace(path.with_name(f"{name}.previous"))
        path.with_name(f"{name}.new").replace(path)

    def load(self, name: str) -> dict[str, Any] | None:
        """The newest readable state of `name`, None where there is none; a damaged file gives way to the one before.

        Raises:
            UserError: there are files, and none can be read.
        """
        import torch

        found = [self.path / name, self.path / f"{name}.previous"]
        candidates = [path for path in found if path.exists()]
        for path in candidates:
            try:
                if not path.is_file():
                    raise IsADirectoryError
                state = torch.load(path, map_location="cpu", weights_only=True)
                if not isinstance(state, dict):
                    raise TypeError
                return state
            except Exception as error:  # whatever half a file does to the unpickler
                if is_out_of_memory(error):
                    raise
                _log.warning(
                    "%s cannot be read (%s); trying the checkpoint before it.", path, type(error).__name__
                )
        if candidates:
            raise UserError(
                f"No checkpoint in {self.path} can be read. Delete that folder to train the run from the beginning."
            )
        return None

    def sweep(self, *, finished: bool) -> None:
        """Put in order what a killed process left.

        Args:
            finished: whether the run has come to its end: what only resuming needs is several times its weights.
        """
        if not self.writes:
            return
        sweep(self.path)
        for new in self.path.glob("*.pt.new"):
            # Whole, since it has this name; where the process was killed between two renames, nothing else is.
            path = new.with_name(new.name.removesuffix(".new"))
            if finished or path.exists():
                new.unlink()
            else:
                new.replace(path)
        if finished:
            for leftover in (*self.path.glob("last.pt*"), *self.path.glob("*.pt.previous")):
                leftover.unlink(missing_ok=True)

    def _end_half_written_line(self) -> None:
        """A writer that was killed may have left half a line; what is appended must not become part of it."""
        path = self.path / "events.jsonl"
        if path.is_file() and not path.read_bytes().endswith(b"\n"):
            with path.open("ab") as file:
                file.write(b"\n")
