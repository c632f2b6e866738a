"""Runs that are set aside and taken back, killed in between at every place."""

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import written

from u2pl.errors import UserError
from u2pl.files import free, write_json
from u2pl.project import Project
from u2pl.runs import set_aside
from u2pl.runs.folder import RunFolder

A, B = "a" * 16, "b" * 16
FILES = (
    "best.pt",
    "events.jsonl",
    "history.csv",
    "labeled.txt",
    "metrics.json",
    "settings.yaml",
    "weights.pt",
)


class Killed(BaseException):
    pass


def claim(project: Project, fingerprint: str, *, fresh: bool = True) -> RunFolder:
    whole = written.run("run", fingerprint=fingerprint)
    description = {key: value for key, value in whole.items() if key not in ("uid", "created", "tags")}
    return RunFolder.claim(project, "run", description, fresh=fresh)


def finish(folder: RunFolder, word: str) -> None:
    """Write all that a finished run leaves, each file with a word in it."""
    for name in FILES:
        (folder.path / name).write_text(word + "\n")
    run = folder.run()
    assert run is not None
    write_json(folder.path / "metrics.json", written.metrics(run))
    (folder.path / "samples").mkdir()
    (folder.path / "samples" / "a.input.png").write_text(word)
    folder.release()


def holds(folder: Path, word: str) -> bool:
    """Whether all that a finished run has left lies in a folder."""
    named = [name for name in FILES if name != "metrics.json"]
    return all(
        (folder / name).is_file() and (folder / name).read_text() == word + "\n" for name in named
    ) and ((folder / "samples" / "a.input.png").read_text() == word and (folder / "metrics.json").is_file())


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """In which run A has finished, was set aside for B, and that has finished too."""
    project = Project(tmp_path)
    finish(claim(project, A), "A")
    finish(claim(project, B), "B")
    return project


def test_going_back_takes_the_finished_run_back_at_once(project: Project):
    folder = claim(project, A)
    assert holds(folder.path, "A")
    assert folder.is_finished()
    folder.release()
    assert holds(project.runs / ".old" / f"run-{B}", "B")
    assert holds(claim(project, B).path, "B")
    assert [path.name for path in (project.runs / ".old").iterdir()] == [f"run-{A}"]


def test_without_fresh_nothing_moves(project: Project):
    with pytest.raises(UserError, match="--fresh to set that run aside"):
        claim(project, A, fresh=False)
    assert holds(project.runs / "run", "B")


def killed_after(moves: int, monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> bool:
    """Whether `work` was cut off after so many moves of a file; else it came to its end."""
    left = itertools.count(moves, -1)
    move = shutil.move

    def moving(source: Path, target: Path) -> None:
        if next(left) == 0:
            raise Killed
        move(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(set_aside.shutil, "move", moving)
        try:
            work()
        except Killed:
            return True
    return False


@pytest.mark.parametrize("wanted", [A, B])
@pytest.mark.parametrize("moves", range(19))
def test_killed_between_any_two_moves_neither_run_loses_a_file(
    project: Project, monkeypatch: pytest.MonkeyPatch, moves: int, wanted: str
):
    """The way there and the way back are eighteen moves of nine things each."""
    assert killed_after(moves, monkeypatch, lambda: claim(project, A).release()) == (moves < 18)
    other = {A: B, B: A}[wanted]
    for fingerprint in (wanted, other, wanted):
        folder = claim(project, fingerprint)
        assert holds(folder.path, {A: "A", B: "B"}[fingerprint])
        assert folder.is_finished()
        folder.release()


def test_what_was_trained_twice_is_kept_twice_and_the_finished_one_comes_back(project: Project):
    folder = claim(project, A)
    folder.release()
    shutil.copytree(folder.path, project.runs / ".old" / f"run-{A}")
    (project.runs / ".old" / f"run-{A}" / "weights.pt").unlink()
    claim(project, B).release()
    assert sorted(path.name for path in (project.runs / ".old").iterdir()) == [f"run-{A}", f"run-{A}.2"]
    assert holds(claim(project, A).path, "A")


@pytest.mark.parametrize("whole", [True, False])
def test_a_run_that_was_copied_by_hand_with_its_lock_comes_back(project: Project, whole: bool):
    """Also one whose way back was cut off after run.json."""
    stored = project.runs / ".old" / f"run-{A}"
    for name in ("lock", "holder"):
        (stored / name).write_text("mine")
    claim(project, A).release()
    if not whole:
        stored.mkdir()
        shutil.move(project.runs / "run" / "best.pt", stored)
        (stored / "lock").touch()
        claim(project, A).release()
    assert holds(project.runs / "run", "A") and not stored.exists()
    assert (project.runs / "run" / "holder").read_text() != "mine"


@pytest.mark.parametrize("stray", ["weights.pt", "metrics.json", "last.pt"])
def test_the_files_of_nobody_knows_which_run_become_no_other_runs(tmp_path: Path, stray: str):
    (tmp_path / "runs" / "run").mkdir(parents=True)
    (tmp_path / "runs" / "run" / stray).write_text("x")
    with pytest.raises(UserError, match=rf"holds {stray} of a run, but no run.json"):
        claim(Project(tmp_path), A)
    assert (tmp_path / "runs" / "run" / stray).read_text() == "x"


def test_a_result_of_another_run_finishes_none(project: Project):
    folder = project.runs / "run"
    write_json(folder / "metrics.json", written.metrics(written.run("run", fingerprint=A)))
    with pytest.raises(UserError, match="is the result of another run"):
        RunFolder(folder).is_finished()


def test_a_free_place_is_beside_what_lies_there_also_beside_a_dangling_link(tmp_path: Path):
    path = tmp_path / "a"
    assert free(path) == path
    path.symlink_to(tmp_path / "nowhere")
    assert free(path) == tmp_path / "a.2"
    (tmp_path / "a.2").mkdir()
    assert free(path) == tmp_path / "a.3"
