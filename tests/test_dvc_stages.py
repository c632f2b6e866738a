"""How one stage is run, tried again and given up, with a module of a few lines in place of DVC."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from u2pl import keeper
from u2pl.dvc_stages import (
    StageProcess,
    Workers,
    forget_outdated,
    is_recorded,
    log_of,
    sentence,
)
from u2pl.errors import UsageError
from u2pl.project import Project
from u2pl.scheduling import Outcome, Stage

BUSY = "ERROR: 'data' is busy, it is being blocked by:\\n  (PID 12): dvc repro"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "project").mkdir()
    return Project(tmp_path / "project")


@pytest.fixture
def guard() -> Iterator[keeper.Keeper]:
    made = keeper.Keeper()
    yield made
    made.close()


def run(project: Project, guard: keeper.Keeper, body: str) -> tuple[Outcome, int]:
    """How a stage ends whose DVC is the script `body`, and how often that was tried."""
    fake = project.root.parent / "fake"
    fake.mkdir(exist_ok=True)
    count = project.root / "tries"
    head = f"import sys\nfrom pathlib import Path\nopen({str(count)!r}, 'a').write('x')\n"
    (fake / "dvc.py").write_text(
        f"{head}tries = len(open({str(count)!r}).read())\n"
        "assert sys.argv[1:] == ['--wait-for-lock', 'repro', '-s', 'report']\n" + body
    )
    job = StageProcess(project, "report", os.environ | {"PYTHONPATH": str(fake)}, guard)
    deadline = time.monotonic() + 30
    while (outcome := job.poll()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return outcome, len(count.read_text())


@pytest.fixture(autouse=True)
def in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("u2pl.dvc_stages._PAUSE_SECONDS", 0.05)


RECORD = "Path('dvc.lock').write_text('stages: {report: {cmd: x}}')\n"


def test_a_stage_that_ends_well_and_is_in_the_lock_file_is_done(project: Project, guard: keeper.Keeper):
    assert run(project, guard, RECORD) == (Outcome(True), 1)


def test_a_stage_that_dvc_has_lost_is_run_again(project: Project, guard: keeper.Keeper):
    assert run(project, guard, f"if tries == 2:\n    {RECORD}") == (Outcome(True), 2)


def test_a_stage_that_dvc_loses_every_time_is_given_up(project: Project, guard: keeper.Keeper):
    outcome, tries = run(project, guard, "")
    assert not outcome.succeeded and tries == 5
    assert outcome.sentence.startswith("DVC ran it 5 times and left no trace of it in dvc.lock.")


def test_a_lock_file_that_is_being_written_is_looked_at_again(project: Project, guard: keeper.Keeper):
    late = "import subprocess\nsubprocess.Popen(['sh', '-c', 'sleep 0.07; echo \"stages: {report: {}}\" > dvc.lock'])"
    assert run(project, guard, late) == (Outcome(True), 1)


def test_a_stage_that_another_dvc_is_in_the_way_of_is_tried_again(project: Project, guard: keeper.Keeper):
    body = f"if tries < 3:\n    print({BUSY!r})\n    sys.exit(255)\n{RECORD}"
    assert run(project, guard, body) == (Outcome(True), 3)


def test_a_stage_that_fails_by_itself_is_tried_once(project: Project, guard: keeper.Keeper):
    body = "print('Error: The disk is full. Free some space.')\nprint('ERROR: failed to reproduce')\nsys.exit(255)"
    assert run(project, guard, body) == (Outcome(False, "The disk is full. Free some space."), 1)
    assert "failed to reproduce" in log_of(project, "report").read_text()


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            "Running stage 'x':\n> u2pl train\nError: One. Two.\n  lr: 1 -> 2\nERROR: failed\n",
            "One. Two. lr: 1 -> 2",
        ),
        ("Error: first try\nERROR: y\n\nError: second try\n", "second try"),
        (
            "> u2pl train\nTraceback\nMemoryError\nERROR: failed to run: u2pl train, exited with 1\n",
            "MemoryError",
        ),
        (
            "Running stage 'x':\nERROR: failed to run: u2pl, exited with -9\n",
            "failed to run: u2pl, exited with -9",
        ),
        ("Written: a.md.\nERROR: output 'b.md' does not exist\n", "output 'b.md' does not exist"),
        ("", "It ended with status 255 and said nothing."),
    ],
)
def test_the_sentence_of_a_failure(said: str, expected: str):
    assert sentence(said, 255) == expected


def test_a_stage_counts_as_recorded_with_the_outputs_that_are_there(project: Project):
    lock = project.root / "dvc.lock"
    assert not is_recorded(project, "train@a")
    lock.write_text("stages: {train@a: {outs: [{path: a.pt, size: 3}, {path: d, md5: 1.dir, size: 9}]}}")
    assert not is_recorded(project, "train@a")
    (project.root / "d").mkdir()
    (project.root / "a.pt").write_text("abc")
    assert is_recorded(project, "train@a")
    (project.root / "a.pt").write_text("abcd")
    assert not is_recorded(project, "train@a")
    lock.write_text("stages: {train@a: {outs: [{pa")
    assert not is_recorded(project, "train@a")


def test_results_whose_model_is_gone_are_deleted_and_others_are_not(project: Project):
    (project.root / "dvc.lock").write_text(
        "stages: {train@a: {outs: [{path: a.pt}]}, evaluate@a: {outs: [{path: r/a}]}, train@b: {outs: [{path: b}]}}"
    )
    (project.root / "r/a").mkdir(parents=True)
    (project.root / "a.pt").touch()
    (project.root / "b").touch()
    blocked = Stage("evaluate@a", frozenset({"train@a"}))
    forget_outdated(project, blocked)
    assert (project.root / "r/a").exists()
    (project.root / "a.pt").unlink()
    forget_outdated(project, Stage("train@b", frozenset({"train@a"})))
    assert (project.root / "b").exists()
    forget_outdated(project, blocked)
    assert not (project.root / "r/a").exists()


# ---- workers -------------------------------------------------------------------------------------------


def test_each_slot_has_its_device_and_its_share_of_the_threads(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("u2pl.dvc_stages._cores", lambda: 8)
    workers = Workers.of(None, "0, 3")
    assert workers.jobs == 2
    assert [workers.environment(slot)["CUDA_VISIBLE_DEVICES"] for slot in (0, 1, 2)] == ["0", "3", "0"]
    assert workers.environment(0)["OMP_NUM_THREADS"] == "4"
    assert Workers.of(20, None).environment(0)["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert workers.environment(0)["OMP_NUM_THREADS"] == "3"


def test_a_single_worker_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert not {"OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"} & Workers.of(None, None).environment(0).keys()


@pytest.mark.parametrize("gpus", ["", "0,,1", "0,0"])
def test_a_list_of_devices_that_makes_no_sense_is_refused(gpus: str):
    with pytest.raises(UsageError, match="different devices"):
        Workers.of(None, gpus)


# ---- the keeper ----------------------------------------------------------------------------------------


def test_the_keeper_ends_what_its_killed_owner_has_left(tmp_path: Path):
    script = (
        "import subprocess, sys, time\nfrom u2pl.keeper import Keeper\nguard = Keeper()\n"
        "for keep in (True, False):\n"
        "    left = subprocess.Popen(['sleep', '60'], stdout=subprocess.DEVNULL, start_new_session=True)\n"
        "    guard.watch(left.pid)\n"
        "    keep or guard.forget(left.pid)\n"
        "    print(left.pid, flush=True)\n"
        "time.sleep(60)"
    )
    owner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    kept, forgotten = (psutil.Process(int(owner.stdout.readline())) for _ in range(2))
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    try:
        gone, alive = psutil.wait_procs([kept], timeout=20)
        assert gone or all(p.status() == psutil.STATUS_ZOMBIE for p in alive)
        assert forgotten.is_running()
    finally:
        forgotten.kill()
