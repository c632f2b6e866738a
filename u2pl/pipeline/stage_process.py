"""One stage of the active plan in a `dvc` process of its own: started, tried again, stopped, and why it failed."""

import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

from u2pl.pipeline import process_groups
from u2pl.pipeline.dvc_lock import is_recorded
from u2pl.pipeline.dvc_stages import address
from u2pl.pipeline.scheduling import Outcome, plan_folder
from u2pl.project import Project

_TRIES = 5
"""How often a stage is tried whose trouble was not its command's but DVC's."""
_PAUSE_SECONDS = 1.0
"""Before DVC is tried, or its lock file looked at, again; other processes may be writing."""
_SURVIVORS_SECONDS = 60.0
"""How long a command may save its state whose `dvc` has died."""
_DVC_IS_BUSY = re.compile(r"Unable to acquire lock|Cannot acquire lock")
_ANOTHER_HAS_IT = re.compile(
    r"is busy, it is being blocked by|^Error: Another process.* is training ", re.MULTILINE
)
"""The same stage runs elsewhere, by a `dvc` or a `u2pl train` of somebody's: that ends, and may take days."""
_LOOK_SECONDS = 10.0
"""Before a stage that runs elsewhere is tried again."""


class StageProcess:
    """A stage in a process group of its own, tried again where DVC was in the way of itself."""

    def __init__(
        self, project: Project, name: str, environment: Mapping[str, str], reaper: process_groups.Reaper
    ):
        self.name, self.log = name, log_of(project, name)
        self._project, self._environment, self._reaper = project, environment, reaper
        self._tries = self._looks = 0
        self._asked_to_stop: float | None = None
        self._dead_since: float | None = None
        self._waits_until = 0.0
        self._meetings = 0
        self._again_at: float | None = None
        self.waits_for = ""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.write_bytes(b"")
        self._start()

    def _start(self) -> None:
        self._tries += 1
        self._looks = 0
        self._dead_since = None
        self._started = time.monotonic()
        self._offset = self.log.stat().st_size
        # Alone in a session: Ctrl-C reaches the scheduler, which decides what becomes of its stages.
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "-s", address(self.name).target],
                cwd=self._project.root,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._reaper.watch(self._process.pid)

    def stop(self) -> None:
        """Let it save its state and end."""
        self._asked_to_stop = time.monotonic()
        process_groups.stop(self._process.pid)

    def kill(self) -> None:
        """End it now."""
        self._asked_to_stop = self._asked_to_stop or time.monotonic()
        process_groups.kill(self._process.pid)

    def poll(self) -> Outcome | None:
        """How it ended; None while it runs, or will be tried again."""
        now = time.monotonic()
        if self._again_at is not None:
            if self._asked_to_stop is not None:
                return self._ended(Outcome(False, stopped=True))
            if now >= self._again_at:
                self._again_at = None
                self._try_again(now)
            return None
        if self._asked_to_stop is not None and now - self._asked_to_stop > process_groups.GRACE_SECONDS:
            process_groups.kill(self._process.pid)
        code = self._process.poll()
        if code is None and self.waits_for and now - self._started > _LOOK_SECONDS:
            self.waits_for = ""  # nobody had it any more when it started
        if code is None or self._has_survivors(now) or (now < self._waits_until and not self._asked_to_stop):
            return None
        if code == 0 and is_recorded(self._project, self.name):
            return self._ended(Outcome(True))
        if self._asked_to_stop is not None:
            return self._ended(Outcome(False, stopped=True))
        output = self.log.read_bytes()[self._offset :].decode(errors="replace")
        if code == 0:
            return self._look_again(now)
        if _ANOTHER_HAS_IT.search(output) and (found := blocker(output)):
            self._wait_for(found, now)
            return None
        if (_DVC_IS_BUSY.search(output) or _ANOTHER_HAS_IT.search(output)) and self._tries < _TRIES:
            self._try_again(now)
            return None
        return self._ended(Outcome(False, failure_reason(output, code)))

    def _wait_for(self, blocker: str, now: float) -> None:
        """Another process is at this stage, and may be for days: try again whenever a pause is over."""
        self._meetings += 1
        self._tries = 0
        # At first it may be a stage of this very plan, which holds for an instant what both read.
        if self._meetings > 1:
            self.waits_for = blocker
        self._again_at = now + (_PAUSE_SECONDS if self._meetings <= _TRIES else _LOOK_SECONDS)

    def _has_survivors(self, now: float) -> bool:
        """Whether what `dvc` has started still lives: it saves its state if `dvc` was killed."""
        if not process_groups.living(self._process.pid):
            return False
        self._dead_since = self._dead_since or now
        if now - self._dead_since > _SURVIVORS_SECONDS:
            process_groups.kill(self._process.pid)
        return True

    def _look_again(self, now: float) -> Outcome | None:
        """DVC is content, but its lock file does not have the stage: it may be half written just now, or lost it."""
        self._looks += 1
        if self._looks < 3:
            self._waits_until = now + _PAUSE_SECONDS
            return None
        if self._tries < _TRIES:
            self._try_again(now)
            return None
        return self._ended(
            Outcome(
                False,
                f"DVC ran it {self._tries} times and left no trace of it in dvc.lock. Start the same command again.",
            )
        )

    def _try_again(self, now: float) -> None:
        # Cheap: what was trained is found again by its fingerprint.
        self._reaper.forget(self._process.pid)
        self._start()
        self._waits_until = now + _PAUSE_SECONDS

    def _ended(self, outcome: Outcome) -> Outcome:
        self._reaper.forget(self._process.pid)
        return outcome


def log_of(project: Project, stage: str) -> Path:
    """What a stage printed when it last ran."""
    return plan_folder(project) / "logs" / f"{stage}.log"


def failure_reason(output: str, code: int) -> str:
    """Why a stage failed, out of all that it printed: its own `Error: ...`, or what comes nearest."""
    lines = output.splitlines()
    starts = [index for index, line in enumerate(lines) if line.startswith("Error: ")]
    if starts:
        block = [lines[starts[-1]].removeprefix("Error: ")]
        for line in lines[starts[-1] + 1 :]:
            if not line.strip() or line.startswith("ERROR: "):
                break
            block.append(line.strip())
        return " ".join(block)
    # No sentence of ours: DVC's own or, where that says no more than that the command failed, the command's last word.
    dvcs = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    own = [line.strip() for line in lines if line.strip() and not _IS_DVCS.match(line)]
    if dvcs and not (own and _IS_THE_COMMANDS.search(dvcs[0])):
        return dvcs[0]
    return own[-1] if own else f"It ended with status {code} and said nothing."


_IS_THE_COMMANDS = re.compile(r"failed to run: .*, exited with -?\d+$")
_IS_DVCS = re.compile(r"ERROR: |WARNING: |Running stage |Verifying |> |Stage '|If there are no processes")


def blocker(output: str) -> str:
    """Who has a stage that could not run, in a sentence; empty where DVC names processes that are all dead."""
    found = re.findall(r"\(PID (\d+)\): (.*)", output)
    alive = [(pid, command) for pid, command in found if psutil.pid_exists(int(pid))]
    if alive:
        pid, command = alive[0]
        return f"waits for process {pid} ({command.strip()}), which is at it now"
    return "" if found else failure_reason(output, 1)
