"""Splits that cannot be made again, under a real DVC and the real u2pl: no stage takes them away."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from e2e.under_dvc import environment, put_under_dvc

from u2pl.pipeline import ActivePlan
from u2pl.project import Project

PLAN = """
dataset: tiny
seeds: [0]
set: {epochs: 1}
tables:
  table1: {rows: [SupOnly], splits: {classic-1/4: mine, classic-1/8: 1/8}}
"""

pytestmark = pytest.mark.slow


def lists(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def repro(project: Project) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dvc", "repro"],
        cwd=project.root,
        env=environment(project),
        capture_output=True,
        text=True,
    )


def test_lists_of_ones_own_and_a_seed_of_ones_own_outlive_repro(
    tiny_project: Project, u2pl: Callable[..., subprocess.CompletedProcess[str]]
):
    project, root = tiny_project, tiny_project.root
    put_under_dvc(project, PLAN)
    (root / "lab.txt").write_text("03\n05\n06\n11\n")
    for words in (["mine", "--source", "lab.txt"], ["1/8", "--seed", "7"]):
        done = u2pl("prepare", "--dataset", "tiny", "--split", *words, cwd=root)
        assert done.returncode == 0, done.stderr
    mine, drawn = (project.split("tiny", name) for name in ("mine", "1/8"))
    before = lists(mine), lists(drawn)
    assert before[0]["labeled.txt"] == b"03\n05\n06\n11\n"

    assert u2pl("plan", "tiny", cwd=root).returncode == 0
    plan = ActivePlan.read(project)
    assert [stage.args for stage in plan.prepare.values()] == ["--dataset tiny --split 1/8 --seed 7"]

    done = repro(project)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (lists(mine), lists(drawn)) == before
    assert len(list((root / "results/runs").iterdir())) == 2
    results = {p: p.read_bytes() for p in (root / "results").rglob("metrics.json")}

    # The stages run again, and fail: nothing is lost.
    (root / "dvc.lock").unlink()
    (root / "pictures").rename(root / "elsewhere")
    assert repro(project).returncode != 0
    assert (lists(mine), lists(drawn)) == before
    assert {p: p.read_bytes() for p in (root / "results").rglob("metrics.json")} == results


def test_a_split_of_ones_own_that_is_not_prepared_is_named_by_the_plan(
    tiny_project: Project, u2pl: Callable[..., subprocess.CompletedProcess[str]]
):
    put_under_dvc(tiny_project, PLAN)
    said = u2pl("plan", "tiny", cwd=tiny_project.root).stdout
    assert "Missing: Split 'mine' of 'tiny' has lists of your own, which no stage can make." in said
    assert "u2pl prepare --dataset tiny --split mine --source FILE" in said


@pytest.mark.parametrize(("without", "says"), [(True, True), (False, False)])
def test_a_plan_outside_a_repository_says_that_git_is_missing(
    tiny_project: Project,
    u2pl: Callable[..., subprocess.CompletedProcess[str]],
    without: bool,
    says: bool,
):
    (tiny_project.root / "pipelines/plans/tiny.yaml").write_text(PLAN.replace("mine", "1/4"))
    if not without:
        subprocess.run(["git", "init", "--quiet", str(tiny_project.root)], check=True)
    said = u2pl("plan", "tiny", cwd=tiny_project.root).stdout
    assert ("is no git repository, without which DVC does nothing" in said) == says
    (tiny_project.root / ".dvc").mkdir()
    ran = u2pl("plan", "run", cwd=tiny_project.root) if without else None
    assert ran is None or (ran.returncode == 1 and "git init" in ran.stderr)


def test_a_seed_that_was_said_holds_until_another_is_said(
    tiny_project: Project, u2pl: Callable[..., subprocess.CompletedProcess[str]]
):
    folder = tiny_project.split("tiny", "1/8")

    def prepared(*words: str) -> dict[str, bytes]:
        done = u2pl("prepare", "--dataset", "tiny", "--split", "1/8", *words, cwd=tiny_project.root)
        assert done.returncode == 0, done.stderr
        return lists(folder)

    by_default, by_seven = prepared(), prepared("--seed", "7")
    assert by_default["labeled.txt"] != by_seven["labeled.txt"]
    assert prepared() == by_seven
    assert prepared("--seed", "2") == by_default
