import json
import subprocess
from pathlib import Path

import pytest
from u2pl_cli.app import run

import u2pl.pipeline.new_project as new_project
from u2pl.errors import UserError
from u2pl.project import Project
from u2pl.settings import RECIPE_VERSION, Params
from u2pl.settings.project_record import RECORD

ROOT = Path(__file__).parents[2]


@pytest.fixture
def made(tmp_path: Path) -> Project:
    new_project.make(tmp_path / "mine")
    return Project(tmp_path / "mine")


def test_a_new_project_has_the_repositorys_settings_and_git_and_dvc(made: Project) -> None:
    for name in ("params.yaml", "dvc.yaml", "pipelines/plan.yaml", "pipelines/tables/table1.yaml"):
        assert (made.root / name).read_text() == (ROOT / name).read_text()
    assert (made.root / ".git").is_dir() and (made.root / ".dvc/config").is_file()
    assert "/runs/" in (made.root / ".gitignore").read_text()
    assert Project.find(made.root / "pipelines") == made
    record = json.loads((made.root / RECORD).read_text())
    assert record["recipe_version"] == RECIPE_VERSION and "params.yaml" in record["files"]


def test_its_example_describes_a_data_set_that_can_be_read(made: Project) -> None:
    from u2pl.data.description import read_description

    assert read_description(made.root / "example.yaml").classes == ["background", "water", "boat"]


def test_a_folder_in_somebodys_repository_gets_no_other_one(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    made = new_project.make(tmp_path / "below")
    assert made.notes == [] and not (tmp_path / "below/.git").exists()
    assert (tmp_path / "below/.dvc").is_dir()


def test_nothing_that_is_there_is_replaced(
    made: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["init", str(made.root)]) == 2
    assert "holds a project already" in capsys.readouterr().err
    other = tmp_path / "other"
    other.mkdir()
    (other / "params.yaml").write_text("mine: 1\n")
    assert run(["init", str(other)]) == 2
    assert (other / "params.yaml").read_text() == "mine: 1\n" and len(list(other.iterdir())) == 1
    (tmp_path / "file").touch()
    assert run(["init", str(tmp_path / "file")]) == 2
    (other / "params.yaml").unlink()
    (other / ".gitignore").write_text("*.bak\n")
    assert run(["init", str(other)]) == 0
    assert (other / ".gitignore").read_text().startswith("*.bak\n# What u2pl")


def test_another_version_of_the_settings_is_a_sentence_until_it_is_taken_over(
    made: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = (made.root / "params.yaml").read_text().replace("batch: 16", "batch: 12")
    (made.root / "params.yaml").write_text(mine)
    newer = {
        name: text.replace("M: 50", "M: 60").replace("TABLE", "Table")
        for name, text in new_project.template().items()
    }
    newer["pipelines/tables/methods.yaml"] += "# new\n"
    record = json.loads((made.root / RECORD).read_text())
    (made.root / RECORD).write_text(json.dumps(record | {"recipe_version": RECIPE_VERSION - 1}))
    with pytest.raises(UserError, match="whose settings may give other numbers now"):
        Params.read(made)
    monkeypatch.setattr(new_project, "template", lambda: newer)
    monkeypatch.chdir(made.root)
    assert run(["init", "--upgrade"]) == 0
    said = capsys.readouterr().out
    assert "params.yaml (you have changed this file):" in said and "+# new" in said
    assert (made.root / "params.yaml").read_text() == mine
    with pytest.raises(UserError):
        Params.read(made)
    assert run(["init", "--upgrade", "--yes"]) == 0
    assert (made.root / "params.yaml").read_text() == mine
    assert (made.root / "params.yaml.new").read_text() == newer["params.yaml"]
    assert (made.root / "pipelines/tables/methods.yaml").read_text().endswith("# new\n")
    Params.read(made)


def test_a_clone_is_no_project_that_can_be_upgraded(project: Project) -> None:
    with pytest.raises(UserError, match="was not made by u2pl init"):
        new_project.changes(project)
