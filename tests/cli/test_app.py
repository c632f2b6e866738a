"""What the command line makes of errors that nobody has caught."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from u2pl_cli import app

from u2pl.project import Project


@pytest.fixture
def u2pl(started_u2pl: Callable[..., Any]) -> Callable[..., Any]:
    """Here the start itself is looked at too."""
    return started_u2pl


@pytest.fixture
def answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[BaseException], tuple]:
    """What a command that ends with an error comes to: its status, and what is said."""

    def command(error: BaseException) -> tuple[int, str]:
        def failing() -> None:
            raise error

        monkeypatch.setattr(app, "app", app.typer.Typer(pretty_exceptions_enable=False))
        app.app.command()(failing)
        return app.run([]), capsys.readouterr().err

    return command


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.EACCES, "Permission denied. Give yourself the right"),
        (errno.EROFS, "Read-only file system. Make the disk writable"),
        (errno.ENOENT, "No such file or directory. If it is a result"),
        (errno.EISDIR, "Is a directory. A folder lies where a file should"),
        (errno.ENOTDIR, "Not a directory. A file lies where a folder should"),
        (errno.EEXIST, "File exists. A file lies where a folder should"),
        (errno.EMFILE, "ulimit -n"),
        (errno.EIO, "Input/output error. Look after that file"),
    ],
)
def test_an_error_about_a_file_is_a_sentence_that_names_it(answer, number: int, says: str):
    status, said = answer(OSError(number, os.strerror(number), "some/file"))
    assert status == 1
    assert said.startswith("Error: Cannot read or write some/file: ") and says in said
    assert "defect" not in said and len(said.splitlines()) == 1


def test_of_a_renaming_the_new_name_is_told(answer):
    error = IsADirectoryError(errno.EISDIR, "Is a directory", ".x.12.tmp", None, "x")
    assert "write x: " in answer(error)[1]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
        torch.OutOfMemoryError("CUDA out of memory."),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_memory_that_ran_out_is_a_sentence(answer, error: Exception):
    status, said = answer(error)
    assert status == 1
    assert "not enough memory" in said and "--micro-batch" in said and "defect" not in said


@pytest.mark.parametrize("error", [KeyError("a"), RuntimeError("shapes"), TypeError("x"), OSError("no file")])
def test_an_error_of_the_program_is_called_a_defect(answer, error: Exception):
    status, said = answer(error)
    assert status == 1
    assert "This is a defect" in said


def test_an_interruption_is_one_line(answer):
    assert answer(KeyboardInterrupt()) == (130, "Stopped. Start the same command again to go on.\n")


def test_a_command_that_ends_with_130_of_its_own_says_nothing_more(answer):
    assert answer(app.typer.Exit(130)) == (130, "")


def heed_ctrl_c() -> None:
    """Where the tests run in the background, Ctrl-C is ignored, and what they start would inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def has_worked(process: subprocess.Popen[str], seconds: float) -> None:
    """Wait until a process has had so much of a processor: on a busy machine that takes longer."""
    while sum(psutil.Process(process.pid).cpu_times()[:2]) < seconds:
        time.sleep(0.01)


@pytest.mark.slow
def test_ctrl_c_in_a_command_that_does_not_train_is_one_line(tiny_project: Project):
    preparing = subprocess.Popen(
        [sys.executable, "-m", "u2pl_cli", "status", "--watch"],
        cwd=tiny_project.root,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_ctrl_c,
    )
    has_worked(preparing, 0.15)  # in the middle of its imports
    preparing.send_signal(signal.SIGINT)
    _, err = preparing.communicate(timeout=60)
    assert "Traceback" not in err
    assert preparing.returncode in (130, -signal.SIGINT, 0)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("delay", [0.5, 2])
def test_training_that_has_not_begun_is_stopped_at_once(tiny_project: Project, number: int, delay: float):
    words = [
        "train",
        "--dataset",
        "tiny",
        "--split",
        "1/4",
        "--set",
        "epochs=2000",
        "--set",
        "validate_every=2000",
    ]
    training = subprocess.Popen(
        [sys.executable, "-m", "u2pl_cli", *words],
        cwd=tiny_project.root,
        env={**os.environ, "U2PL_TRACKING": "none"},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_ctrl_c,
    )
    has_worked(training, delay)  # in the middle of its imports, or about to build its network
    training.send_signal(number)
    try:
        _, err = training.communicate(timeout=60)
    finally:
        training.kill()
    assert training.returncode == 130, err
    assert "Traceback" not in err and "Start the same command again" in err


# ---- places that are not what they should be -------------------------------------------------------------


def train(*words: str) -> int:
    return app.run(["train", "--dataset", "tiny", "--split", "1/4", "--method", "suponly", *words])


@pytest.fixture
def here(tiny_project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tiny_project.root)
    shutil.rmtree(tiny_project.runs, ignore_errors=True)
    return tiny_project


@pytest.mark.parametrize("target", ["pictures", "params.yaml/x.pt", "params.yaml/deep/x.pt", "/dev/null"])
@pytest.mark.parametrize("command", ["train", "ablate"])
def test_a_target_that_cannot_be_written_is_refused_before_the_work(
    here: Project, capsys: pytest.CaptureFixture[str], target: str, command: str
):
    if command == "train":
        status, option = train("--model", target), "--model"
    else:
        words = ["ablate", "--param", "alpha0", "0.1", "--dataset", "tiny", "--split", "1/4"]
        status, option = app.run([*words, "--record", target]), "--record"
    said = capsys.readouterr().err
    assert status == 2
    assert said.startswith(f"Error: {option} ") and target.split("/")[0] in said
    assert not here.runs.exists()


@pytest.mark.parametrize("command", ["train", "ablate"])
@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("runs/other/weights.pt", "among the files of runs"),
        ("link/other/weights.pt", "among the files of runs"),
        ("pictures/tiny.yaml", "which is nothing that it has written"),
        ("params.yaml", "which is nothing that it has written"),
    ],
)
def test_what_is_somebody_elses_is_never_written_over(
    here: Project, capsys: pytest.CaptureFixture[str], command: str, target: str, says: str
):
    (here.runs / "other").mkdir(parents=True)
    (here.runs / "other" / "weights.pt").write_bytes(b"finished")
    (here.root / "link").symlink_to(here.runs, target_is_directory=True)
    before = (here.root / target).read_bytes()
    words = ["ablate", "--param", "alpha0", "0.1", "--dataset", "tiny", "--split", "1/4", "--record"]
    status = train("--model", target) if command == "train" else app.run([*words, target])
    assert status == 2
    assert says in capsys.readouterr().err
    assert (here.root / target).read_bytes() == before


@pytest.mark.parametrize("place", ["runs", "runs/tiny-1_4-suponly-s0", "data", "data/tiny", "params.yaml"])
def test_a_file_or_folder_in_the_place_of_the_other_is_a_sentence(
    here: Project, capsys: pytest.CaptureFixture[str], place: str
):
    path = here.root / place
    if place == "params.yaml":
        path.unlink()
        path.mkdir()
    else:
        shutil.rmtree(path, ignore_errors=True)
        path.parent.mkdir(exist_ok=True)
        path.write_text("a file")
    assert train() == 1
    said = capsys.readouterr().err
    assert said.startswith("Error: ") and "defect" not in said and "Traceback" not in said


@pytest.mark.parametrize(
    "words",
    [
        ("--batch", "4", "--set", "batch=2"),
        ("--micro-batch", "1", "--set", "recipe.micro_batch=2"),
        ("--weights", "none", "--set", "weights=imagenet"),
        ("--set", "lr=0.1", "--set", "recipe.lr=0.2"),
    ],
)
def test_a_setting_that_is_given_twice_by_whatever_option_is_refused(
    here: Project, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
):
    assert train(*words) == 2
    assert "is set twice, to" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ("--seed", "-1"),
        ("--seed", str(2**63)),
        ("--workers", "100000"),
        ("--save-every", "nan"),
        ("--nproc", "10000"),
        ("--set", "epochs=1e9"),
        ("--set", "lr=nan"),
        ("--set", "batch=1000000000000"),
    ],
)
def test_a_number_beyond_reason_is_refused_and_leaves_no_folder(
    here: Project, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
):
    assert train(*words) == 2
    said = capsys.readouterr().err
    assert "Error" in said and "defect" not in said
    assert not here.runs.exists()


def test_an_ablation_whose_values_are_all_refused_leaves_nothing(
    here: Project, capsys: pytest.CaptureFixture[str]
):
    words = ["ablate", "--param", "weights", "none.pt", "here.pt", "--dataset", "tiny", "--split", "1/4"]
    Path("here.pt").write_bytes(b"half a file")
    assert app.run(words) == 1
    assert "2 of 2 values failed" in capsys.readouterr().err
    assert not list(here.runs.glob("tiny*"))


# ---- terminals of another time ---------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_what_a_terminal_cannot_show_is_written_out(tiny_project: Project, u2pl: Callable, encoding: str):
    done = u2pl("train", "--dataset", "†", cwd=tiny_project.root, PYTHONIOENCODING=encoding)
    assert done.returncode in (1, 2)
    assert r"\u2020" in done.stderr or "†" in done.stderr  # in place of ASCII click takes UTF-8
    assert "defect" not in done.stderr and "Traceback" not in done.stderr
