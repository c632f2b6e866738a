"""Runs that are removed, brought back and deleted for good, and what a killed process leaves of that."""

import shutil
from pathlib import Path

import filelock
import pytest
import written

from u2pl.errors import UserError
from u2pl.files import write_json
from u2pl.project import Project
from u2pl.runs import disk, removal
from u2pl.runs.folder import RunFolder


def make(project: Project, name: str, word: str = "weights") -> Path:
    folder = project.runs / name
    write_json(folder / "run.json", written.run(name))
    for file in ("weights.pt", "lock", "holder"):
        (folder / file).write_text(word)
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_a_removed_run_is_gone_and_comes_back_whole(project: Project):
    folder = make(project, "a.2")
    removal.remove(project, folder)
    assert not folder.exists()
    assert list(project.runs.glob("*/run.json")) == []
    assert removal.restore(project, "a.2") == folder
    assert (folder / "weights.pt").read_text() == "weights"
    assert not (folder / "holder").exists()
    assert removal.removed_runs(project) == {}
    with pytest.raises(UserError, match="no removed run"):
        removal.restore(project, "a.2")


def test_of_several_of_one_name_the_last_comes_back_first(project: Project):
    for word in ("1", "2"):
        removal.remove(project, make(project, "a", word))
    make(project, "a", "3")
    with pytest.raises(UserError, match="another a now"):
        removal.restore(project, "a")
    shutil.rmtree(project.runs / "a")
    assert (removal.restore(project, "a") / "weights.pt").read_text() == "2"
    shutil.rmtree(project.runs / "a")
    assert (removal.restore(project, "a") / "weights.pt").read_text() == "1"
    with pytest.raises(UserError, match="no removed run"):
        removal.restore(project, "a")


def test_a_name_that_was_not_removed_is_told_the_nearest(project: Project):
    removal.remove(project, make(project, "run-s0"))
    with pytest.raises(UserError, match="Did you mean 'run-s0'"):
        removal.restore(project, "run-s1")


def test_what_another_process_holds_is_not_removed(project: Project):
    folder = make(project, "a")
    (folder / "holder").write_text("here 77")
    with (
        filelock.FileLock(folder / "lock"),
        pytest.raises(UserError, match=r"trained right now \(process 77 on here\)"),
    ):
        removal.remove(project, folder)
    assert (folder / "weights.pt").exists()


def test_the_name_is_free_for_a_new_run_at_once(project: Project):
    removal.remove(project, make(project, "a"))
    whole = written.run("a")
    described = {key: value for key, value in whole.items() if key not in ("uid", "created", "tags")}
    folder = RunFolder.claim(project, "a", described, fresh=False)
    assert folder.begun and not (folder.path / "weights.pt").exists()
    folder.release()


def test_a_deletion_that_is_cut_off_leaves_no_half_run(project: Project, monkeypatch: pytest.MonkeyPatch):
    target = removal.remove(project, make(project, "a"))

    def killed(path: Path) -> None:
        (path / "weights.pt").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(removal.shutil, "rmtree", killed)
        removal.delete(project, target)
    assert removal.removed_runs(project) == {}
    (left,) = removal.half_deleted(project)
    removal.delete(project, left)
    assert list(project.runs.iterdir()) == []


def test_a_link_is_deleted_and_not_what_it_leads_to(project: Project, tmp_path: Path):
    elsewhere = make(Project(tmp_path / "elsewhere"), "a")
    project.runs.mkdir()
    (project.runs / "a").symlink_to(elsewhere)
    removal.delete(project, removal.remove(project, project.runs / "a"))
    assert (elsewhere / "weights.pt").is_file()
    assert removal.removed_runs(project) == {}


def test_sizes_are_those_of_files_and_links_are_not_followed(tmp_path: Path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "x").write_bytes(bytes(1000))
    (tmp_path / "a" / "b" / "y").write_bytes(bytes(500))
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path)
    link = (tmp_path / "a" / "b" / "up").lstat().st_size
    assert disk.size(tmp_path / "a") == 1500 + link
    assert disk.size(tmp_path / "a" / "x") == 1000
    assert disk.size(tmp_path / "nowhere") == 0


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (999_600, "1.0 MB"),
        (34_560_000, "34.6 MB"),
        (2e12, "2.0 TB"),
    ],
)
def test_sizes_in_words(count: int, words: str):
    assert disk.in_words(count) == words


def test_the_checkpoints_are_what_going_on_alone_needs(tmp_path: Path):
    for name in (
        "weights.pt",
        "best.pt",
        "last.pt",
        "last.pt.previous",
        "weights.pt.previous",
        "last.pt.new",
    ):
        (tmp_path / name).touch()
    found = [path.name for path in disk.checkpoints(tmp_path)]
    assert found == ["last.pt", "last.pt.new", "last.pt.previous", "weights.pt.previous"]
