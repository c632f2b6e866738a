"""One start of `u2pl auto`: from a folder to a race that goes on where it was, and to an answer."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from u2pl.auto.data_set import DataSet, make
from u2pl.auto.folder import Understood
from u2pl.auto.portfolio import BASELINE, RESERVE, extended
from u2pl.auto.race import Contender, Event, Race, State, TrainProcess
from u2pl.auto.settle import settle, write_plan
from u2pl.auto.verdict import Scored, Verdict, judge
from u2pl.data.description import Progress
from u2pl.data.prepare import prepare
from u2pl.errors import UserError
from u2pl.files import claimed
from u2pl.pipeline import process_groups, read_table
from u2pl.pipeline.plan_runner import counted_signals
from u2pl.pipeline.workers import Workers
from u2pl.project import Project
from u2pl.runs.records import read_metrics
from u2pl.settings import Params

_BUSY = "Another `u2pl auto`{holder} is at work on this folder. Wait for it, or stop it first."


@dataclass(frozen=True)
class Session:
    """A folder, understood and prepared, and the race on it."""

    project: Project
    found: Understood
    data_set: DataSet
    race: Race
    titles: Mapping[str, str]
    """Method -> what it is called."""
    warnings: tuple[str, ...]
    """Of the preparation."""
    plan: Path
    """File of the plan with the same runs."""

    @property
    def unit(self) -> str:
        """What differs between repeats."""
        return "fold" if self.data_set.has_folds else "seed"

    def verdict(self) -> Verdict:
        """On what has finished so far."""
        scored = []
        for (method, repeat), each in self.race.finished().items():
            metrics = read_metrics(self.project.runs / each.run)
            miou = metrics["miou"]["reported"]
            if miou is not None:
                scored.append(Scored(each.run, method, repeat, miou, metrics["iou"]))
        return judge(
            scored,
            repeats=self.race.state.portfolio.repeats,
            unit=self.unit,
            tried=len(self.race.state.portfolio.methods) - 1,
            unlabeled=self.data_set.unlabeled,
            val=self.data_set.val,
            title=self.titles,
        )

    def train(
        self,
        workers: Workers,
        device: str,
        observe: Callable[[Event], None],
        tick: Callable[[dict[str, Contender]], None],
    ) -> bool:
        """Train what is left within the budget; whether somebody asked for an end."""
        reaper = process_groups.Reaper()

        def start(contender: Contender, slot: int) -> TrainProcess:
            return TrainProcess(
                self.project,
                self.data_set.name,
                contender,
                log=log_of(self.data_set, contender),
                environment=workers.environment(slot),
                device=device,
                reaper=reaper,
            )

        try:
            with counted_signals() as stopping:
                while self._has_work():
                    self.race.run(workers, start, lambda: stopping.asked, observe, tick)
                    if stopping.asked:
                        return True
                return False
        finally:
            reaper.close()

    def _has_work(self) -> bool:
        """Whether something is left to train; where all has finished before the budget is spent, more is found."""
        race, state = self.race, self.race.state
        if state.seconds >= race.budget:
            return False
        if race.wanted():
            return True
        more = extended(
            state.portfolio,
            race.budget - state.seconds,
            state.costs,
            repeats=self.data_set.repeats,
            unlabeled=self.data_set.unlabeled,
            known=Params.read(self.project).listed_methods,
        )
        return race.take(more)


@contextmanager
def open_session(
    project: Project,
    found: Understood,
    seconds: float,
    jobs: int,
    progress: Progress,
    say: Callable[[Understood, DataSet], None],
) -> Iterator[Session]:
    """Prepare a folder, and choose what to train on it, or go on from what was chosen before.

    Args:
        project: where everything is written.
        found: of the folder.
        seconds: of the budget, what was spent before included.
        jobs: runs that train side by side.
        progress: told how far it is.
        say: told what was understood, before anything takes long.

    Raises:
        UserError: too few masks can be used, the budget is too small, or another process is at this folder.
    """
    began = time.monotonic()
    data_set = make(project, found, progress)
    say(found, data_set)
    # Two races would take each other's runs for failed.
    with claimed(data_set.folder, ".lock", _BUSY):
        yield _opened(project, found, data_set, seconds, jobs, progress, began)


def _opened(
    project: Project,
    found: Understood,
    data_set: DataSet,
    seconds: float,
    jobs: int,
    progress: Progress,
    began: float,
) -> Session:
    warnings: dict[str, None] = {}
    for split in data_set.splits:
        prepared = prepare(project, str(data_set.description), split, progress=progress)
        warnings |= dict.fromkeys(prepared.warnings)
    path = data_set.folder / "state.json"
    state = State.read(path)
    if state is None:
        portfolio, costs = settle(project, data_set, seconds, jobs, progress)
        state = State(portfolio, costs, seconds=time.monotonic() - began)
        state.write(path)
    state.failed.clear()  # whoever starts it again may have mended the cause
    budget = seconds * (1 - RESERVE)
    race = Race(project, data_set.name, data_set.splits, state, path, budget)
    rows = reversed(read_table(project, "methods").rows)
    titles = {row.method: row.label for row in rows if row.method}
    plan = write_plan(project, data_set, state.portfolio)
    return Session(project, found, data_set, race, titles, tuple(warnings), plan)


def log_of(data_set: DataSet, contender: Contender) -> Path:
    """What a training printed when it last ran."""
    return data_set.folder / "logs" / f"{contender.run}.log"


def check_baseline(session: Session) -> None:
    """Refuse to go on where nothing can be compared.

    Raises:
        UserError: the baseline failed in all of its runs.
    """
    runs = [each for (method, _), each in session.race.contenders.items() if method == BASELINE]
    failed = [each for each in runs if each.run in session.race.state.failed]
    if len(failed) == len(runs) or (failed and not session.race.finished()):
        first = failed[0]
        raise UserError(
            f"{first.run} failed: {session.race.state.failed[first.run]} Its output: {log_of(session.data_set, first)}"
        )
