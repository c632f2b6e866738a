"""Where suggestions go, and that what was cut off leaves nothing."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from u2pl.errors import UsageError, UserError
from u2pl.labeling import suggestion
from u2pl.project import Project


def write(project: Project, out: Path | None = None) -> str:
    """What a suggestion comes to where the pictures are an empty file."""
    with suggestion._reserved(project, "run", out) as (folder, temporary):
        temporary.mkdir()
        (temporary / "list.txt").touch()
        temporary.rename(folder)
    return folder.name


def test_each_suggestion_has_a_folder_of_its_own(project: Project, tmp_path: Path) -> None:
    with suggestion._reserved(project, "run", None) as (first, _):
        assert write(project) == "run-2", "the first is being written"
        assert first.name == "run"
    assert [write(project) for _ in range(2)] == ["run", "run-3"]
    names = {path.name for path in (project.root / "suggestions").iterdir()}
    assert names == {"run", "run-2", "run-3"}, "and nothing hidden"
    (tmp_path / "empty").mkdir()
    assert write(project, tmp_path / "a/b") == "b" and write(project, tmp_path / "empty") == "empty"
    for path in (tmp_path / "a/b", tmp_path / "a/b/list.txt"):
        with pytest.raises(UsageError, match="not empty"):
            write(project, path)
    with (
        suggestion._reserved(project, "run", tmp_path / "c"),
        pytest.raises(UsageError, match="Another u2pl suggest is writing"),
    ):
        write(project, tmp_path / "c")


@pytest.mark.parametrize("out", [None, "next"])
def test_what_a_killed_process_left_is_deleted_and_its_folder_taken(
    project: Project, tmp_path: Path, out: str | None
) -> None:
    place = tmp_path / out if out else None
    killed = f"""
import os, signal
from pathlib import Path
from u2pl.labeling import suggestion
from u2pl.project import Project
with suggestion._reserved(Project(Path({str(project.root)!r})), "run", {place!r}) as (_, temporary):
    (temporary / "masks").mkdir(parents=True)
    os.kill(os.getpid(), signal.SIGKILL)
""".replace("PosixPath", "Path")
    assert subprocess.run([sys.executable, "-c", killed]).returncode == -signal.SIGKILL
    folder = place or project.root / "suggestions/run"
    left = {path.name for path in folder.parent.iterdir() if path.name.startswith(".")}
    assert left == {f".{folder.name}.tmp", f".{folder.name}.lock"}
    assert write(project, place) == folder.name
    assert [path.name for path in folder.iterdir()] == ["list.txt"]
    assert not any(path.name.startswith(".") for path in folder.parent.iterdir())


def test_of_the_finished_runs_the_last_one_is_taken(project: Project) -> None:
    with pytest.raises(UserError, match="no finished run"):
        suggestion.newest_run(project)
    for at, name in enumerate(("b", "a", "unfinished")):
        (project.runs / name).mkdir(parents=True)
        (project.runs / name / "run.json").touch()
        if name != "unfinished":
            (project.runs / name / "weights.pt").touch()
            os.utime(project.runs / name / "weights.pt", (at, at))
    assert suggestion.newest_run(project) == "a"


def test_a_folder_that_is_no_suggestion_is_none_and_a_damaged_one_is_said(tmp_path: Path) -> None:
    assert suggestion.recorded(tmp_path) is None
    (tmp_path / suggestion.RECORD).write_text('{"run": "../../etc"}')
    with pytest.raises(UserError, match="is not what u2pl writes there"):
        suggestion.recorded(tmp_path)
