"""Whatever a command meets, it ends in a result or in a sentence."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from e2e import fuzz
from e2e.mutations import PWNED, SECRET

FUZZ = Path(__file__).with_name("fuzz.py")


@pytest.mark.slow
def test_odd_words_broken_files_and_strange_environments_end_in_a_result_or_a_sentence(tmp_path: Path):
    """A few of the cases that are played by the hundred by hand; commands that take long are left out."""
    # In a process of its own, which forks: this one has threads by now.
    chosen = [
        "--seed",
        "5",
        "--first",
        "80",
        "--cases",
        "12",
        "--quick",
        "--change",
        "file",
        "--change",
        "classes",
    ]
    done = subprocess.run(
        [sys.executable, str(FUZZ), *chosen],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["bad"] == []
    assert done.returncode == 0, done.stdout + done.stderr
    assert sum(said["outcomes"].values()) == said["cases"] == 12
    assert said["outcomes"]["result"] and said["outcomes"]["sentence"]


# ---- what it looks for -----------------------------------------------------------------------------------


@pytest.fixture
def case(tmp_path: Path) -> fuzz.Case:
    """A command of a project that has a run, a picture and a table, beside a file of the user's."""
    case = fuzz.Case(0, tmp_path / "0", ["table", "table1"], "table")
    for name in ("runs/a/weights.pt", "pictures/00.png", "reports/tables/table1.md"):
        (case.project / name).parent.mkdir(parents=True)
        (case.project / name).write_text(name)
    (case.folder / fuzz.OUTSIDE).mkdir()
    (case.folder / "deep/er/still/outside/kept").write_text("mine")
    case.before = fuzz.snapshot(case.folder)
    return said(case)


def said(case: fuzz.Case, stdout: str = "", stderr: str = "") -> fuzz.Case:
    case.log("stdout").write_text(stdout)
    case.log("stderr").write_text(stderr)
    return case


def problems(case: fuzz.Case, code: int = 0) -> list[str]:
    return case.problems(code << 8 if code >= 0 else -code)


def test_a_result_and_a_sentence_are_no_problem(case: fuzz.Case):
    (case.project / "reports/tables/table1.md").write_text("anew")
    assert problems(said(case, stdout="Wrote reports/tables/table1.md.")) == []
    assert problems(said(case, stderr="Error: There is no active plan."), 1) == []


@pytest.mark.parametrize(
    ("code", "stderr", "found"),
    [
        (1, "Traceback (most recent call last):\n  x", "traceback"),
        (1, "Error: KeyError: 'x'\nThis is a defect of u2pl or of its environment", "defect"),
        (3, "Error: no", "exit code 3"),
        (-9, "Error: no", "exit code -9"),
        (2, "\n", "no sentence"),
        (0, f"Warning: http://me:{SECRET}@x", "secret printed"),
    ],
)
def test_what_a_command_must_not_say_is_a_problem(case: fuzz.Case, code: int, stderr: str, found: str):
    assert problems(said(case, stderr=stderr), code) == [found]


@pytest.mark.parametrize(
    "name",
    [
        "deep/er/still/project/runs/a/weights.pt",
        "deep/er/still/project/pictures/00.png",
        "deep/er/still/outside/kept",
    ],
)
def test_a_file_that_is_lost_or_another_is_a_problem(case: fuzz.Case, name: str):
    (case.folder / name).write_text("another")
    assert problems(case) == [f"lost: {name}"]
    (case.folder / name).unlink()
    assert problems(case) == [f"lost: {name}"]


def test_a_run_that_is_moved_aside_is_not_lost(case: fuzz.Case):
    case.words, case.command = ["train", "--fresh"], "train"
    (case.project / "runs/a").rename(case.project / "runs/b")
    assert problems(case) == []
    case.words = ["train"]
    assert problems(case) == ["lost: deep/er/still/project/runs/a/weights.pt"]


def test_files_outside_the_project_are_a_problem_unless_a_word_names_their_place(case: fuzz.Case):
    (case.folder / "deep/er/still/outside/new").write_text("x")
    assert problems(case) == ["written outside: deep/er/still/outside/new"]
    case.words = ["predict", "--out", "../outside"]
    assert problems(case) == []


def test_a_secret_that_is_written_and_code_that_is_run_are_problems(case: fuzz.Case):
    (case.project / "tracking.json").write_text(SECRET)
    (case.project / PWNED).touch()
    assert sorted(problems(case)) == [
        f"code was run: deep/er/still/project/{PWNED}",
        "secret written: deep/er/still/project/tracking.json",
    ]


def test_a_case_is_the_same_whatever_other_cases_there_are(tmp_path: Path):
    template = fuzz.Template(tmp_path / "template")
    (template.folder / fuzz.INSIDE / "project").mkdir(parents=True)
    choice = fuzz.Choice.of(0, changes=["words"])
    made = [fuzz.Case.make(choice, number, template, tmp_path / str(number)) for number in (0, 1, 1)]
    assert made[1].words == made[2].words != made[0].words
    assert choice.words(1) == "--seed 0 --only 1 --change words"
