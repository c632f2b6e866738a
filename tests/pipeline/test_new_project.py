import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from tiny import draw_tiny
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


@pytest.mark.slow
def test_the_wheel_is_enough_in_an_empty_folder(tmp_path: Path) -> None:
    """Built, unpacked where nothing else of this repository is, and used there as a new user would."""
    source = tmp_path / "source"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(source)], check=True)
    tracked = subprocess.run(
        ["git", "ls-files", "-o", "-m", "--exclude-standard"], cwd=ROOT, text=True, capture_output=True
    )
    for name in tracked.stdout.splitlines():  # what is not committed yet
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    pip = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
    ]
    subprocess.run([*pip, str(source)], check=True, capture_output=True)
    site = tmp_path / "site"
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    packed = {
        path.relative_to(site / "u2pl/project_files").as_posix()
        for path in (site / "u2pl/project_files").rglob("*")
        if path.is_file()
    }
    assert packed == new_project.template().keys()

    home = tmp_path / "empty"
    home.mkdir()
    draw_tiny(home / "pictures")
    environment = {**os.environ, "PYTHONPATH": str(site), "U2PL_TRACKING": "none", "OMP_NUM_THREADS": "1"}
    environment.pop("U2PL_ROOT", None)

    def u2pl(words: str, folder: Path) -> str:
        command = [sys.executable, "-m", "u2pl_cli", *words.split()]
        done = subprocess.run(command, cwd=folder, env=environment, text=True, capture_output=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    where = subprocess.run(
        [sys.executable, "-c", "import u2pl, u2pl_cli; print(u2pl.__file__, u2pl_cli.__file__)"],
        cwd=home, env=environment, text=True, capture_output=True, check=True,
    )  # fmt: skip
    assert where.stdout.count(str(site)) == 2
    u2pl("init work", home)
    work = home / "work"
    u2pl("prepare --dataset ../pictures/tiny.yaml --split 1/4", work)
    u2pl(
        "train --dataset tiny --split 1/4 --name first --limit-batches 1 --set epochs=2 --set warm_start_epochs=1",
        work,
    )
    u2pl("plan demo", work)
    (home / "first.u2pl").write_bytes((work / "runs/first/first.u2pl").read_bytes())
    u2pl("predict first.u2pl pictures/images --out out", home)
    assert len(list((home / "out/masks").glob("*.png"))) == 20
    u2pl("export first.u2pl --onnx", home)
    assert (home / "first.onnx").is_file()
