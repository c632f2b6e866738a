"""Who is one of several processes, who only has their variables left over, and how they meet."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from u2pl.errors import UserError
from u2pl.project import Project
from u2pl.training import distributed, place

WORDS = ["train", "--dataset", "tiny", "--split", "1/4", "--batch", "4", "--set", "batch_norm=fixed"]
NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def free_port() -> str:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return str(held.getsockname()[1])


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"RANK": "", "WORLD_SIZE": ""},
        {"RANK": "0"},
        {"WORLD_SIZE": "1"},
        {"RANK": "0", "WORLD_SIZE": "1"},
        {"MASTER_ADDR": "localhost", "MASTER_PORT": "29500"},
        {"SLURM_PROCID": "1", "SLURM_NTASKS": "2"},
        {"LOCAL_RANK": "3"},
    ],
)
def test_a_process_that_is_told_of_no_other_is_alone(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert not place.started() and place.is_first()
    assert distributed.local_device().index in (None, 0)


PLACED = {"MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"RANK": "1"}, "has RANK=1, which is no place"),
        ({"WORLD_SIZE": "2"}, "has WORLD_SIZE=2, which is no place"),
        ({"RANK": "1", "WORLD_SIZE": "1", **PLACED}, "RANK=1 and WORLD_SIZE=1"),
        ({"RANK": "2", "WORLD_SIZE": "2", **PLACED}, "RANK=2 and WORLD_SIZE=2"),
        ({"RANK": "-1", "WORLD_SIZE": "2", **PLACED}, "RANK=-1 and WORLD_SIZE=2"),
        ({"RANK": "0", "WORLD_SIZE": "0", **PLACED}, "RANK=0 and WORLD_SIZE=0"),
        ({"RANK": "0", "WORLD_SIZE": "-2", **PLACED}, "RANK=0 and WORLD_SIZE=-2"),
        ({"RANK": "one", "WORLD_SIZE": "2", **PLACED}, "has RANK=one, which is no number"),
        ({"RANK": "0", "WORLD_SIZE": "2.0", **PLACED}, "has WORLD_SIZE=2.0, which is no number"),
        ({"WORLD_SIZE": "$N"}, r"has WORLD_SIZE=\$N, which is no number"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "no MASTER_ADDR and MASTER_PORT"),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}, "no MASTER_ADDR and MASTER_PORT"),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_PORT": "29500"}, "no MASTER_ADDR and MASTER_PORT"),
        (
            {"RANK": "0", "WORLD_SIZE": "2", **PLACED, "MASTER_PORT": "70000"},
            "no MASTER_ADDR and MASTER_PORT",
        ),
        ({"RANK": "0", "WORLD_SIZE": "2", **PLACED, "MASTER_PORT": "x"}, "MASTER_PORT=x, which is no number"),
    ],
)
def test_variables_that_are_no_place_are_refused_with_the_way_on(
    variables: dict[str, str], says: str, monkeypatch: pytest.MonkeyPatch
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=says) as caught:
        place.started()
    assert "torchrun" in str(caught.value) and "--nproc" in str(caught.value)
    assert str(caught.value).endswith("unset RANK and WORLD_SIZE.")


def test_a_place_among_several_is_taken(monkeypatch: pytest.MonkeyPatch):
    for name, value in ({"RANK": "1", "WORLD_SIZE": "2"} | PLACED).items():
        monkeypatch.setenv(name, value)
    assert place.started() and not place.is_first()
    assert distributed.place() == distributed.Place(1, 2, "localhost", 29500)


@pytest.mark.parametrize("rank", [0, 1])
def test_who_waits_in_vain_says_for_whom_and_gives_up(
    rank: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(distributed, "_QUIET_SECONDS", 0.3)
    monkeypatch.setattr(distributed, "_PATIENCE_SECONDS", 1.5)
    port = int(free_port())
    began = time.monotonic()
    with pytest.raises(
        UserError, match=f"Process {rank + 1} of 2, at 127.0.0.1:{port} has waited for"
    ) as caught:
        distributed._meet(distributed.Place(rank, 2, "127.0.0.1", port))
    assert time.monotonic() - began < 5
    awaited = "process 2 of 2" if rank == 0 else "the first process"
    assert awaited in str(caught.value)
    said = capsys.readouterr().err
    assert said.count("Waiting for") == 1 and awaited in said and f"127.0.0.1:{port}" in said
    monkeypatch.setattr(distributed, "_waiting", False)


def test_a_listener_that_never_answers_is_given_up_too(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(distributed, "_PATIENCE_SECONDS", 1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(UserError, match=r"in vain|cannot meet the others"):
            distributed._meet(distributed.Place(1, 2, "127.0.0.1", silent.getsockname()[1]))
    monkeypatch.setattr(distributed, "_waiting", False)


def test_a_port_that_is_taken_is_a_sentence():
    with socket.socket() as other:
        other.bind(("0.0.0.0", 0))
        other.listen()
        with pytest.raises(UserError, match="cannot meet the others") as caught:
            distributed._meet(distributed.Place(0, 2, "127.0.0.1", other.getsockname()[1]))
    assert "\n" not in str(caught.value)


# ---- whole commands --------------------------------------------------------------------------------------


def start(project: Project, *words: str, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "u2pl_cli", *words],
        cwd=project.root,
        env={**os.environ, "U2PL_TRACKING": "none", **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("rank", ["0", "1"])
def test_who_waits_for_the_others_is_stopped_at_once(tiny_project: Project, rank: str, number: int):
    training = start(
        tiny_project, *WORDS, RANK=rank, WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=free_port()
    )
    assert training.stderr is not None
    said = training.stderr.readline()
    assert said.startswith("Waiting for ")
    sent = time.monotonic()
    training.send_signal(number)
    _, err = training.communicate(timeout=20)
    assert time.monotonic() - sent < 5
    assert training.returncode == 130
    assert "Traceback" not in err
    assert ("Start the same command again" in err) == (rank == "0")
    assert not tiny_project.runs.exists()


@pytest.mark.slow
def test_two_processes_of_which_one_is_late_train_together(tiny_project: Project):
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    first = start(tiny_project, *WORDS, RANK="0", **common)
    assert first.stderr is not None
    assert "Waiting for process 2 of 2" in first.stderr.readline()
    second = start(tiny_project, *WORDS, RANK="1", **common)
    out, err = first.communicate(timeout=100)
    assert first.returncode == 0, err
    assert "mIoU" in out
    assert second.communicate(timeout=30)[0] == ""
    assert second.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "variables",
    [{"RANK": "1"}, {"RANK": "x", "WORLD_SIZE": "y"}, {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "9"}],
)
def test_other_commands_speak_and_write_whatever_the_variables_say(
    tiny_project: Project, tmp_path: Path, variables: dict[str, str]
):
    done = start(tiny_project, "plan", "demo-full", "--table", "1", **variables)
    out, err = done.communicate(timeout=60)
    assert done.returncode == 0, err
    assert out
    failed = start(tiny_project, "evaluate", "none", **variables)
    assert "There is no run yet" in failed.communicate(timeout=60)[1]
    assert failed.returncode == 1
