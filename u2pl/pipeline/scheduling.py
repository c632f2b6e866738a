"""Which stages of the active plan may run now, and what a failure leaves to run: the plan as a graph, without DVC."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from pydantic import TypeAdapter, ValidationError

from u2pl.errors import UserError
from u2pl.files import read_json, write_json
from u2pl.pipeline import ActivePlan
from u2pl.project import Project


class State(StrEnum):
    """Where a stage stands."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    BLOCKED = "blocked"
    """Something that it needs has failed, or is blocked itself."""


@dataclass(frozen=True)
class Stage:
    """A stage, KIND@KEY, such as `train@shapes-1_8-u2pl-s0`; DVC knows it by its `address`."""

    name: str
    needs: frozenset[str] = frozenset()
    """Stages that must have succeeded before."""
    after: frozenset[str] = frozenset()
    """Stages that must have ended before, whether they succeeded or not."""
    alone: bool = False
    """Whether it comes before all others, and nothing runs beside it."""
    urgency: int = 0
    """Of the stages that may run, the most urgent start first; of equally urgent ones the first of the list."""


_WRITES_AT_ONCE = 10**6
"""Urgency of what takes seconds and shows results: never kept waiting by hours of training."""


def stages(plan: ActivePlan, runs: Mapping[str, str] | None = None) -> list[Stage]:
    """The stages of dvc.yaml and pipelines/dvc.yaml for `plan`, each behind those that it depends on.

    Table by table, so that the first tables are complete early. Of one table the last rows go first: there stands
    the paper's own method, which takes longest, and what is long should not be left for the end.

    Args:
        plan: the active plan.
        runs: what the run of each key is called today; of those that are one run the first trains it, and the others
            come after. None: no two are.
    """
    folders = {item.folder: f"prepare@{key}" for key, item in plan.prepare.items()}
    order = list(dict.fromkeys([*(run for table in plan.tables.values() for run in table.cells), *plan.runs]))
    first: dict[str, int] = {}
    for place, table in enumerate(plan.tables.values()):
        for run in table.cells:
            first.setdefault(run, place)

    def urgency(run: str) -> int:
        return (len(plan.tables) - first.get(run, len(plan.tables))) * len(order) + order.index(run)

    def of(kind: str, items: Iterable[str]) -> frozenset[str]:
        return frozenset(f"{kind}@{key}" for key in items)

    def writes(name: str, needs: Iterable[str] = (), after: Iterable[str] = ()) -> Stage:
        return Stage(name, frozenset(needs), frozenset(after), urgency=_WRITES_AT_ONCE)

    found = [Stage(f"prepare@{key}", alone=True) for key in plan.prepare]
    names = runs or {key: key for key in plan.runs}
    trains: dict[str, str] = {}
    for key in sorted(plan.runs, key=urgency, reverse=True):
        trains.setdefault(names[key], key)
    for key, trained in plan.runs.items():
        prepared = [folders[trained.folder]] if trained.folder in folders else []
        same = {trains[names[key]]} - {key}
        found.append(Stage(f"train@{key}", frozenset(prepared), of("train", same), urgency=urgency(key)))
    found += [writes(f"evaluate@{key}", [f"train@{key}"]) for key in plan.runs]
    found += [writes(f"ablate@{key}", of("evaluate", item.runs)) for key, item in plan.ablations.items()]
    found += [writes(f"figure@{key}", of("evaluate", item.runs)) for key, item in plan.figures.items()]
    for key, shown in plan.tables.items():
        compared = [name for name, item in plan.ablations.items() if item.shows == key]
        found.append(writes(f"table@{key}", after=of("evaluate", shown.cells) | of("ablate", compared)))
    found.append(writes("report", after=of("table", plan.tables) | of("figure", plan.figures)))
    return found


class Schedule:
    """Told which stages have ended, says which may start, each in a slot that is free; knows no process.

    Args:
        stages: in the order in which equally urgent ones start.
        slots: how many run at a time.
    """

    def __init__(self, stages: Iterable[Stage], slots: int):
        self.stages = {stage.name: stage for stage in stages}
        for stage in self.stages.values():
            missing = (stage.needs | stage.after) - set(self.stages)
            assert not missing, f"{stage.name} waits for {missing}, which nothing runs"
        self.states = dict.fromkeys(self.stages, State.WAITING)
        self.slots = slots
        self._taken: dict[str, int] = {}
        self._stopped = False

    def start(self) -> tuple[Stage, int] | None:
        """The stage to start now and the slot to run it in, both taken; None where nothing may start."""
        free = sorted(set(range(self.slots)) - set(self._taken.values()))
        waiting = [stage for stage in self.stages.values() if self.states[stage.name] is State.WAITING]
        if self._stopped or not free or not waiting:
            return None
        if any(stage.alone and not self.has_ended(stage.name) for stage in self.stages.values()):
            waiting = [stage for stage in waiting if stage.alone and not self._taken]
        stage = max(filter(self._is_free, waiting), key=lambda stage: stage.urgency, default=None)
        if stage is None:
            return None
        self.states[stage.name] = State.RUNNING
        self._taken[stage.name] = free[0]
        return stage, free[0]

    def _is_free(self, stage: Stage) -> bool:
        """Whether all that the stage waits for has come about."""
        return all(self.states[name] is State.DONE for name in stage.needs) and all(
            map(self.has_ended, stage.after)
        )

    def has_ended(self, name: str) -> bool:
        """Whether nothing will happen to the stage any more."""
        return self.states[name] in (State.DONE, State.FAILED, State.BLOCKED)

    def ended(self, name: str, succeeded: bool) -> list[str]:
        """Free the slot of a stage that ran; the names of those that its failure blocks, in order."""
        del self._taken[name]
        self.states[name] = State.DONE if succeeded else State.FAILED
        blocked: list[str] = []
        lost = {name} if not succeeded else set()
        while found := [
            stage.name
            for stage in self.stages.values()
            if self.states[stage.name] is State.WAITING and stage.needs & lost
        ]:
            self.states.update(dict.fromkeys(found, State.BLOCKED))
            blocked += found
            lost |= set(found)
        return blocked

    def put_back(self, name: str) -> None:
        """Free the slot of a stage that was stopped before its end; it waits again."""
        del self._taken[name]
        self.states[name] = State.WAITING

    def stop(self) -> None:
        """Start nothing any more."""
        self._stopped = True

    @property
    def is_over(self) -> bool:
        """Whether nothing runs and nothing will start."""
        if self._taken:
            return False
        return self._stopped or not any(state is State.WAITING for state in self.states.values())


@dataclass(frozen=True)
class Outcome:
    """How a stage ended."""

    succeeded: bool
    sentence: str = ""
    """Why it failed."""
    stopped: bool = False
    """Whether it ended because it was told to, so that nothing can be said about it."""


class Job(Protocol):
    """A stage that runs."""

    def poll(self) -> Outcome | None:
        """How it ended; None while it runs."""

    @property
    def waits_for(self) -> str:
        """What it waits for before it can run, in a sentence; empty where it runs."""

    def stop(self) -> None:
        """Let it save its state and end."""

    def kill(self) -> None:
        """End it now."""


@dataclass
class Entry:
    """What is known of a stage while a plan runs and afterwards."""

    state: State = State.WAITING
    sentence: str = ""
    slot: int | None = None
    started: float | None = None
    """Seconds since the epoch."""
    ended: float | None = None


@dataclass
class PlanRecord:
    """What `u2pl plan run` writes down while it runs, for `u2pl status` to read from elsewhere."""

    plan: str
    host: str
    pid: int
    started: float
    stages: dict[str, Entry] = field(default_factory=dict)

    def write(self, project: Project) -> None:
        """Write the record of the project."""
        write_json(plan_folder(project) / "state.json", asdict(self))

    @classmethod
    def read(cls, project: Project) -> "PlanRecord | None":
        """The newest record of the project; None where there is none that can be read."""
        try:
            return TypeAdapter(PlanRecord).validate_python(read_json(plan_folder(project) / "state.json"))
        except (OSError, UserError, ValidationError):
            return None  # of another version, or none: what ran before is no part of the truth about a run


def plan_folder(project: Project) -> Path:
    """Where `u2pl plan run` keeps its lock, its record and the output of each stage."""
    return project.runs / ".plan"


@dataclass
class Stopping:
    """How often the user has asked for an end: once, to stop; again, to kill."""

    asked: int = 0
    _heeded: int = field(default=0, repr=False)

    def heed(self, schedule: Schedule, jobs: Iterable[Job]) -> None:
        """Pass on what was asked since the last call."""
        if self.asked > self._heeded:
            schedule.stop()
            for job in jobs:
                job.kill() if self.asked > 1 else job.stop()
            self._heeded = self.asked


Observer = Callable[[str, Entry], None]
"""Told the name of a stage that has started, ended or is blocked, and what is known of it."""


def run(
    schedule: Schedule,
    start: Callable[[Stage, int], Job],
    stopping: Stopping,
    *,
    observe: Observer = lambda name, entry: None,
    tick: Callable[[], None] = lambda: time.sleep(0.1),
) -> dict[str, Entry]:
    """Run all stages of the schedule, going on past failures, and tell what became of each.

    Args:
        schedule: nothing of it has started yet.
        start: starts a stage in a slot; may raise nothing.
        stopping: looked at between two ticks.
        tick: called between two looks at the jobs; waits a little.
    """
    entries = {name: Entry() for name in schedule.stages}
    jobs: dict[str, Job] = {}

    def change(name: str, **values: object) -> None:
        for key, value in {"state": schedule.states[name], **values}.items():
            setattr(entries[name], key, value)
        observe(name, entries[name])

    while True:
        stopping.heed(schedule, jobs.values())
        while next_ := schedule.start():
            stage, slot = next_
            jobs[stage.name] = start(stage, slot)
            change(stage.name, slot=slot, started=time.time())
        for name, job in list(jobs.items()):
            outcome = job.poll()
            if outcome is None:
                if entries[name].sentence != job.waits_for:
                    change(name, sentence=job.waits_for)
                continue
            del jobs[name]
            if outcome.stopped:
                schedule.put_back(name)
                change(name, started=None, sentence=outcome.sentence)
                continue
            blocked = schedule.ended(name, outcome.succeeded)
            change(name, sentence=outcome.sentence, ended=time.time())
            for other in blocked:
                lost = sorted(
                    n
                    for n in schedule.stages[other].needs
                    if schedule.states[n] in (State.FAILED, State.BLOCKED)
                )
                change(other, sentence=f"needs {', '.join(lost)}")
        if schedule.is_over:
            return entries
        tick()
