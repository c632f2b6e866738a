"""Where suggestions go, and that what was cut off leaves nothing."""

import os
from pathlib import Path

import pytest

from u2pl.errors import UsageError, UserError
from u2pl.labeling import suggestion
from u2pl.project import Project


def test_each_suggestion_has_a_folder_of_its_own(project: Project, tmp_path: Path) -> None:
    made = [suggestion._reserved(project, "run", None) for _ in range(3)]
    assert [folder.name for folder in made] == ["run", "run-2", "run-3"]
    assert suggestion._reserved(project, "run", tmp_path / "a/b") == tmp_path / "a/b"
    (tmp_path / "a/b/mine.txt").touch()
    for path in (tmp_path / "a/b", tmp_path / "a/b/mine.txt"):
        with pytest.raises(UsageError, match="not empty"):
            suggestion._reserved(project, "run", path)


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
