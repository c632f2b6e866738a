"""A finished run is returned without torch, and refused, set aside or mended as by training itself."""

import shutil
import subprocess
import sys
from pathlib import Path

import filelock
import pytest
from tiny import edit_params, trained_copy

from u2pl.errors import UserError
from u2pl.files import read_json, write_json
from u2pl.project import Project
from u2pl.settings import Params, ResolvedRun
from u2pl.training.finished import take_finished

pytestmark = pytest.mark.slow
RUN = "tiny-1_4-suponly-s0"
WORDS = ["train", "--dataset", "tiny", "--split", "1/4", "--method", "suponly"]
SCRIPT = """
import sys
from u2pl_cli.app import run
status = run(sys.argv[1:])
print(status, [name for name in ("torch", "torchvision", "scipy", "mlflow") if name in sys.modules])
"""


@pytest.fixture(scope="module")
def template(tiny_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with one finished run and its model file."""
    project = trained_copy(tiny_template, tmp_path_factory.mktemp("finished") / "project", "suponly")
    assert started(project)[0].startswith("0 ")
    return project.root


@pytest.fixture
def project(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("U2PL_TRACKING", "none")
    monkeypatch.delenv("U2PL_ROOT", raising=False)
    shutil.copytree(template, tmp_path / "project")
    return Project(tmp_path / "project")


def started(project: Project, *more: str) -> tuple[str, str]:
    """Start the command in a process of its own: status and heavy libraries, and all that it said."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *WORDS, *more], cwd=project.root, capture_output=True, text=True
    )
    assert done.stdout, done.stderr
    return done.stdout.splitlines()[-1], done.stdout + done.stderr


def resolved(project: Project, **overrides: object) -> ResolvedRun:
    params = Params.read(project)
    return params.resolve(params.spec("tiny", "1/4", "suponly", 0, overrides))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_finished_run_is_told_of_without_torch_and_stays_as_it_is(project: Project):
    before = contents(project.runs / RUN)
    status, said = started(project, "--model", "kept.pt")
    assert status == "0 []"
    assert "mIoU" in said and f"u2pl evaluate {RUN}" in said
    assert (project.root / "kept.pt").read_bytes() == before["weights.pt"]
    assert started(project)[0] == "0 []"
    assert {k: v for k, v in contents(project.runs / RUN).items() if k != "holder"} == {
        k: v for k, v in before.items() if k != "holder"
    }


def test_a_model_file_that_is_gone_or_older_is_written_again(project: Project):
    model = project.runs / RUN / f"{RUN}.u2pl"
    model.unlink()
    assert started(project)[0].startswith("0 ['torch'")
    assert model.is_file()


def test_what_a_killed_process_left_is_swept(project: Project):
    (project.runs / RUN / "last.pt").write_bytes(b"left")
    assert take_finished(project, resolved(project), fresh=False) == project.runs / RUN
    assert not (project.runs / RUN / "last.pt").exists()


def test_a_folder_that_another_process_holds_is_refused(project: Project):
    with filelock.FileLock(project.runs / RUN / "lock"):
        status, said = started(project)
    assert status.startswith("1 ")
    assert f"is training {RUN}" in said


@pytest.mark.parametrize("change", ["recipe", "manifest", "result", "weights"])
def test_a_run_of_other_settings_or_data_or_without_its_result_is_none(project: Project, change: str):
    run = resolved(project)
    folder = project.runs / RUN
    if change == "recipe":
        edit_params(project, lambda values: values["recipes"]["tiny"].update(momentum=0.8))
        run = resolved(project)
    elif change == "manifest":
        path = project.split("tiny", "1/4") / "manifest.json"
        write_json(path, read_json(path) | {"source": "another"})
    elif change == "result":
        (folder / "metrics.json").unlink()
    else:
        (folder / "weights.pt").unlink()
    for fresh in (False, True):
        before = contents(folder)
        assert take_finished(project, run, fresh=fresh) is None
        assert contents(folder) == before


def test_edited_lists_are_refused_and_pictures_that_are_gone_are_not_missed(project: Project):
    pictures = project.root / "pictures" / "images"
    pictures.rename(pictures.with_name("away"))
    assert take_finished(project, resolved(project), fresh=False) == project.runs / RUN
    pictures.with_name("away").rename(pictures)
    lists = project.split("tiny", "1/4") / "labeled.txt"
    lists.write_text("".join(lists.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(UserError, match="were edited after"):
        take_finished(project, resolved(project), fresh=False)


def test_a_result_that_is_anothers_is_refused(project: Project):
    path = project.runs / RUN / "run.json"
    write_json(path, read_json(path) | {"fingerprint": "0" * 16})
    status, said = started(project)
    assert status.startswith("1 ")
    assert "holds a run of other settings" in said
