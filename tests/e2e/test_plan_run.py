"""`u2pl plan run` under a real DVC, with a script in place of u2pl (see toy.py)."""

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock
import pytest
from e2e.eight_workers import one_round
from e2e.toy import Toy

from u2pl.pipeline.scheduling import stages

EIGHT = """
dataset: shapes
seeds: [0, 1]
tables:
  table1: {rows: [SupOnly, MT, CutMix, U²PL (w/ CutMix)], splits: {classic-1/8: 1/8}}
"""
SMALL = """
dataset: shapes
seeds: [0]
tables:
  table1: {rows: [SupOnly, U²PL (w/ CutMix)], splits: {classic-1/8: 1/8}}
"""
SUPONLY, U2PL = "shapes-1_8-suponly-s0", "shapes-1_8-u2pl-s0"

pytestmark = pytest.mark.slow


@pytest.fixture
def make_toy(tmp_path: Path) -> Iterator[Callable[..., Toy]]:
    """Makes a toy project; what a failed test leaves running is ended."""
    made: list[Toy] = []

    def make(plan: str) -> Toy:
        made.append(Toy(tmp_path, plan))
        return made[0]

    yield make
    for process in made[0].processes():
        process.kill()


def until(is_so: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def training(toy: Toy) -> bool:
    return sum(line.startswith("begin train") for line in toy.commands) == 2


def all_stages(toy: Toy) -> set[str]:
    return {stage.name for stage in stages(toy.plan)}


def test_eight_workers_leave_every_stage_in_the_lock_file(make_toy: Callable[..., Toy]):
    toy = make_toy(EIGHT)
    one_round(toy)
    assert {line.split()[1] for line in (toy.root / "slots.log").read_text().splitlines()} == {"1"}


def test_a_failure_blocks_what_needs_it_alone_and_the_next_run_does_what_is_left(
    make_toy: Callable[..., Toy],
):
    toy = make_toy(SMALL)
    toy.break_(f"train models/{U2PL}.pt")
    code, output = toy.run("--gpus", "5,7")
    assert code == 1
    assert f"train@{U2PL} failed: Loss is NaN at step 812." in output
    log = toy.root / f"runs/.plan/logs/train@{U2PL}.log"
    assert str(log) in output and "some progress" in log.read_text()
    assert f"evaluate@{U2PL} is blocked: it needs train@{U2PL}." in output
    assert "Of 7 stages: done 5, failed 1, blocked 1." in output
    table = toy.root / "reports/tables/table1.md"
    assert table.read_text().splitlines() == [f"{SUPONLY} 71.3", f"{U2PL} —"]
    assert {line.split()[3] for line in (toy.root / "slots.log").read_text().splitlines()} == {"5", "7"}
    assert toy.processes() == []

    # All is of other settings now. What failed is done, and what fails now must not show the number of before.
    params = toy.project.params
    params.write_text(params.read_text().replace("momentum: 0.9", "momentum: 0.8"))
    toy.break_(f"train models/{SUPONLY}.pt")
    assert toy.run("--jobs", "2")[0] == 1
    assert table.read_text().splitlines() == [f"{SUPONLY} —", f"{U2PL} 71.3"]

    # When all is there, what it comes to is said.
    toy.break_()
    code, output = toy.run("--jobs", "2")
    assert code == 0
    assert (
        "no method is above SupOnly (50.0 % mIoU); the nearest, U²PL (w/ CutMix), is 0.0 below, 1 seed."
        in output
    )


def test_a_plan_that_is_killed_leaves_no_process_and_the_next_finishes_the_rest(
    make_toy: Callable[..., Toy],
):
    toy = make_toy(SMALL)
    toy.take(60)
    with toy.start("--jobs", "2") as process:
        until(lambda: training(toy))
        process.kill()
    until(lambda: not toy.processes(), 20)
    assert sum(line.startswith("saved train") for line in toy.commands) == 2
    toy.take(0)
    assert toy.run("--jobs", "2")[0] == 0
    assert set(toy.recorded()) == all_stages(toy)


def test_the_first_signal_lets_stages_save_and_the_second_kills_those_that_do_not_end(
    make_toy: Callable[..., Toy],
):
    toy = make_toy(SMALL)
    toy.take(60)
    stand_in = toy.home / "u2pl"
    deaf = "[[ $words == *suponly* ]] && trap '' INT\n  sleep"
    stand_in.write_text(stand_in.read_text().replace("sleep", deaf, 1))
    with toy.start("--jobs", "2") as process:
        until(lambda: training(toy))
        process.send_signal(signal.SIGINT)
        until(lambda: any(line.startswith("saved train") for line in toy.commands))
        time.sleep(1)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Stopped: done 1, failed 0, blocked 0, not finished 6. Go on with: u2pl plan run" in output
    assert sum(line.startswith("saved train") for line in toy.commands) == 1
    until(lambda: not toy.processes(), 5)


def test_two_plan_runs_refuse_each_other(make_toy: Callable[..., Toy]):
    toy = make_toy(SMALL)
    folder = toy.root / "runs/.plan"
    folder.mkdir(parents=True)
    with filelock.FileLock(folder / "lock"):
        (folder / "holder").write_text("elsewhere 42\n")
        code, output = toy.run()
    assert code == 1
    assert "Another `u2pl plan run` (process 42 on elsewhere) is at work in this project." in output
    assert toy.commands == []
