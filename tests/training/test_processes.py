"""Whole runs by several processes: the same run, one that writes, and how they end together."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch

from u2pl.files import read_json
from u2pl.project import Project

Completed = subprocess.CompletedProcess[str]
pytestmark = pytest.mark.slow

WORDS = ["train", "--dataset", "tiny", "--split", "1/4", "--batch", "4", "--set", "batch_norm=fixed"]


def steps(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] in ("step", "epoch")]


def run_of(project: Project) -> Path:
    (path,) = (path.parent for path in project.runs.glob("*/run.json"))
    return path


def test_a_run_by_two_processes_or_by_torchrun_is_the_run_of_one(
    tiny_project: Project, tmp_path: Path, u2pl: Callable[..., Completed]
):
    found = {}
    for who in ("one", "two", "torchrun"):
        project = tmp_path / who
        subprocess.run(["cp", "-r", tiny_project.root, project], check=True)
        if who == "torchrun":
            command = [
                sys.executable,
                "-m",
                "torch.distributed.run",
                "--nproc-per-node",
                "2",
                "-m",
                "u2pl_cli",
            ]
            done = subprocess.run(
                [*command, *WORDS],
                cwd=project,
                env={**os.environ, "U2PL_TRACKING": "none"},
                capture_output=True,
                text=True,
                timeout=120,
            )
        else:
            done = u2pl(*WORDS, *(["--nproc", "2", "--name", "both"] if who == "two" else []), cwd=project)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("mIoU") == 1  # of several processes one speaks
        found[who] = run_of(Project(project))
    assert found["two"].name == "both"
    one = steps(found["one"])
    for who in ("two", "torchrun"):
        several = steps(found[who])
        assert [(e["event"], e["step"]) for e in one] == [(e["event"], e["step"]) for e in several]
        for ours, theirs in zip(one, several, strict=True):
            for name, value in ours["metrics"].items():
                if not name.startswith(("images_per_second", "memory")):
                    # After training for nine steps rounding has grown.
                    assert theirs["metrics"][name] == pytest.approx(value, rel=1e-3, abs=1e-3), name
        assert (
            read_json(found[who] / "run.json")["fingerprint"]
            == read_json(found["one"] / "run.json")["fingerprint"]
        )
        states = [torch.load(found[k] / "weights.pt", weights_only=True)["state"] for k in ("one", who)]
        for key, value in states[0].items():
            torch.testing.assert_close(states[1][key], value, rtol=1e-3, atol=1e-4)


WATCHED = """
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
import weakref
from u2pl_cli.__main__ import main

wrapped, build, part = weakref.WeakSet(), DistributedDataParallel.__init__, dist.destroy_process_group

def noted(self, *arguments, **options):
    build(self, *arguments, **options)
    wrapped.add(self)
    print("wrapped\\n", end="", flush=True)  # at once: two processes write here

def parting():
    print(f"left when parting: {len(wrapped)}\\n", end="", flush=True)
    part()

DistributedDataParallel.__init__, dist.destroy_process_group = noted, parting
main()
"""


def test_no_wrapped_network_outlives_the_group(tiny_project: Project, tmp_path: Path):
    """The last to hold the group destroys it, and a wrapped network would do so without releasing Python's lock,
    for which gloo's thread may wait: both processes would wait for ever.
    """
    (tmp_path / "watched.py").write_text(WATCHED)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nproc-per-node",
            "2",
            tmp_path / "watched.py",
            *WORDS,
        ],
        cwd=tiny_project.root,
        env={**os.environ, "U2PL_TRACKING": "none"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("wrapped\n") == 2
    assert done.stdout.count("left when parting: 0\n") == 2


@pytest.mark.parametrize("method", ["cps", "u2pl-ael"])
def test_a_run_of_another_method_by_two_processes_is_the_run_of_one(
    tiny_project: Project, tmp_path: Path, u2pl: Callable[..., Completed], method: str
):
    """Two networks that are trained; images that all processes choose alike."""
    found = {}
    for who, words in (("one", []), ("two", ["--nproc", "2"])):
        shutil.copytree(tiny_project.root, tmp_path / who)
        done = u2pl(*WORDS, "--method", method, *words, cwd=tmp_path / who)
        assert done.returncode == 0, done.stderr
        found[who] = steps(run_of(Project(tmp_path / who)))
    for ours, theirs in zip(found["one"], found["two"], strict=True):
        for name, value in ours["metrics"].items():
            if not name.startswith(("images_per_second", "memory")):
                assert theirs["metrics"][name] == pytest.approx(value, rel=1e-3, abs=1e-3), name


def start(project: Project, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "u2pl_cli", *WORDS, *words],
        cwd=project.root,
        env={**os.environ, "U2PL_TRACKING": "none"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(training: subprocess.Popen[str], project: Project, event: str) -> None:
    """Until training has come so far."""
    deadline = time.monotonic() + 90
    while training.poll() is None and time.monotonic() < deadline:
        logs = list(project.runs.glob("*/events.jsonl"))
        if logs and f'"{event}"' in logs[0].read_text():
            return
        time.sleep(0.05)
    training.kill()
    pytest.fail(f"no {event}: {training.communicate()}")


LONG = ("--set", "epochs=2000", "--set", "validate_every=2000")


def test_a_killed_process_ends_the_others_and_is_named(tiny_project: Project):
    training = start(tiny_project, "--nproc", "2", *LONG)
    wait_for(training, tiny_project, "step")
    workers = [p for p in psutil.Process(training.pid).children(recursive=True) if "u2pl_cli" in p.cmdline()]
    (second,) = (p for p in workers if p.environ().get("RANK") == "1")
    second.kill()
    _, err = training.communicate(timeout=60)
    assert training.returncode == 1
    said = [line for line in err.splitlines() if line.startswith("Error")]
    assert said[0].startswith("Error: Process 2 of 2 was ended by SIGKILL")
    assert "Traceback" not in err
    assert not psutil.wait_procs(workers, timeout=10)[1]


def test_an_error_of_one_process_is_shown_and_nothing_before_it(tiny_project: Project):
    """Pictures are damaged in the middle of training; each process reads others."""
    training = start(tiny_project, "--nproc", "2", *LONG)
    wait_for(training, tiny_project, "step")
    for picture in (tiny_project.root / "pictures" / "images").iterdir():
        picture.write_bytes(b"no picture")
    _, err = training.communicate(timeout=60)
    assert training.returncode == 1
    first = next(line for line in err.splitlines() if "Error" in line)
    if "Process 2 of 2 failed" not in first:
        assert "damaged image" in first
    assert "damaged image" in err and "onnection" not in err
    assert "Traceback" not in err


def test_a_signal_to_the_launcher_saves_once_and_the_run_goes_on_with_one_process(
    tiny_project: Project, u2pl: Callable[..., Completed]
):
    training = start(tiny_project, "--nproc", "2", *LONG)
    wait_for(training, tiny_project, "step")
    training.send_signal(signal.SIGTERM)
    _, err = training.communicate(timeout=60)
    assert training.returncode == 130
    assert err.count("the state is saved") == 1
    folder = run_of(tiny_project)
    saved = torch.load(folder / "last.pt", weights_only=True)["progress"]["step"]
    again = start(tiny_project, *LONG)
    wait_for(again, tiny_project, "resume")
    again.send_signal(signal.SIGTERM)
    again.communicate(timeout=60)
    resumed = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert next(e["step"] for e in resumed if e["event"] == "resume") == saved


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--nproc", "3"), "A batch of 4 cannot be shared by 3 processes"),
        (("--nproc", "2", "--set", "micro_batch=4"), "--micro-batch 2"),
        (("--nproc", "2", "--set", "split=1"), "No setting"),
    ],
)
def test_what_cannot_be_shared_is_said_once(tiny_project: Project, u2pl, words: tuple[str, ...], says: str):
    done = u2pl(*WORDS, *words, cwd=tiny_project.root)
    assert done.returncode == 2
    assert done.stderr.count("Error") == 1 and says in done.stderr
