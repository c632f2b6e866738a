"""Trains the runs of a portfolio side by side within a budget, and stops early what cannot win."""

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

from pydantic import TypeAdapter, ValidationError

from u2pl.auto.portfolio import BASELINE, RESERVE, Costs, Curve, Portfolio, cannot_win
from u2pl.data.prepared import open_split
from u2pl.errors import UserError
from u2pl.files import read_json, write_json
from u2pl.pipeline import process_groups
from u2pl.pipeline.stage_process import failure_reason
from u2pl.pipeline.workers import Workers
from u2pl.project import Project
from u2pl.runs import frames
from u2pl.runs.epochs import shown_epoch
from u2pl.runs.events import Events
from u2pl.runs.records import is_complete, read_metrics
from u2pl.settings import Params, ResolvedRun, hyper, load
from u2pl.training.description import description

_LOOK_SECONDS = 3.0
"""Between two looks at how far the runs are."""
_ALMOST, _ALMOST_FIRST = 0.05, RESERVE
"""A run that ends within this share of the budget is not stopped when the budget is up; of the first round, without
which there is no answer, within the larger one."""
MIOU = "val/miou"


@dataclass(frozen=True)
class Contender:
    """A run of the race."""

    run: str
    """Its name."""
    method: str
    split: str
    seed: int
    repeat: int
    """From 0."""
    epochs: int
    fingerprint: str | None
    """Of its settings and its data as they are today; None where the split is not prepared."""

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.method}, {self.split if self.split != 'full' else f'seed {self.seed}'}"


@dataclass
class State:
    """What is remembered between two starts of the same command."""

    portfolio: Portfolio
    costs: Costs
    seconds: float = 0.0
    """That were spent."""
    stopped: dict[str, str] = field(default_factory=dict)
    """Run -> why it was stopped for good."""
    failed: dict[str, str] = field(default_factory=dict)
    """Run -> why it failed."""

    def write(self, path: Path) -> None:
        """Write it down."""
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> "State | None":
        """What was written down; None where nothing is, or not by this version."""
        try:
            return TypeAdapter(State).validate_python(read_json(path))
        except (OSError, UserError, ValidationError):
            return None


class Process(Protocol):
    """A training at work."""

    def poll(self) -> int | None:
        """Its exit status; None while it runs."""

    def stop(self) -> None:
        """Let it save its state and end."""

    def kill(self) -> None:
        """End it now."""

    def reason(self, code: int) -> str:
        """Why it failed."""


class TrainProcess:
    """`u2pl train` of one run, in a process group of its own."""

    def __init__(
        self,
        project: Project,
        dataset: str,
        contender: Contender,
        *,
        log: Path,
        environment: dict[str, str],
        device: str,
        reaper: process_groups.Reaper,
    ):
        log.parent.mkdir(parents=True, exist_ok=True)
        words = ["train", "--dataset", dataset, "--split", contender.split, "--method", contender.method]
        # A run of other settings, as before somebody changed the recipe, is moved aside.
        words += ["--seed", str(contender.seed), "--device", device, "--fresh"]
        self._log, self._reaper = log, reaper
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "u2pl_cli", *words],
                cwd=project.root,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        reaper.watch(self._process.pid)

    def poll(self) -> int | None:
        """Its exit status; None while it runs."""
        code = self._process.poll()
        if code is not None:
            self._reaper.forget(self._process.pid)
        return code

    def stop(self) -> None:
        """Let it save its state and end."""
        process_groups.stop(self._process.pid)

    def kill(self) -> None:
        """End it now."""
        process_groups.kill(self._process.pid)

    def reason(self, code: int) -> str:
        """Why it failed, in its own words."""
        return failure_reason(self._log.read_text(errors="replace"), code)


@dataclass(frozen=True)
class Event:
    """Something that happened, for whoever watches."""

    contender: Contender
    what: str
    """started, finished, stopped, failed, or interrupted."""
    sentence: str = ""


def fingerprint(project: Project, run: ResolvedRun) -> str | None:
    """Of a run's settings and data as they are today; None where its split is not prepared."""
    cls = hyper.find(run.spec.method)
    try:
        split = open_split(project, run.spec.dataset, run.spec.split)
        return (
            str(description(run, split, load(cls, run.hyper, run.spec.method))["fingerprint"])
            if cls
            else None
        )
    except UserError:
        return None


class Race:
    """The runs of a portfolio.

    Args:
        project: where they are trained.
        dataset: prepared in all its splits.
        splits: `full`, on which seeds differ, or folds.
        state: what is to be trained, and what was decided before.
        path: of the state.
        budget: seconds for training, those that were spent included.
    """

    def __init__(
        self,
        project: Project,
        dataset: str,
        splits: Sequence[str],
        state: State,
        path: Path,
        budget: float,
    ):
        self.project, self.state, self.budget = project, state, budget
        self._path = path
        self._dataset, self._splits = dataset, splits
        self.contenders: dict[tuple[str, int], Contender] = {}
        """By method and repeat."""
        self._enter()

    def _enter(self) -> None:
        params, portfolio = Params.read(self.project), self.state.portfolio

        def contender(method: str, repeat: int) -> Contender:
            split, seed = (self._splits[repeat], 0) if len(self._splits) > 1 else (self._splits[0], repeat)
            run = params.resolve(params.spec(self._dataset, split, method, seed))
            known = fingerprint(self.project, run)
            return Contender(run.name, method, split, seed, repeat, run.recipe.epochs, known)

        self.contenders = {
            (method, repeat): contender(method, repeat)
            for repeat in range(portfolio.repeats)
            for method in portfolio.methods
        }

    def take(self, portfolio: Portfolio) -> bool:
        """Go on with a larger portfolio; whether it is one."""
        if portfolio == self.state.portfolio:
            return False
        self.state.portfolio = portfolio
        self.state.write(self._path)
        self._enter()
        return bool(self.wanted())

    # ---- what is known --------------------------------------------------------------------------------

    def is_done(self, contender: Contender) -> bool:
        """Whether the run has finished, with the settings of today."""
        folder = self.project.runs / contender.run
        if not is_complete(folder):
            return False
        try:
            found = read_metrics(folder)["fingerprint"]
        except (OSError, UserError):
            return False
        return contender.fingerprint in (None, found)

    def is_out(self, contender: Contender) -> bool:
        """Whether it was stopped for good, or failed."""
        return contender.run in self.state.stopped or contender.run in self.state.failed

    def miou(self, contender: Contender) -> float | None:
        """Of a finished run, in percent."""
        if not self.is_done(contender):
            return None
        return read_metrics(self.project.runs / contender.run)["miou"]["reported"]

    def curve(self, contender: Contender) -> Curve:
        """The mIoU so far; of a run that has not looked yet, nothing."""
        try:
            found = frames.series(self.project.runs / contender.run)
        except (OSError, UserError):
            return []
        return [(shown_epoch(epoch), value) for epoch, value in found.get(MIOU, [])]

    def leader(self) -> tuple[Contender, int, float] | None:
        """Of the runs that have not finished the one with the best network so far, its epoch, and its mIoU."""
        open_ = [each for each in self.contenders.values() if not self.is_done(each)]
        looks = [
            (each, *max(curve, key=lambda look: look[1])) for each in open_ if (curve := self.curve(each))
        ]
        return max(looks, key=lambda look: look[2], default=None)

    def best(self) -> str | None:
        """The method that led the first round to its end, the baseline aside; None where none did."""
        others = {
            method: value
            for method in self.state.portfolio.methods
            if method != BASELINE and (value := self.miou(self.contenders[method, 0])) is not None
        }
        return max(others, key=lambda method: others[method], default=None)

    def wanted(self) -> list[Contender]:
        """The runs that may start now, the most urgent first; not those that run already."""
        first = [self.contenders[method, 0] for method in self.state.portfolio.methods]
        open_ = [each for each in first if not self.is_done(each) and not self.is_out(each)]
        repeats = range(1, self.state.portfolio.repeats)
        again = [self.contenders[BASELINE, repeat] for repeat in repeats]
        best = self.best()
        if not open_ and best is not None:
            pairs = [(self.contenders[best, repeat], self.contenders[BASELINE, repeat]) for repeat in repeats]
            again = [each for pair in pairs for each in pair]
        return open_ + [each for each in again if not self.is_done(each) and not self.is_out(each)]

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to train, or no time for it."""
        return not self.wanted() or self.state.seconds >= self.budget

    def finished(self) -> dict[tuple[str, int], Contender]:
        """The runs that have a result."""
        return {key: each for key, each in self.contenders.items() if self.is_done(each)}

    # ---- running --------------------------------------------------------------------------------------

    def run(
        self,
        workers: Workers,
        start: Callable[[Contender, int], Process],
        asked: Callable[[], int],
        observe: Callable[[Event], None],
        tick: Callable[[dict[str, Contender]], None] = lambda running: time.sleep(0.2),
    ) -> None:
        """Train until all is done, the budget is spent, or somebody asks for an end.

        Args:
            workers: how many at a time.
            start: starts a run in a slot.
            asked: how often somebody asked for an end.
            observe: told what happens.
            tick: called between two looks, with what runs; waits a little.
        """
        running: dict[int, tuple[Contender, Process]] = {}
        ending: dict[str, str] = {}
        """Run that was told to stop -> why; empty: it will go on another time."""
        before, looked, heeded = time.monotonic(), 0.0, 0
        while True:
            now = time.monotonic()
            self.state.seconds += now - before
            before = now
            if asked() > heeded:
                for contender, process in running.values():
                    process.kill() if asked() > 1 else process.stop()
                    ending.setdefault(contender.run, "")
                heeded = asked()
            for slot, (contender, process) in list(running.items()):
                code = process.poll()
                if code is None:
                    continue
                del running[slot]
                observe(self._ended(contender, process, code, ending.pop(contender.run, None)))
                self.state.write(self._path)
            is_up = self.state.seconds >= self.budget
            at_work = {contender.run for contender, _ in running.values()}
            if not heeded and not is_up:
                for contender in self.wanted():
                    free = sorted(set(range(workers.jobs)) - set(running))
                    if free and contender.run not in at_work:
                        running[free[0]] = (contender, start(contender, free[0]))
                        at_work.add(contender.run)
                        observe(Event(contender, "started"))
            if not running:
                break
            if now - looked > _LOOK_SECONDS:
                looked = now
                self._judge(running, ending, is_up=is_up)
                self.state.write(self._path)
            tick({contender.run: contender for contender, _ in running.values()})
        self.state.write(self._path)

    def _ended(self, contender: Contender, process: Process, code: int, why: str | None) -> Event:
        if self.is_done(contender):
            return Event(contender, "finished", f"{self.miou(contender):.2f} % mIoU")
        if why:
            self.state.stopped[contender.run] = why
            return Event(contender, "stopped", why)
        if why is not None:
            return Event(contender, "interrupted")
        self.state.failed[contender.run] = process.reason(code)
        if not any(
            self._is_left(each) for (method, _), each in self.contenders.items() if method != BASELINE
        ):
            self.state.stopped.clear()  # one that could not win is better than none
        return Event(contender, "failed", self.state.failed[contender.run])

    def _judge(
        self, running: dict[int, tuple[Contender, Process]], ending: dict[str, str], *, is_up: bool
    ) -> None:
        """Stop what cannot win; and once the budget is spent, what will not end soon."""
        first = {each: self.curve(each) for (_, repeat), each in self.contenders.items() if repeat == 0}
        for contender, process in running.values():
            if contender.run in ending:
                continue
            why = None
            if is_up:
                left = Events.read(self.project.runs / contender.run / "events.jsonl").seconds_left()
                patience = _ALMOST if contender.repeat else _ALMOST_FIRST
                why = "" if left is None or left > patience * self.budget else None
            elif (
                contender.repeat == 0 and contender.method != BASELINE and self._has_rivals(contender, ending)
            ):
                rivals = {
                    each.title: curve
                    for each, curve in first.items()
                    if each != contender and not self.is_out(each)
                }
                why = cannot_win(first[contender], rivals, contender.epochs)
            if why is not None:
                ending[contender.run] = why
                process.stop()

    def _is_left(self, contender: Contender) -> bool:
        return contender.repeat == 0 and not self.is_out(contender)

    def _has_rivals(self, contender: Contender, ending: Mapping[str, str]) -> bool:
        """Whether another method than the baseline is left: one has to tell what unlabelled images gain."""
        others = [
            each
            for (method, repeat), each in self.contenders.items()
            if repeat == 0 and method != BASELINE and each != contender
        ]
        return any(not self.is_out(each) and each.run not in ending for each in others)
