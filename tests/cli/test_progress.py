import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from u2pl_cli import plan_progress
from u2pl_cli.progress import Lines, _PlainCounter, _PlainTraining, counting, fitted, shortened, training

from u2pl.pipeline.scheduling import Entry, State
from u2pl.pipeline.status import PlanStatus, RunState, RunStatus

TRAINED = {"train/loss": 1.5, "images_per_second": 20.0, "memory/peak_gib": 0.5}


def test_a_line_has_a_miou_where_the_epoch_was_validated(capsys: pytest.CaptureFixture[str]):
    with training("mine") as observe:
        observe("epoch", 6, 6, TRAINED | {"val/miou": 40.0})
        observe("epoch", 6, 6, TRAINED)
    validated, other = capsys.readouterr().err.splitlines()
    assert validated == "mine: step 6/6, loss 1.500, mIoU 40.0 %, 20 images/s, 0.5 GiB"
    assert other == "mine: step 6/6, loss 1.500, 20 images/s, 0.5 GiB"


def test_the_bar_keeps_the_newest_miou_over_epochs_without_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    with training("mine") as observe:
        observe("epoch", 2, 6, TRAINED)
        observe("epoch", 4, 6, TRAINED | {"val/miou": 40.0})
        observe("step", 5, 6, {"loss": 1.25})
        observe("epoch", 6, 6, TRAINED)
    shown = capsys.readouterr().err
    assert "6/6" in shown and "mIoU 40.0  loss 1.250" in shown


def test_a_line_in_the_midst_of_an_epoch_says_how_long_it_will_go_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with training("mine") as observe:
        now = 30.0
        observe("begun", 1, 101, {})
        now = 50.0
        observe("step", 11, 101, {"loss": 1.0})
        now = 55.0
        observe("step", 16, 101, {"loss": 1.0})
        now = 70.0
        observe("epoch", 21, 101, TRAINED)
        observe("epoch", 101, 101, TRAINED)
    begun, step, epoch, end = capsys.readouterr().err.splitlines()
    assert begun == "mine: the first of 101 steps took 30 s, about 50 min 00 s at that pace"
    assert step == "mine: step 11/101, loss 1.000, about 3 min 00 s left"
    assert epoch == "mine: step 21/101, loss 1.500, 20 images/s, 0.5 GiB, about 2 min 40 s left"
    assert end == "mine: step 101/101, loss 1.500, 20 images/s, 0.5 GiB"


def test_before_a_long_run_a_sentence_says_what_a_step_takes(capsys: pytest.CaptureFixture[str]):
    found = {"step_gib": 9.14, "available_gib": 10.45, "at_once": 16, "largest": 18}
    with training("mine") as observe:
        observe("memory", 0, 6, {f"memory/{name}": value for name, value in found.items()})
    assert capsys.readouterr().err == (
        "A step takes 9.1 of 10.4 GiB with 16 images at once; about 18 would fit.\n"
    )


# ---- where nothing happens for a while -------------------------------------------------------------------

LONG = "cityscapes-1_16-u2pl-alpha0=0.3-contrast.tau=0.25-epochs=200-lr=0.02-s12"


class Clock:
    """Time that passes when it is told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(time, "monotonic", made)
    return made


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[str]]:
    return lambda: capsys.readouterr().err.splitlines()


def wait(clock: Clock, seconds: int, tick: Callable[[], None]) -> None:
    """Let seconds pass, one by one, as the thread that looks after the silence does."""
    for _ in range(seconds):
        clock.now += 1
        tick()


def test_a_run_that_takes_no_step_for_long_says_so_every_ten_seconds(clock: Clock, lines: Callable):
    plain = _PlainTraining("mine")
    wait(clock, 30, plain.lines.tick)
    assert lines() == [f"mine: no step yet after {s} s, time left not known yet" for s in (9, 18, 27)]
    plain.observe("begun", 1, 11, {})
    wait(clock, 10, plain.lines.tick)
    assert lines() == ["mine: step 1/11, time left not known yet"]
    plain.observe("step", 2, 11, {"loss": 1.0})  # after 10 s, as those that follow
    wait(clock, 10, plain.lines.tick)
    assert lines() == ["mine: step 2/11, loss 1.000, about 1 min 25 s left"]
    plain.observe("step", 3, 11, {"loss": 1.0})
    wait(clock, 60, plain.lines.tick)
    said = lines()
    assert len(said) == 7 and said[-1] == "mine: step 3/11, loss 1.000, about 22 s left"
    wait(clock, 60, plain.lines.tick)
    assert lines()[-1] == "mine: step 3/11, loss 1.000, about 0 s left"


def test_counted_work_says_how_long_it_will_go_on(clock: Clock, lines: Callable):
    plain = _PlainCounter()
    wait(clock, 9, plain.lines.tick)
    assert lines() == ["At work for 9 s; time left not known yet."]
    plain.show("scoring images", 0, 1000)
    wait(clock, 5, plain.lines.tick)
    plain.show("scoring images", 50, 1000)
    wait(clock, 4, plain.lines.tick)
    assert lines() == ["scoring images: 50 of 1,000, about 1 min 31 s left"]
    plain.show("scoring images", 1000, 1000)
    plain.show("drawing", 1, 2)
    wait(clock, 9, plain.lines.tick)
    assert lines() == ["scoring images: 1,000 of 1,000", "drawing: 1 of 2, time left not known yet"]


def test_the_silence_is_looked_after_by_a_thread_that_ends_with_the_work(clock: Clock, lines: Callable):
    """The thread's pauses are the test's: it is let go on, and waited for, as often as is wanted."""
    go_on, went_on = threading.Semaphore(0), threading.Semaphore(0)

    def pause(ended: threading.Event) -> bool:
        went_on.release()
        go_on.acquire()
        return ended.is_set()

    before = threading.active_count()
    told = Lines(lambda: f"at {clock.now:.0f}")
    went_on_at = []
    try:
        with told.kept_up(pause):
            for seconds in (8, 10, 12, 20):
                went_on.acquire()
                clock.now = seconds
                went_on_at.append(seconds)
                go_on.release()
            went_on.acquire()
            go_on.release(2)  # the end is told of by the block
    finally:
        assert threading.active_count() == before
    assert lines() == ["at 10", "at 20"]


@pytest.mark.parametrize("name", ["mine", LONG, "x" * 200])
def test_a_line_fits_80_columns_and_keeps_how_far_and_how_long(clock: Clock, lines: Callable, name: str):
    plain = _PlainTraining(name)
    clock.now = 100.0
    plain.observe("begun", 1, 400000, {})
    clock.now = 200.0
    plain.observe("step", 1001, 400000, {"loss": 12.345})
    clock.now = 300.0
    plain.observe("epoch", 2001, 400000, TRAINED | {"val/miou": 40.0})
    wait(clock, 10, plain.lines.tick)
    begun, step, epoch, standing = lines()
    assert all(len(line) <= 80 for line in (begun, step, epoch, standing))
    assert "at that pace" in begun
    assert "step 1001/400000" in step and step.endswith("about 11 h 05 min left")
    assert "step 2001/400000" in epoch and epoch.endswith(" left")
    assert begun.startswith(name[:15]) and begun.split(":")[0].endswith(name[-4:])


def test_what_matters_least_is_left_out_first():
    parts = [(0, "step 1/2"), (1, "loss 1.000"), (3, "x" * 30), (4, "y" * 20), (0, "about 1 s left")]
    said = fitted("mine", parts)
    assert said == f"mine: step 1/2, loss 1.000, {'x' * 30}, about 1 s left"
    assert fitted(LONG, parts).endswith("9…: step 1/2, loss 1.000, about 1 s left".replace("9…", LONG[-8:]))


@pytest.mark.parametrize("room", [10, 24, 40, 300])
def test_a_name_is_shortened_in_its_middle(room: int):
    short = shortened(LONG, room)
    assert len(short) <= room and short[0] == "c" and short.endswith("s12")
    assert (short == LONG) == (room > len(LONG))


def test_a_bar_fits_80_columns(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    with training(LONG) as observe:
        observe("epoch", 200000, 400000, TRAINED | {"val/miou": 40.0})
        observe("step", 200010, 400000, {"loss": 1.25})
    with counting() as count:
        count("comparing on validation images", 1000, 1000)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    shown = [line for line in re.split(r"[\r\n]", plain) if line.strip()]
    assert shown and all(len(line) <= 80 for line in shown)
    (bar,) = (line for line in shown if "200010/400000" in line)
    assert "loss 1.250" in bar and "mIoU 40.0" in bar and "s12" in bar


# ---- plans -----------------------------------------------------------------------------------------------


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> Iterator[tuple[Any, list[RunStatus]]]:
    """The lines about a plan whose runs stand as the list says."""
    runs: list[RunStatus] = []
    monkeypatch.setattr("u2pl.pipeline.status.status", lambda project: PlanStatus("demo", runs, []))
    monkeypatch.setattr(time, "strftime", lambda form: "12:00:00")
    yield plan_progress._PlainPlan(None), runs  # type: ignore[arg-type]


def test_a_plan_says_how_far_it_is_and_how_long_it_will_go_on(plan: Any, clock: Clock, lines: Callable):
    told, runs = plan
    runs += [
        RunStatus(LONG, RunState.RUNNING, step=30, steps=120, seconds_left=60.0),
        RunStatus("b", RunState.WAITING),
        RunStatus("c", RunState.WAITING),
        RunStatus("d", RunState.DONE),
    ]
    wait(clock, 9, told.lines.tick)
    told.observe("train@d", Entry(State.DONE, started=1.0, ended=101.0))
    wait(clock, 9, told.lines.tick)
    unknown, done, known = lines()
    assert unknown == "12:00:00: 1 of 4 runs done, cityscapes-1_…02-s12 25 %, time left not known yet"
    assert done == "12:00:00 train@d: done in 1 min 40 s"
    assert known == "12:00:00: 1 of 4 runs done, cityscapes-1_…02-s12 25 %, about 4 min 20 s left"


def test_why_a_stage_failed_is_not_cut(plan: Any, lines: Callable):
    told, _ = plan
    sentence = "The loss is not finite. " * 10
    told.observe(f"train@{LONG}", Entry(State.FAILED, sentence, started=1.0, ended=6.0))
    line, why = lines()
    assert len(line) <= 80 and line.endswith("failed in 5 s") and why == f"  {sentence}"


def test_a_plan_that_cannot_be_looked_at_is_no_reason_to_stop(
    plan: Any, clock: Clock, lines: Callable, monkeypatch: pytest.MonkeyPatch
):
    def broken(project: Any) -> PlanStatus:
        raise ValueError("half a file")

    monkeypatch.setattr("u2pl.pipeline.status.status", broken)
    wait(clock, 9, plan[0].lines.tick)
    assert lines() == ["12:00:00: how far the plan is cannot be told now (ValueError)"]
