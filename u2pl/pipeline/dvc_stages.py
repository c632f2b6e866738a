"""Runs the stages of the active plan side by side, each by a `dvc` of its own."""

import configparser
import itertools
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import filelock
import psutil

from u2pl.errors import UsageError, UserError
from u2pl.files import free, holder_in_words, write_holder
from u2pl.pipeline import ActivePlan, process_groups, spec_of
from u2pl.pipeline.dvc_lock import is_recorded, lock_entries, outputs
from u2pl.pipeline.scheduling import (
    Entry,
    Observer,
    Outcome,
    Record,
    Schedule,
    Stage,
    State,
    Stopping,
    plan_folder,
    run,
    stages,
)
from u2pl.project import Project
from u2pl.runs.records import read_metrics
from u2pl.runs.staleness import changes
from u2pl.settings import Params

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


@dataclass(frozen=True)
class Workers:
    """How many stages run at a time, and on which devices."""

    jobs: int
    gpus: Sequence[str] = ()
    """As CUDA_VISIBLE_DEVICES names them; the slots take them in turn. None: every stage sees every device."""

    @classmethod
    def of(cls, jobs: int | None, gpus: str | None) -> "Workers":
        """From the words of a user; several jobs share out the devices that are visible, if none are named.

        Raises:
            UsageError: `gpus` is no list of different devices.
        """
        names = [name.strip() for name in gpus.split(",")] if gpus is not None else []
        if not all(names) or len(set(names)) < len(names):
            raise UsageError(f"--gpus takes different devices, such as 0,1,2,3, not {gpus!r}.")
        if gpus is None and jobs is not None and jobs > 1:
            names = visible_gpus()
        return cls(jobs or len(names) or 1, names)

    @property
    def warning(self) -> str | None:
        """What to say where a device that could be used is not."""
        if self.jobs >= len(self.gpus):
            return None
        used, idle = ", ".join(self.gpus[: self.jobs]), ", ".join(self.gpus[self.jobs :])
        return (
            f"--jobs {self.jobs} uses GPU {used} only, and leaves {idle} idle; every stage has one. "
            f"To use all: u2pl plan run --gpus {','.join(self.gpus)}"
        )

    def environment(self, slot: int) -> dict[str, str]:
        """The environment of a stage in a slot."""
        values = dict(os.environ)
        if self.gpus:
            values["CUDA_VISIBLE_DEVICES"] = self.gpus[slot % len(self.gpus)]
        if self.jobs > 1:
            # As many threads in each process as there are cores would get in each other's way.
            values.setdefault("OMP_NUM_THREADS", str(max(1, _cores() // self.jobs)))
        # Where `u2pl` is called by its path, the stages must find it all the same.
        own = str(Path(sys.executable).parent)
        values["PATH"] = os.pathsep.join([*filter(None, [values.get("PATH")]), own])
        return values


def visible_gpus() -> list[str]:
    """The GPUs that a process may use, as CUDA_VISIBLE_DEVICES names them, found without torch.

    None where nvidia-smi does not tell, or tells of GPUs that are cut into instances, which have to be named.
    """
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        # As CUDA reads it: what stands behind a device that cannot be is not used.
        names = [name.strip() for name in named.split(",")]
        return list(itertools.takewhile(lambda name: name and not name.startswith("-"), names))
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [] if "MIG" in listed.stdout else re.findall(r"^GPU (\d+):", listed.stdout, re.MULTILINE)


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# ---- one stage -----------------------------------------------------------------------------------------


class StageProcess:
    """A stage in a process group of its own, tried again where DVC was in the way of itself."""

    def __init__(
        self, project: Project, name: str, environment: Mapping[str, str], guard: process_groups.Keeper
    ):
        self.name, self.log = name, log_of(project, name)
        self._project, self._environment, self._guard = project, environment, guard
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
                [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "-s", self.name],
                cwd=self._project.root,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._guard.watch(self._process.pid)

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
        said = self.log.read_bytes()[self._offset :].decode(errors="replace")
        if code == 0:
            return self._look_again(now)
        if _ANOTHER_HAS_IT.search(said) and (found := blocker(said)):
            self._wait_for(found, now)
            return None
        if (_DVC_IS_BUSY.search(said) or _ANOTHER_HAS_IT.search(said)) and self._tries < _TRIES:
            self._try_again(now)
            return None
        return self._ended(Outcome(False, sentence(said, code)))

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
        self._guard.forget(self._process.pid)
        self._start()
        self._waits_until = now + _PAUSE_SECONDS

    def _ended(self, outcome: Outcome) -> Outcome:
        self._guard.forget(self._process.pid)
        return outcome


def log_of(project: Project, stage: str) -> Path:
    """What a stage printed when it last ran."""
    return plan_folder(project) / "logs" / f"{stage}.log"


def sentence(said: str, code: int) -> str:
    """Why a stage failed, out of all that it printed: its own `Error: ...`, or what comes nearest."""
    lines = said.splitlines()
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


def blocker(said: str) -> str:
    """Who has a stage that could not run, in a sentence; empty where DVC names processes that are all dead."""
    found = re.findall(r"\(PID (\d+)\): (.*)", said)
    alive = [(pid, words) for pid, words in found if psutil.pid_exists(int(pid))]
    if alive:
        pid, words = alive[0]
        return f"waits for process {pid} ({words.strip()}), which is at it now"
    return "" if found else sentence(said, 1)


# ---- the plan ------------------------------------------------------------------------------------------


def run_plan(
    project: Project,
    workers: Workers,
    *,
    observe: Observer = lambda name, entry: None,
    tick: Callable[[], None] = lambda: time.sleep(0.1),
) -> dict[str, Entry]:
    """Run every stage of the active plan, and tell what became of each.

    SIGINT and SIGTERM let what runs save its state and start nothing more; a second one kills. What is then left to
    do is `waiting` in what comes back.

    Raises:
        UserError: another process runs the plan, the project is not under DVC, or there is no active plan.
    """
    plan = ActivePlan.read(project)
    lacking = without_git(project)
    if not (project.root / ".dvc").is_dir():
        raise UserError(
            f"{project.root} is not under DVC. Make it so with: dvc init{' --no-scm' * bool(lacking)}"
        )
    if lacking:
        raise UserError(lacking)
    with _claimed(project):
        guard = process_groups.Keeper()
        try:
            return _run(project, plan, workers, guard, observe, tick)
        finally:
            guard.close()


def without_git(project: Project) -> str | None:
    """Why DVC does nothing in this project, in a sentence; None where it lies in a git repository, or does without."""
    if shutil.which("git") is None:
        return "git is missing, without which DVC does nothing. Install it, then make a repository: git init"
    if any((folder / ".git").exists() for folder in (project.root, *project.root.parents)):
        return None
    config = configparser.ConfigParser(strict=False)
    with suppress(configparser.Error, UnicodeDecodeError):
        config.read([project.root / ".dvc" / name for name in ("config", "config.local")])
        if config.getboolean("core", "no_scm", fallback=False):
            return None
    return (
        f"{project.root} is no git repository, without which DVC does nothing. Make it one: git init; or let DVC do "
        "without: dvc config core.no_scm true"
    )


def _run(
    project: Project,
    plan: ActivePlan,
    workers: Workers,
    guard: process_groups.Keeper,
    observe: Observer,
    tick: Callable[[], None],
) -> dict[str, Entry]:
    schedule = Schedule(stages(plan), workers.jobs)
    record = Record(plan.plan, platform.node(), os.getpid(), time.time())
    record.stages = {name: Entry() for name in schedule.stages}

    def start(stage: Stage, slot: int) -> StageProcess:
        make_folders(project, plan, stage.name)
        return StageProcess(project, stage.name, workers.environment(slot), guard)

    def note(name: str, entry: Entry) -> None:
        record.stages[name] = entry
        if entry.state is State.BLOCKED and forget_outdated(project, plan, schedule.stages[name]):
            folder = project.relative(outdated_folder(project))
            entry.sentence += f" (what it made with other settings before is in {folder} now)"
            # What was made from it may have been blocked before, by something else.
            for stage in schedule.stages.values():
                if name in stage.needs and schedule.states[stage.name] is State.BLOCKED:
                    forget_outdated(project, plan, stage)
        with suppress(OSError):  # a full disk will be told of by a stage
            record.write(project)
        observe(name, entry)

    record.write(project)
    with _signals() as stopping:
        return run(schedule, start, stopping, observe=note, tick=tick)


def make_folders(project: Project, plan: ActivePlan, name: str) -> None:
    """Make the folders that a table or the report reads: DVC refuses a stage if what it depends on is missing."""
    kind, _, key = name.partition("@")
    wanted = {
        "table": lambda: [plan.tables[key].folder],
        "report": lambda: ["results", f"{plan.reports}/tables", plan.pictures],
    }
    for folder in wanted.get(kind, lambda: [])():
        (project.root / folder).mkdir(parents=True, exist_ok=True)


def forget_outdated(project: Project, plan: ActivePlan, stage: Stage) -> bool:
    """Move the results of a blocked stage to `outdated_folder` if they are of other settings; whether it did.

    A table would show their numbers as if they were the plan's. A result is asked what it was made with (see
    `today.changes`, which says what is taken on trust); whether its model is there says nothing, since models and runs
    may have been cleaned away. A comparison or figure goes with a result that it was made from.

    What was made from a result that is gone for another reason stays, as when the evaluation itself failed; so does a
    result that cannot be read. What lies in `outdated_folder` under the same name stays beside it.
    """
    kind, _, key = stage.name.partition("@")
    moved: list[Path] = []
    if kind == "evaluate" and _is_outdated(project, plan, key):
        moved = [_result_folder(plan, key)]
    elif kind in ("ablate", "figure") and any(_was_moved(project, plan, need) for need in stage.needs):
        made = outputs(project, lock_entries(project).get(stage.name, {}))
        moved = [path.relative_to(project.root) for path, _ in made if path.exists()]
    for path in moved:
        _move_aside(project, path)
    return bool(moved)


def outdated_folder(project: Project) -> Path:
    """Where results of other settings are moved, under the path that they had in the project."""
    return plan_folder(project) / "outdated"


def _result_folder(plan: ActivePlan, key: str) -> Path:
    """The result of an evaluation, relative to the project."""
    return Path(plan.evaluations[key].group) / plan.evaluations[key].run


def _is_outdated(project: Project, plan: ActivePlan, key: str) -> bool:
    """Whether an evaluation's result is there, and of other settings than today's."""
    try:
        metrics = read_metrics(project.root / _result_folder(plan, key))
        spec = spec_of(plan.runs[plan.evaluations[key].run])
        return bool(changes(project, Params.read(project), spec, metrics))
    except (OSError, UserError, LookupError, TypeError, AttributeError):
        return False  # none, or not to be told: the table says so of one that is damaged


def _was_moved(project: Project, plan: ActivePlan, evaluation: str) -> bool:
    """Whether the result of a stage has been moved aside and not been made again."""
    folder = _result_folder(plan, evaluation.partition("@")[2])
    return (outdated_folder(project) / folder).exists() and not (project.root / folder).exists()


def _move_aside(project: Project, path: Path) -> None:
    """Move a file or folder, given relative to the project."""
    target = free(outdated_folder(project) / path)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(project.root / path, target)


@contextmanager
def _claimed(project: Project) -> Iterator[None]:
    """Hold the project's lock: two schedulers would run every stage twice."""
    folder = plan_folder(project)
    folder.mkdir(parents=True, exist_ok=True)
    # Whoever asks whether it is held holds it for an instant.
    lock = filelock.FileLock(folder / "lock", timeout=1)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise UserError(
            f"Another `u2pl plan run`{holder_in_words(folder)} is at work in this project. Wait for it, or stop it "
            "first; u2pl status shows how far it is."
        ) from None
    try:
        write_holder(folder)
        yield
    finally:
        lock.release()


@contextmanager
def _signals() -> Iterator[Stopping]:
    """Count SIGINT and SIGTERM instead of dying of them."""
    stopping = Stopping()

    def handle(number: int, frame: object) -> None:
        stopping.asked += 1

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
