"""`u2pl auto` as a new user starts it: in an empty folder, with real trainings."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import filelock
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "auto"))
from folders import draw_folder

Completed = subprocess.CompletedProcess[str]


def started(folder: Path, words: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "u2pl_cli", "auto", *words],
        cwd=folder,
        env={**os.environ, "U2PL_TRACKING": "none"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_from_an_empty_folder_to_an_answer_through_an_interruption(
    tmp_path: Path, u2pl: Callable[..., Completed], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("U2PL_TRACKING", "none")
    pictures = draw_folder(tmp_path / "my pictures", 30, 12)
    work = tmp_path / "work"
    work.mkdir()
    words = [str(pictures), "--budget", "75s"]
    first = started(work, words)
    assert first.stderr is not None
    for line in first.stderr:
        if "at epoch" in line:  # it has looked at what validates
            break
    first.send_signal(signal.SIGINT)
    out, err = first.communicate(timeout=120)
    assert first.returncode == 130, err
    assert "same command goes on" in err
    assert "30 pictures, 12 with a mask, 18 without" in out

    project = work / "my_pictures-u2pl"
    home = next(path for path in (project / "auto").iterdir() if path.is_dir())
    begun = json.loads((home / "answer.json").read_text())
    assert begun["unfinished"]["title"] in (home / "answer.html").read_text()
    assert u2pl("predict", begun["model"], str(pictures / "images/p00.jpg"), cwd=work).returncode == 0
    shutil.rmtree(work / "predictions")
    spent = json.loads((home / "state.json").read_text())["seconds"]
    assert spent >= 3

    again = started(work, words)
    out, err = again.communicate(timeout=400)
    assert again.returncode == 0, err
    assert "are spent already" in out
    answer = json.loads((home / "answer.json").read_text())
    assert answer["headline"] in out
    assert answer["numbers"]["suponly"][0] > 50
    assert answer["classes"].keys() == {"background", "object"}
    assert Path(answer["model"]).is_file()
    page = (home / "answer.html").read_text()
    assert "What to label next" in page and "How far it can be believed" in page
    assert (Path(answer["closer_look"]["suggested"]["folder"]) / "label_studio").is_dir()

    # Ordinary runs of an ordinary plan, that one can open.
    name = home.name
    assert u2pl("plan", f"auto-{name}", cwd=project).returncode == 0
    status = json.loads(u2pl("status", "--json", cwd=project).stdout)
    # A plan's keys say all that a table sets, also where the recipe says the same.
    done = {r["name"].replace("-epoch=unlabeled", "") for r in status["runs"] if r["state"] == "done"}
    assert done == {run["run"] for run in answer["runs"] if run["miou"] is not None}

    found = u2pl("predict", answer["model"], str(pictures / "images"), "--review", cwd=work)
    assert found.returncode == 0, found.stderr
    with Image.open(work / "predictions/masks/p20.png") as mask:
        assert mask.size == (64, 64)

    # The budget is spent: the same command has its answer at once.
    at_once = u2pl("auto", str(pictures), "--budget", "75s", "--json", cwd=work)
    assert json.loads(at_once.stdout)["headline"] == answer["headline"]


@pytest.mark.parametrize("budget", ["", "soon", "0m", "3", "-5m", "2h30"])
def test_a_budget_that_is_no_duration(u2pl: Callable[..., Completed], tmp_path: Path, budget: str):
    found = u2pl("auto", str(tmp_path), "--budget", budget)
    assert found.returncode == 2
    assert "--budget" in found.stderr


def test_what_is_no_folder_makes_no_project(u2pl: Callable[..., Completed], tmp_path: Path):
    found = u2pl("auto", "nowhere")
    assert found.returncode == 2
    assert "nowhere is no folder" in found.stderr
    (tmp_path / "empty").mkdir()
    assert "no picture" in u2pl("auto", "empty").stderr
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_two_at_a_time_on_one_folder_are_one_too_many(u2pl: Callable[..., Completed], tmp_path: Path):
    pictures = draw_folder(tmp_path / "holes", 8, 5)
    assert "too short" in u2pl("auto", "holes", "--budget", "1s").stderr
    with filelock.FileLock(tmp_path / "holes-u2pl/auto/holes/.lock"):
        found = u2pl("auto", str(pictures), "--budget", "1s")
    assert found.returncode == 1 and "Another `u2pl auto`" in found.stderr


def test_started_inside_the_pictures_the_project_is_made_beside_them(
    u2pl: Callable[..., Completed], tmp_path: Path
):
    pictures = draw_folder(tmp_path / "holes", 8, 5)
    found = u2pl("auto", ".", "--budget", "1s", cwd=pictures)
    assert "too short" in found.stderr and "--budget" in found.stderr
    assert (tmp_path / "holes-u2pl/auto/holes/dataset.yaml").is_file()
    assert {path.name for path in pictures.iterdir()} == {"images", "masks"}
