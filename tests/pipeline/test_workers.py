"""How one stage is run, tried again and given up, with a module of a few lines in place of DVC."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from e2e.toy import REPOSITORY, metrics_of
from tiny import edit_params

from u2pl.errors import UsageError, UserError
from u2pl.files import read_json, write_json
from u2pl.pipeline import ActivePlan, process_groups, resolve
from u2pl.pipeline.dvc_lock import is_recorded, locked, outputs
from u2pl.pipeline.outdated_results import move_outdated
from u2pl.pipeline.scheduling import Outcome, Stage
from u2pl.pipeline.stage_process import _ANOTHER_HAS_IT, StageProcess, failure_reason, log_of
from u2pl.pipeline.workers import Workers
from u2pl.project import Project
from u2pl.runs.folder import RunFolder

BUSY = "ERROR: 'data' is busy, it is being blocked by:\\n  (PID 12): dvc repro"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "project").mkdir()
    return Project(tmp_path / "project")


@pytest.fixture
def reaper() -> Iterator[process_groups.Reaper]:
    made = process_groups.Reaper()
    yield made
    made.close()


def run(project: Project, reaper: process_groups.Reaper, body: str) -> tuple[Outcome, int]:
    """How a stage ends whose DVC is the script `body`, and how often that was tried."""
    fake = project.root.parent / "fake"
    fake.mkdir(exist_ok=True)
    count = project.root / "tries"
    head = f"import sys\nfrom pathlib import Path\nopen({str(count)!r}, 'a').write('x')\n"
    (fake / "dvc.py").write_text(
        f"{head}tries = len(open({str(count)!r}).read())\n"
        "assert sys.argv[1:] == ['--wait-for-lock', 'repro', '-s', 'report']\n" + body
    )
    job = StageProcess(project, "report", os.environ | {"PYTHONPATH": str(fake)}, reaper)
    deadline = time.monotonic() + 30
    while (outcome := job.poll()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return outcome, len(count.read_text())


@pytest.fixture(autouse=True)
def in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("u2pl.pipeline.stage_process._PAUSE_SECONDS", 0.05)


RECORD = "Path('dvc.lock').write_text('stages: {report: {cmd: x}}')\n"


def test_a_stage_that_ends_well_and_is_in_the_lock_file_is_done(
    project: Project, reaper: process_groups.Reaper
):
    assert run(project, reaper, RECORD) == (Outcome(True), 1)


def test_a_stage_that_dvc_has_lost_is_run_again(project: Project, reaper: process_groups.Reaper):
    assert run(project, reaper, f"if tries == 2:\n    {RECORD}") == (Outcome(True), 2)


def test_a_stage_that_dvc_loses_every_time_is_given_up(project: Project, reaper: process_groups.Reaper):
    outcome, tries = run(project, reaper, "")
    assert not outcome.succeeded and tries == 5
    assert outcome.sentence.startswith("DVC ran it 5 times and left no trace of it in dvc.lock.")


def test_a_lock_file_that_is_being_written_is_looked_at_again(
    project: Project, reaper: process_groups.Reaper
):
    late = "import subprocess\nsubprocess.Popen(['sh', '-c', 'sleep 0.07; echo \"stages: {report: {}}\" > dvc.lock'])"
    assert run(project, reaper, late) == (Outcome(True), 1)


def test_a_stage_that_another_dvc_is_in_the_way_of_is_tried_again(
    project: Project, reaper: process_groups.Reaper
):
    body = f"if tries < 3:\n    print({BUSY!r})\n    sys.exit(255)\n{RECORD}"
    assert run(project, reaper, body) == (Outcome(True), 3)


LIVING = f"ERROR: 'models/a.pt' is busy, it is being blocked by:\\n  (PID {os.getpid()}): dvc repro -f"
OURS = "Error: Another process (process 12 on host) is training a. Wait.\\nERROR: failed to run: u2pl, exited with 1"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (LIVING, f"waits for process {os.getpid()} (dvc repro -f), which is at it now"),
        (OURS, "Another process (process 12 on host) is training a. Wait."),
    ],
    ids=["by dvc", "by hand"],
)
def test_a_stage_that_somebody_else_runs_is_waited_for_however_long_and_that_is_said(
    project: Project, reaper: process_groups.Reaper, said: str, words: str, monkeypatch: pytest.MonkeyPatch
):
    """Twice as often as anything else is tried."""
    monkeypatch.setattr("u2pl.pipeline.stage_process._LOOK_SECONDS", 0.05)
    waited = set()
    poll = StageProcess.poll

    def noting(self: StageProcess) -> Outcome | None:
        outcome = poll(self)
        waited.add(self.waits_for)
        return outcome

    monkeypatch.setattr(StageProcess, "poll", noting)
    body = f"if tries < 11:\n    print({said!r}.replace(chr(92) + 'n', chr(10)))\n    sys.exit(255)\n{RECORD}"
    assert run(project, reaper, body) == (Outcome(True), 11)
    assert waited == {"", words}


def test_whoever_waits_for_somebody_else_can_be_stopped(project: Project, reaper: process_groups.Reaper):
    fake = project.root.parent / "fake"
    fake.mkdir()
    (fake / "dvc.py").write_text(
        f"import sys\nprint({LIVING!r}.replace(chr(92) + 'n', chr(10)))\nsys.exit(255)\n"
    )
    job = StageProcess(project, "report", os.environ | {"PYTHONPATH": str(fake)}, reaper)
    deadline = time.monotonic() + 30
    while not job.waits_for:
        assert job.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    job.stop()
    while (outcome := job.poll()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert outcome.stopped


def test_a_stage_that_fails_by_itself_is_tried_once(project: Project, reaper: process_groups.Reaper):
    body = "print('Error: The disk is full. Free some space.')\nprint('ERROR: failed to reproduce')\nsys.exit(255)"
    assert run(project, reaper, body) == (Outcome(False, "The disk is full. Free some space."), 1)
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
    assert failure_reason(said, 255) == expected


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


RUNS = ("shapes-1_8-suponly-s0", "shapes-1_8-u2pl-s0")
PLAN = """
dataset: shapes
seeds: [0]
tables:
  table1: {rows: [SupOnly, U²PL (w/ CutMix)], splits: {classic-1/8: 1/8}}
"""


@pytest.fixture
def planned(project: Project) -> tuple[Project, ActivePlan]:
    """With a plan of two runs, a figure of both, and their results but no model and no run."""
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(REPOSITORY / name, project.root)
    shutil.copytree(REPOSITORY / "pipelines", project.root / "pipelines")
    (project.root / "pipelines/plans/small.yaml").write_text(PLAN, encoding="utf-8")
    plan = resolve(project, "small")
    for name, stage in plan.runs.items():
        write_json(project.root / "results/runs" / name / "metrics.json", metrics_of(project, stage))
    (project.root / "pipelines/dvc.lock").write_text(
        "stages: {figure-curves: {outs: [{path: reports/curves.png}]}}"
    )
    (project.root / "reports").mkdir()
    (project.root / "reports/curves.png").touch()
    return project, plan


def blocked(kind: str) -> Stage:
    """The evaluation of a run, or the figure of both runs, as a schedule has it."""
    if kind == "figure":
        return Stage("figure@curves", frozenset(f"evaluate@{name}" for name in RUNS))
    return Stage(f"evaluate@{kind}", frozenset({f"train@{kind}"}))


def forget_all(project: Project, plan: ActivePlan) -> list[bool]:
    """Whether results were moved away of the two evaluations and the figure."""
    return [move_outdated(project, plan, blocked(kind)) for kind in (*RUNS, "figure")]


def test_results_of_todays_settings_stay_though_no_model_is_there(planned: tuple[Project, ActivePlan]):
    project, plan = planned
    assert forget_all(project, plan) == [False] * 3
    assert len(list(project.root.glob("results/runs/*/metrics.json"))) == 2


def test_results_of_other_settings_and_what_was_made_from_them_are_moved_aside(
    planned: tuple[Project, ActivePlan],
):
    project, plan = planned
    edit_params(project, lambda values: values["u2pl"].update(alpha0=0.35))
    (project.root / "models").mkdir()
    for name in RUNS:
        (project.root / "models" / f"{name}.pt").touch()  # which says nothing
    for _ in range(2):
        assert forget_all(project, plan) == [False, True, True]
        kept, moved = (Path("results/runs") / name / "metrics.json" for name in RUNS)
        aside = project.root / "runs/.plan/outdated"
        assert (project.root / kept).exists() and not (project.root / moved).exists()
        assert (aside / moved).exists() and (aside / "reports/curves.png").exists()
        # Once more, with something there from before.
        write_json(project.root / moved, read_json(aside / moved))
        shutil.copy(aside / "reports/curves.png", project.root / "reports")


def test_results_of_lists_that_are_drawn_anew_are_moved_aside(planned: tuple[Project, ActivePlan]):
    project, plan = planned
    edit_params(project, lambda values: values["splits"].update(seed=3))
    assert forget_all(project, plan) == [True] * 3


def test_a_result_that_cannot_be_read_is_left_to_the_table(planned: tuple[Project, ActivePlan]):
    project, plan = planned
    for name in RUNS:
        (project.root / "results/runs" / name / "metrics.json").write_text("[]")
    assert forget_all(project, plan) == [False] * 3


# ---- workers -------------------------------------------------------------------------------------------


def test_each_slot_has_its_device_and_its_share_of_the_threads(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("u2pl.pipeline.workers.cores", lambda: 8)
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


@pytest.mark.parametrize(
    ("visible", "listed", "found"),
    [
        ("2,3", "", ["2", "3"]),
        ("1,-1,2", "", ["1"]),
        ("", "GPU 0: NVIDIA (UUID: GPU-1)", []),
        (None, "GPU 0: NVIDIA A (UUID: GPU-1)\nGPU 1: NVIDIA A (UUID: GPU-2)", ["0", "1"]),
        (None, "GPU 0: NVIDIA (UUID: GPU-1)\n  MIG 1g.5gb Device 0: (UUID: MIG-1)", []),
        (None, None, []),
    ],
)
def test_several_jobs_share_out_the_gpus_that_are_visible(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, visible: str | None, listed: str | None, found: list[str]
):
    if listed is not None:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\necho '{listed}'\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert Workers.of(2, None).gpus == found
    assert not Workers.of(None, None).gpus and not Workers.of(1, None).gpus


def test_gpus_that_stay_idle_are_told_of():
    said = Workers.of(1, "0,1").warning
    assert said is not None
    assert said.startswith("--jobs 1 uses GPU 0 only, and leaves 1 idle")
    assert said.endswith("u2pl plan run --gpus 0,1")
    assert Workers.of(2, "0,1").warning is None and Workers.of(4, "0,1").warning is None


@pytest.mark.parametrize("gpus", ["", "0,,1", "0,0"])
def test_a_list_of_devices_that_makes_no_sense_is_refused(gpus: str):
    with pytest.raises(UsageError, match="different devices"):
        Workers.of(None, gpus)


# ---- the reaper ----------------------------------------------------------------------------------------


def test_the_reaper_ends_what_its_killed_owner_has_left(tmp_path: Path):
    script = (
        "import signal, subprocess, sys, time\nfrom u2pl.pipeline.process_groups import Reaper\nreaper = Reaper()\n"
        # What a shell starts in the background inherits that Ctrl-C is ignored; a stage's dvc does not.
        "signal.signal(signal.SIGINT, signal.SIG_DFL)\n"
        "for keep in (True, False):\n"
        "    left = subprocess.Popen(['sleep', '60'], stdout=subprocess.DEVNULL, start_new_session=True)\n"
        "    reaper.watch(left.pid)\n"
        "    keep or reaper.forget(left.pid)\n"
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


def test_what_a_run_folder_says_that_is_held_is_what_the_scheduler_waits_for(tmp_path: Path):
    held = RunFolder(tmp_path / "runs" / "a")
    held.path.mkdir(parents=True)
    # From another thread, since one process may hold its own lock twice.
    with held._lock, ThreadPoolExecutor(1) as pool, pytest.raises(UserError) as refused:
        pool.submit(RunFolder.claim, Project(tmp_path), "a", {}, fresh=True).result()
    assert _ANOTHER_HAS_IT.search(f"some progress\nError: {refused.value}\nERROR: failed to reproduce")


@pytest.mark.parametrize(
    "outs",
    [
        "[{path: ../../canary}]",
        "[{path: /canary}]",
        "[{path: 7}]",
        "[7]",
        "7",
        "{path: a}",
        "[{path: a, size: -1}]",
    ],
)
def test_a_stage_in_the_lock_file_that_dvc_did_not_write_so_is_none(project: Project, outs: str):
    lock = project.root / "dvc.lock"
    lock.write_text(
        f"stages:\n  bad:\n    outs: {outs}\n  good:\n    cmd: x\n    outs: [{{path: a/b, md5: 0.dir}}]\n"
    )
    assert outputs(project, locked(project, "good") or {}) == [(project.root / "a/b", None)]
    assert locked(project, "bad") is None
    for text in ("stages: []", "[]", "stages: {good: 7}", ""):
        lock.write_text(text)
        assert locked(project, "good") is None
