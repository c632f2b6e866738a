"""`u2pl plan run` under a real DVC, with a script in place of u2pl (see toy.py)."""

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock
import pytest
from e2e.eight_workers import one_round
from e2e.toy import Toy

from u2pl.scheduling import stages

EIGHT = """
dataset: shapes
seeds: [0, 1]
tables:
  table1: {splits: {classic-1/8: 1/8}}
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
def toy(tmp_path: Path) -> Iterator[Toy]:
    """A plan of two runs; what a failed test leaves is ended."""
    made = Toy(tmp_path, SMALL)
    yield made
    for process in made.processes():
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


def test_eight_workers_leave_every_stage_in_the_lock_file(tmp_path: Path):
    toy = Toy(tmp_path, EIGHT)
    one_round(toy)
    assert {line.split()[1] for line in (toy.root / "slots.log").read_text().splitlines()} == {"1"}


def test_a_failure_blocks_what_needs_it_alone_and_the_next_run_does_what_is_left(toy: Toy):
    toy.break_(f"train models/{U2PL}.pt")
    code, output = toy.run("--gpus", "5,7")
    assert code == 1
    assert f"train@{U2PL} failed: Loss is NaN at step 812." in output
    log = toy.root / f"runs/.plan/logs/train@{U2PL}.log"
    assert str(log) in output and "some progress" in log.read_text()
    assert f"evaluate@table1-{U2PL} is blocked: it needs train@{U2PL}." in output
    assert "Of 7 stages: done 5, failed 1, blocked 1." in output
    table = toy.root / "reports/tables/table1.md"
    assert table.read_text().splitlines() == [f"{SUPONLY} 71.3", f"{U2PL} —"]
    assert {line.split()[3] for line in (toy.root / "slots.log").read_text().splitlines()} == {"5", "7"}
    assert toy.processes() == []

    (toy.root / "commands.log").unlink()
    toy.break_()
    assert toy.run()[0] == 0
    assert sorted(line.split()[1] for line in toy.commands if line.startswith("begin")) == [
        *("evaluate", "report", "table", "train"),
    ]
    assert set(toy.recorded()) == all_stages(toy)

    # Of other settings now, and fails: the table must not show the number of before.
    params = toy.project.params
    params.write_text(params.read_text().replace("delta_p: 0.3", "delta_p: 0.4"))
    toy.break_(f"train models/{U2PL}.pt")
    assert toy.run("--jobs", "2")[0] == 1
    assert table.read_text().splitlines() == [f"{SUPONLY} 71.3", f"{U2PL} —"]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_killed_plan_leaves_no_process_and_the_next_finishes_the_rest(toy: Toy, how: signal.Signals):
    toy.take(60)
    with toy.start("--jobs", "2") as process:
        until(lambda: training(toy))
        process.send_signal(how)
        output, _ = process.communicate(timeout=30)
    until(lambda: not toy.processes(), 20)
    assert sum(line.startswith("saved train") for line in toy.commands) == 2
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert "Go on with: u2pl plan run" in output
        return
    toy.take(0)
    assert toy.run("--jobs", "2")[0] == 0
    assert set(toy.recorded()) == all_stages(toy)


def test_a_stage_that_does_not_heed_is_killed_by_the_second_signal(toy: Toy):
    toy.take(60)
    stand_in = toy.home / "u2pl"
    stand_in.write_text(stand_in.read_text().replace("trap 'echo", "trap '' INT TERM #"))
    with toy.start("--jobs", "2") as process:
        until(lambda: training(toy))
        process.send_signal(signal.SIGINT)
        time.sleep(1)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 130
    assert toy.processes() == []


def test_two_plan_runs_refuse_each_other(toy: Toy):
    folder = toy.root / "runs/.plan"
    folder.mkdir(parents=True)
    with filelock.FileLock(folder / "lock"):
        (folder / "holder").write_text("elsewhere 42\n")
        code, output = toy.run()
    assert code == 1
    assert "Another `u2pl plan run` (process 42 on elsewhere) is at work in this project." in output
    assert toy.commands == []
