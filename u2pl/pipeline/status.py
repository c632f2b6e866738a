"""How far the runs and tables of the active plan are, from files alone: quick, and without torch or DVC."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from u2pl.errors import UserError
from u2pl.files import holder, is_held
from u2pl.pipeline import ActivePlan, TrainStage, spec_of
from u2pl.pipeline.scheduling import Entry, PlanRecord, State, plan_folder
from u2pl.project import Project
from u2pl.runs.events import Events, RunState
from u2pl.runs.records import Run, is_complete, read_metrics, read_run
from u2pl.runs.scored_classes import counted_classes
from u2pl.runs.staleness import facts
from u2pl.runs.stored_evaluation import run_path
from u2pl.settings import Params, RunSpec, differences, says_all

T = TypeVar("T")


@dataclass(frozen=True)
class RunStatus:
    """A run of the plan."""

    name: str
    state: RunState
    note: str = ""
    """Why it failed, which settings have changed, or what it waits for."""
    miou: float | None = None
    """Of a finished run, percent; of another one, the newest that was measured."""
    over: str = ""
    """`over 3 of 4 classes` where a finished run's mIoU leaves some out."""
    step: int | None = None
    steps: int | None = None
    epoch: int | None = None
    """The one it is in, counted from 1."""
    epochs: int | None = None
    seconds_left: float | None = None
    holder: str = ""
    """Host and process that train it."""
    set: dict[str, Any] = field(default_factory=dict)
    """Dotted setting -> value, of those that differ from params.yaml."""
    is_told_by_name: bool = True
    """Whether its name shows all of them."""

    @property
    def share(self) -> float | None:
        """How much of it is done, 0 to 1."""
        return self.step / self.steps if self.step is not None and self.steps else None


@dataclass(frozen=True)
class OneRun:
    """A run, whether it is part of the plan or not."""

    status: RunStatus
    dataset: str
    split: str
    method: str
    seed: int
    defaults: dict[str, Any]
    """Of the settings that differ from params.yaml what that says, where it knows them."""


@dataclass(frozen=True)
class TableStatus:
    """A table of the plan."""

    name: str
    cells: int
    """That the plan fills; not those that only cite the paper."""
    there: int
    """Of which every run has a result."""


@dataclass(frozen=True)
class PlanStatus:
    """The active plan."""

    plan: str
    runs: list[RunStatus]
    tables: list[TableStatus]
    scheduler: str = ""
    """Host and process of the `u2pl plan run` that is at work."""


def status(project: Project) -> PlanStatus:
    """How far the active plan is.

    Raises:
        UserError: there is no active plan, or params.yaml cannot be read.
    """
    plan, params = ActivePlan.read(project), Params.read(project)
    entries, at_work = _scheduled(project)
    runs = [
        _run_status(project, params, name, stage, entries.get(f"train@{name}"), at_work=at_work)
        for name, stage in plan.runs.items()
    ]
    stale = {run.name for run in runs if run.state is RunState.STALE}
    tables = []
    for name, table in plan.tables.items():
        cells: dict[tuple[str, str], bool] = {}
        for run, shown in table.cells.items():
            there = run not in stale and (project.results / run / "metrics.json").is_file()
            cells |= {cell: there and cells.get(cell, True) for cell in shown}
        tables.append(TableStatus(name, len(cells), sum(cells.values())))
    return PlanStatus(plan.plan, runs, tables, _holder(plan_folder(project)) if at_work else "")


def one(project: Project, name: str) -> OneRun:
    """How far one run is, and what was set for it.

    Args:
        project: whose runs/ and active plan, if it has one, are looked into.
        name: of a run that has a folder, or is part of the plan; or its folder.

    Raises:
        UserError: there is no such run, its run.json is damaged, or params.yaml cannot be read.
    """
    params, stages = Params.read(project), dict[str, TrainStage]()
    with suppress(UserError):  # none was made yet, or it is damaged
        stages = ActivePlan.read(project).runs
    if name not in stages:
        folder = run_path(project, name).resolve()
        name = folder.name if folder.parent == project.runs.resolve() else str(folder)
    stage = stages.get(name)
    folder = project.runs / (params.name_of(spec_of(stage)) if stage else name)
    # What the folder holds, which of a stale run is not what the plan wants.
    if stage is None:
        spec = _asked(read_run(folder))
    else:
        run = _there(read_run, folder)
        spec = _asked(run) if run else spec_of(stage)
    changed, defaults = spec.overrides, dict[str, Any]()
    with suppress(UserError):  # today's params.yaml may not have all of them
        resolved = params.resolve(spec, bfloat16=False)
        changed, defaults = resolved.changed, dict(resolved.defaults)
    entries, at_work = _scheduled(project)
    found = _run_status(project, params, name, stage or spec, entries.get(f"train@{name}"), at_work=at_work)
    return OneRun(
        replace(found, set=dict(changed)), spec.dataset, spec.split, spec.method, spec.seed, defaults
    )


def _asked(run: Run) -> RunSpec:
    """What was asked for when a run began."""
    return RunSpec(run["dataset"], run["split"], run["method"], run["seed"], run["overrides"])


def _scheduled(project: Project) -> tuple[dict[str, Entry], bool]:
    """What the newest `u2pl plan run` wrote down about each stage, and whether it is still at work."""
    record = PlanRecord.read(project)
    return record.stages if record else {}, is_held(plan_folder(project) / "lock")


def _run_status(
    project: Project,
    params: Params,
    name: str,
    stage: TrainStage | RunSpec,
    entry: Entry | None,
    *,
    at_work: bool,
) -> RunStatus:
    """As `run_status`; a run that cannot be looked at does not hide the others.

    Args:
        stage: the run's entry in the plan; of a run that is not in it, what was asked for when it began.
    """
    try:
        spec = spec_of(stage) if isinstance(stage, TrainStage) else stage
        found = run_status(project, params, name, spec, entry, at_work=at_work, is_planned=spec is not stage)
        return replace(found, set=dict(spec.overrides), is_told_by_name=says_all(name, spec))
    except UserError as error:
        return RunStatus(name, RunState.FAILED, f"How far it is cannot be told. {error}")
    # Whatever a file brings about that is no longer, or never was, what this version writes.
    except (OSError, LookupError, TypeError, ValueError, AttributeError) as error:
        return RunStatus(
            name,
            RunState.FAILED,
            f"How far it is cannot be told ({type(error).__name__}: {error}). If {project.runs / name} is damaged, "
            "move it elsewhere, then start the run again.",
        )


def run_status(
    project: Project,
    params: Params,
    name: str,
    spec: RunSpec,
    entry: Entry | None = None,
    *,
    at_work: bool = False,
    is_planned: bool = True,
) -> RunStatus:
    """How far a run is.

    Args:
        project: whose runs/ is looked into.
        params: the settings of today.
        name: of the run.
        spec: what the plan wants it to be; of a run that is in no plan, what was asked for when it began.
        entry: what the newest `u2pl plan run` wrote down about it.
        at_work: whether that is still at work.
        is_planned: whether it is part of the plan, so that it is called what params.yaml calls it, whatever its key.
    """
    try:
        folder = project.runs / (params.name_of(spec) if is_planned else name)
    except UserError as error:
        return RunStatus(name, RunState.FAILED, str(error))
    run, log = _there(read_run, folder), Events.read(folder / "events.jsonl")
    where = log.where(run)
    if is_held(folder / "lock"):
        return RunStatus(
            name, RunState.RUNNING, **where, seconds_left=log.seconds_left(), holder=_holder(folder)
        )
    if at_work and entry and entry.state is State.RUNNING:
        return RunStatus(name, RunState.RUNNING, "about to start, or to end", **where)
    try:
        lines = []
        if run and (is_planned or "imported" not in run):  # how an imported network was trained is not known
            lines = differences(run["facts"], facts(project, params, spec, run["facts"]))
    except UserError as error:
        return RunStatus(name, RunState.FAILED, str(error), **where)
    if lines:
        return RunStatus(name, RunState.STALE, "; ".join(lines))
    metrics = _there(read_metrics, folder)
    if metrics is not None and is_complete(folder):
        result = {"miou": metrics["miou"]["reported"], "over": counted_classes(metrics)}
        return RunStatus(name, RunState.DONE, **where | result)
    # Of what the scheduler and the run itself have said, the newer counts.
    if entry and entry.state is State.FAILED and (entry.ended or 0.0) * 1000 > log.time:
        return RunStatus(name, RunState.FAILED, entry.sentence or log.failure or "", **where)
    if log.failure is not None:
        return RunStatus(name, RunState.FAILED, log.failure, **where)
    if log.newest:
        return RunStatus(name, RunState.INTERRUPTED, **where)
    blocked = entry is not None and entry.state is State.BLOCKED
    return RunStatus(name, RunState.WAITING, entry.sentence if entry and blocked else "")


# ---- what the folder says ------------------------------------------------------------------------------


def _there(read: Callable[[Path], T], folder: Path) -> T | None:
    """What `read` finds in a folder; None where there is nothing."""
    try:
        return read(folder)
    except FileNotFoundError:
        return None


def _holder(folder: Path) -> str:
    found = holder(folder)
    return f"{found[0]}, process {found[1]}" if found else ""
