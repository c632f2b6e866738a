"""`dvc repro` that is killed leaves no trainer behind, and comes to the same end when it is started again."""

import json
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch
from e2e.under_dvc import environment, put_under_dvc
from tiny import edit_params

from u2pl.pipeline import resolve
from u2pl.project import Project
from u2pl.settings import Params
from u2pl.training import trainer

PLAN = """
dataset: tiny
seeds: [0]
tables:
  table1: {rows: [SupOnly], splits: {classic-1/4: 1/4}}
"""
RUN = "tiny-1_4-suponly-s0"

pytestmark = pytest.mark.slow


def events(project: Project) -> list[str]:
    path = project.runs / RUN / "events.jsonl"
    return [json.loads(line)["event"] for line in path.read_text().splitlines()] if path.exists() else []


def trainers(project: Project) -> list[psutil.Process]:
    """Processes that train in this project."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(project.root) and "train" in process.cmdline():
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_trainer_ends_after_its_dvc_and_the_next_repro_goes_on(tiny_project: Project, how: signal.Signals):
    root = tiny_project.root
    put_under_dvc(tiny_project, PLAN)
    edit_params(tiny_project, lambda values: values["recipes"]["tiny"].update(epochs=60, validate_every=60))
    resolve(tiny_project, "tiny").write(tiny_project)
    shutil.copytree(root, root.parent / "undisturbed")
    command = [sys.executable, "-m", "dvc", "repro", f"train@{RUN}"]
    with subprocess.Popen(
        command,
        cwd=root,
        env=environment(tiny_project),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as dvc:
        deadline = time.monotonic() + 120
        while "step" not in events(tiny_project):
            assert dvc.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        left = trainers(tiny_project)
        assert left
        dvc.send_signal(how)
    assert not psutil.wait_procs(left, timeout=30)[1]
    assert events(tiny_project)[-1] == "interrupted"
    assert (root / "runs" / RUN / "last.pt").exists()

    if how == signal.SIGTERM:
        return  # the same from here on
    done = subprocess.run(
        command,
        cwd=root,
        env=environment(tiny_project),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [e for e in events(tiny_project) if e not in ("step", "epoch")] == [
        "start",
        "interrupted",
        "resume",
        "end",
    ]
    undisturbed = Project(root.parent / "undisturbed")
    path = trainer.train(undisturbed, Params.read(undisturbed).spec("tiny", "1/4", "suponly", 0))
    theirs, ours = (
        torch.load(p / "weights.pt", weights_only=True)["state"] for p in (path, root / "runs" / RUN)
    )
    assert all(torch.equal(value, ours[key]) for key, value in theirs.items())
