"""The race with processes that only pretend to train."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from run_folders import write_run
from tiny import edit_params

from u2pl.auto import race as module
from u2pl.auto.portfolio import Costs, Portfolio
from u2pl.auto.race import Contender, Event, Race, State
from u2pl.files import sha256
from u2pl.pipeline.workers import Workers
from u2pl.project import Project

LENGTH = 10
"""Epochs of a run, and looks at it from its start to its end."""


class Pretended:
    """A training whose mIoU rises to its end in a straight line."""

    def __init__(self, project: Project, contender: Contender, end: float, *, fails: bool = False):
        self.project, self.contender, self.end, self.fails = project, contender, end, fails
        self.looks, self.code = 0, None
        self.was_stopped = self.was_killed = False

    def poll(self) -> int | None:
        if self.code is None:
            self.looks += 1
            curve = tuple(self.end * (k + 1) / LENGTH for k in range(min(self.looks, LENGTH)))
            done = self.looks >= LENGTH and not self.fails
            write_run(
                self.project,
                self.contender.run,
                self.end if done else None,
                curve=curve,
                method=self.contender.method,
                seed=self.contender.seed,
            )
            if self.looks >= LENGTH:
                self.code = 1 if self.fails else 0
        return self.code

    def stop(self) -> None:
        self.was_stopped = True
        self.code = 130 if self.code is None else self.code

    def kill(self) -> None:
        self.was_killed = True
        self.stop()

    def reason(self, code: int) -> str:
        return f"status {code}"


Ends = dict[str, float]


@pytest.fixture
def run(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Callable[..., tuple[Race, list[Event]]]]:
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.0)
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    edit_params(project, lambda values: values["recipes"].update(custom={"epochs": LENGTH}))

    def start(
        ends: Ends,
        *,
        repeats: int = 3,
        budget: float = 1e6,
        splits: tuple[str, ...] = ("full",),
        jobs: int = 2,
        stop_after: int | None = None,
        fails: tuple[str, ...] = (),
        state: State | None = None,
    ) -> tuple[Race, list[Event]]:
        state = state or State(Portfolio(tuple(ends), repeats, 100), Costs(1, 1))
        race = Race(project, "holes", splits, state, tmp_path / "state.json", budget)
        events: list[Event] = []
        ticks = [0]

        def tick(running: dict[str, Contender]) -> None:
            ticks[0] += 1
            clock[0] += 10
            assert len(running) <= jobs

        race.run(
            Workers(jobs),
            lambda each, slot: Pretended(project, each, ends[each.method], fails=each.method in fails),
            lambda: int(stop_after is not None and ticks[0] >= stop_after),
            events.append,
            tick,
        )
        return race, events

    yield start


def finished(race: Race) -> set[tuple[str, int]]:
    return set(race.finished())


def test_all_run_once_then_the_baseline_and_the_best_again(run: Callable[..., tuple[Race, list[Event]]]):
    race, events = run({"suponly": 50.0, "u2pl": 52.0, "cutmix": 55.0})
    once = {(method, 0) for method in ("suponly", "u2pl", "cutmix")}
    again = {(method, repeat) for method in ("suponly", "cutmix") for repeat in (1, 2)}
    assert finished(race) == once | again
    assert not race.state.stopped
    assert [event.what for event in events].count("finished") == 7
    started = [event.contender for event in events if event.what == "started"]
    assert (started[0].method, started[0].repeat) == ("suponly", 0)
    assert all(each.repeat == 0 for each in started[:3])
    assert {each.seed for each in started if each.method == "suponly"} == {0, 1, 2}


def test_on_folds_splits_differ_and_seeds_do_not(run: Callable[..., tuple[Race, list[Event]]]):
    race, _ = run({"suponly": 50.0, "u2pl": 52.0}, splits=("fold1of2", "fold2of2"), repeats=2)
    assert {(each.split, each.seed) for each in race.contenders.values()} == {
        ("fold1of2", 0),
        ("fold2of2", 0),
    }
    assert len(finished(race)) == 4


def test_what_cannot_win_is_stopped_and_never_started_again(run: Callable[..., tuple[Race, list[Event]]]):
    race, events = run({"suponly": 50.0, "u2pl": 60.0, "ael": 12.0})
    (run_name,) = race.state.stopped
    assert "-ael-" in run_name
    assert "already" in race.state.stopped[run_name]
    assert [event.contender.method for event in events if event.what == "stopped"] == ["ael"]
    assert ("ael", 0) not in finished(race) and ("u2pl", 2) in finished(race)


def test_the_last_other_method_goes_on_to_its_end_however_poor(run: Callable[..., tuple[Race, list[Event]]]):
    race, _ = run({"suponly": 50.0, "u2pl": 5.0})
    assert not race.state.stopped
    assert ("u2pl", 2) in finished(race)


def test_a_method_that_fails_leaves_the_others(run: Callable[..., tuple[Race, list[Event]]]):
    race, _ = run({"suponly": 50.0, "u2pl": 60.0, "cutmix": 55.0}, fails=("u2pl",))
    assert list(race.state.failed.values()) == ["status 1"]
    assert {method for method, _ in finished(race)} == {"suponly", "cutmix"}
    assert ("cutmix", 2) in finished(race)


def test_the_end_of_the_budget_stops_what_runs_and_a_larger_one_goes_on(
    run: Callable[..., tuple[Race, list[Event]]],
):
    ends = {"suponly": 50.0, "u2pl": 60.0}
    race, events = run(ends, budget=50.0)
    assert race.is_over
    assert {event.what for event in events} == {"started", "interrupted"}
    assert not race.state.stopped and not finished(race)
    state = State.read(race._path)
    assert state and 50 <= state.seconds <= 80
    race, _ = run(ends, state=state)
    assert len(finished(race)) == 6


def test_whoever_asks_for_an_end_gets_it_and_the_same_command_goes_on(
    run: Callable[..., tuple[Race, list[Event]]],
):
    ends = {"suponly": 50.0, "u2pl": 60.0}
    race, events = run(ends, stop_after=3)
    assert [event.what for event in events] == ["started", "started", "interrupted", "interrupted"]
    state = State.read(race._path)
    assert state and state.seconds == 30
    race, _ = run(ends, state=state)
    assert len(finished(race)) == 6
    assert race.state.seconds > 30


def test_a_larger_portfolio_keeps_what_was_trained(run: Callable[..., tuple[Race, list[Event]]]):
    ends = {"suponly": 50.0, "u2pl": 60.0, "cutmix": 70.0}
    state = State(Portfolio(("suponly", "u2pl"), 1, 100), Costs(1, 1))
    race, _ = run(ends, state=state)
    assert len(finished(race)) == 2
    assert not race.take(race.state.portfolio)
    assert race.take(Portfolio(("suponly", "u2pl", "cutmix"), 2, 100))
    race, events = run(ends, state=race.state)
    started = [
        (event.contender.method, event.contender.repeat) for event in events if event.what == "started"
    ]
    assert started[0] == ("cutmix", 0)
    assert sorted(started[1:]) == [("cutmix", 1), ("suponly", 1)]


def test_a_state_of_another_version_is_none(tmp_path: Path):
    (tmp_path / "state.json").write_text('{"portfolio": 3}')
    assert State.read(tmp_path / "state.json") is None
    assert State.read(tmp_path / "nothing.json") is None


def test_what_was_trained_with_other_settings_is_not_finished(
    run: Callable[..., tuple[Race, list[Event]]], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "fingerprint", lambda project, resolved: sha256(resolved.name)[:16])
    ends = {"suponly": 50.0, "u2pl": 60.0}
    race, _ = run(ends, repeats=1)
    assert len(finished(race)) == 2
    monkeypatch.setattr(module, "fingerprint", lambda project, resolved: "another")
    race, events = run(ends, repeats=1, jobs=1, stop_after=1)
    assert [event.what for event in events][:1] == ["started"]
    assert not finished(race)


def test_one_that_could_not_win_goes_on_where_its_rival_fails(run: Callable[..., tuple[Race, list[Event]]]):
    race, events = run({"suponly": 50.0, "ael": 12.0, "u2pl": 60.0}, fails=("u2pl",), repeats=1)
    assert [event.what for event in events if event.contender.method == "ael"][:2] == ["started", "stopped"]
    assert ("ael", 0) in finished(race)
    assert not race.state.stopped
