"""Runs the stages of the active plan side by side, and writes down what became of each."""

import configparser
import os
import platform
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from u2pl.errors import UserError
from u2pl.files import claimed
from u2pl.pipeline import ActivePlan, planned_names, process_groups
from u2pl.pipeline.outdated_results import move_outdated, outdated_folder
from u2pl.pipeline.scheduling import (
    Entry,
    Observer,
    PlanRecord,
    Schedule,
    Stage,
    State,
    Stopping,
    plan_folder,
    run,
    stages,
)
from u2pl.pipeline.stage_process import StageProcess
from u2pl.pipeline.workers import Workers
from u2pl.project import RESULTS, Project

_BUSY = (
    "Another `u2pl plan run`{holder} is at work in this project. Wait for it, or stop it first; u2pl status shows how "
    "far it is."
)


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
    git_problem = missing_git(project)
    if not (project.root / ".dvc").is_dir():
        raise UserError(
            f"{project.root} is not under DVC. Make it so with: dvc init{' --no-scm' * bool(git_problem)}"
        )
    if git_problem:
        raise UserError(git_problem)
    # Two schedulers would run every stage twice.
    with claimed(plan_folder(project), "lock", _BUSY):
        reaper = process_groups.Reaper()
        try:
            return _run(project, plan, workers, reaper, observe, tick)
        finally:
            reaper.close()


def missing_git(project: Project) -> str | None:
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
    reaper: process_groups.Reaper,
    observe: Observer,
    tick: Callable[[], None],
) -> dict[str, Entry]:
    schedule = Schedule(stages(plan, planned_names(project, plan)), workers.jobs)
    record = PlanRecord(plan.plan, platform.node(), os.getpid(), time.time())
    record.stages = {name: Entry() for name in schedule.stages}

    def start(stage: Stage, slot: int) -> StageProcess:
        make_folders(project, plan, stage.name)
        return StageProcess(project, stage.name, workers.environment(slot), reaper)

    def note(name: str, entry: Entry) -> None:
        record.stages[name] = entry
        if entry.state is State.BLOCKED and move_outdated(project, plan, schedule.stages[name]):
            folder = project.relative(outdated_folder(project))
            entry.sentence += f" (what it made with other settings before is in {folder} now)"
            # What was made from it may have been blocked before, by something else.
            for stage in schedule.stages.values():
                if name in stage.needs and schedule.states[stage.name] is State.BLOCKED:
                    move_outdated(project, plan, stage)
        with suppress(OSError):  # a full disk will be told of by a stage
            record.write(project)
        observe(name, entry)

    record.write(project)
    with counted_signals() as stopping:
        return run(schedule, start, stopping, observe=note, tick=tick)


def make_folders(project: Project, plan: ActivePlan, name: str) -> None:
    """Make the folders that a table or the report reads: DVC refuses a stage if what it depends on is missing."""
    kind, _, key = name.partition("@")
    wanted = {
        "table": lambda: [f"{RESULTS}/{run}" for run in plan.tables[key].cells],
        "report": lambda: ["results", f"{plan.reports}/tables", plan.pictures],
    }
    for folder in wanted.get(kind, lambda: [])():
        (project.root / folder).mkdir(parents=True, exist_ok=True)


@contextmanager
def counted_signals() -> Iterator[Stopping]:
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
