"""What earlier versions left on a disk, and this one promises to read: docs/promises.md; keep.py adds a version."""

import json
import shutil
import tarfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from release.keep import KEPT, RUN, TRAIN
from tiny import TINY, edit_params

import u2pl as library
from u2pl.errors import UserError
from u2pl.exchange.model_file import read_facts
from u2pl.files import read_json, write_json
from u2pl.pipeline import new_project
from u2pl.project import Project
from u2pl.settings import FORMERLY, RECIPE_VERSION, Params

VERSIONS = sorted(path.name.removesuffix(".tar.xz") for path in KEPT.glob("*.tar.xz"))
Command = Callable[..., Any]


@pytest.fixture(params=VERSIONS)
def kept(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project of an earlier version, with a prepared split and a finished run."""
    monkeypatch.delenv("U2PL_ROOT", raising=False)
    with tarfile.open(KEPT / f"{request.param}.tar.xz") as archive:
        archive.extractall(tmp_path / "kept", filter="data")
    return Project(tmp_path / "kept")


def is_of_this_recipe(kept: Project) -> bool:
    """Whether its settings mean what they mean now; else commands refuse, and say how to go on.

    Only a new minor version may change that.
    """
    record = read_json(kept.root / ".u2pl.json")
    is_same = record["recipe_version"] == RECIPE_VERSION
    minor = record["version"].rpartition(".")[0]
    assert is_same or minor != library.__version__.rpartition(".")[0], "raise the minor version too"
    return bool(is_same)


def test_this_version_is_among_those_that_are_kept():
    assert library.__version__ in VERSIONS, "python tests/release/keep.py"


@pytest.mark.parametrize("recipe_version", [RECIPE_VERSION - 1, RECIPE_VERSION])
def test_data_frames_have_every_run_whatever_the_recipe(kept: Project, recipe_version: int):
    record = read_json(kept.runs / RUN / "run.json")
    record["facts"]["recipe_version"] = recipe_version
    write_json(kept.runs / RUN / "run.json", record)
    (run,) = library.runs(project=kept.root).to_dict("records")
    metrics = read_json(kept.runs / RUN / "metrics.json")
    assert (run["run"], run["state"], run["miou"]) == (RUN, "done", metrics["miou"]["reported"])
    scores = library.results(project=kept.root)
    found = scores[scores.measure == "iou"].set_index("class").value
    assert found.to_dict() == pytest.approx(metrics["iou"])
    curve = library.history(RUN, project=kept.root)
    assert set(curve.epoch) == {0, 1, 2} and {"val/miou", "train/loss"} <= set(curve.measure)


@pytest.mark.parametrize("lacking", [set(), FORMERLY.keys()], ids=["its own", "older settings"])
def test_a_finished_run_is_still_the_run_of_its_settings_and_its_data(
    kept: Project, lacking: Collection[str], u2pl: Command
):
    """Its fingerprint says so, which is made of all settings, the lists and the pictures.

    A setting that came after a params.yaml was written does what was done before it was there.
    """
    edit_params(kept, lambda values: [values["recipe"].pop(name, None) for name in lacking])
    before = {path: path.read_bytes() for path in (kept.runs / RUN).iterdir() if path.is_file()}
    done = u2pl(*TRAIN.split(), cwd=kept.root)
    if not is_of_this_recipe(kept):
        assert done.returncode == 1 and "u2pl init --upgrade" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    after = {path: path.read_bytes() for path in (kept.runs / RUN).iterdir() if path.is_file()}
    assert {p.name for p in before.keys() | after.keys() if before.get(p) != after.get(p)} <= {
        "holder",
        "lock",
    }
    assert [path.name for path in kept.runs.iterdir() if path.is_dir()] == [RUN]


def test_a_finished_run_can_be_evaluated(kept: Project, u2pl: Command):
    done = u2pl("evaluate", RUN, "--flip", "--json", cwd=kept.root)
    if not is_of_this_recipe(kept):
        assert done.returncode == 1 and "Train it again: u2pl train" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    # Its weights are zero, so that every pixel is of the first class.
    found = json.loads(done.stdout)["iou"]
    assert found["ground"] > 50 and {found[name] for name in ("square", "disc", "bar")} == {0}


def test_a_split_is_drawn_as_it_was(kept: Project, u2pl: Command):
    split = kept.root / "data/tiny/splits/1_4"
    before = {path.name: path.read_text() for path in split.glob("*.txt")}
    shutil.rmtree(split)
    done = u2pl("prepare", "--dataset", "pictures/tiny.yaml", "--split", "1/4", cwd=kept.root)
    if not is_of_this_recipe(kept):
        assert done.returncode == 1 and "u2pl init --upgrade" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    assert {path.name: path.read_text() for path in split.glob("*.txt")} == before
    assert len(before["labeled.txt"].split()) == 4


def test_a_model_file_predicts(kept: Project):
    file = kept.runs / RUN / f"{RUN}.u2pl"
    assert read_facts(file)["classes"] == ["ground", "square", "disc", "bar"]
    if not is_of_this_recipe(kept):
        with pytest.raises(UserError, match="another version of u2pl"):
            library.load(file)
        return
    prediction = library.load(file, "cpu").predict(kept.root / "pictures/images/00.png")
    assert prediction.classes.shape == (64, 64) and not prediction.classes.any()
    assert np.allclose(prediction.probabilities, 0.25)


def test_a_project_can_be_brought_to_this_version(kept: Project, u2pl: Command):
    assert u2pl("init", "--upgrade", "--yes", cwd=kept.root).returncode == 0
    assert read_json(kept.root / ".u2pl.json")["version"] == library.__version__
    assert Params.read(kept).values["recipes"]["tiny"] == TINY  # what is the user's own stays
    assert new_project.changes(kept) == [] or (kept.root / "params.yaml.new").is_file()
