"""A trained network in real MLflow stores: logged once, called and served, registered."""

import base64
import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pytest
from PIL import Image
from tiny import trained_copy
from tracking.mlflow_server import answers, free_port, wait_until

import u2pl
from u2pl.errors import UserError
from u2pl.exchange import model_file
from u2pl.files import read_json, write_json
from u2pl.project import Project
from u2pl.tracking import models, store
from u2pl.tracking.mirror import Store, register_best, sync

pytestmark = [
    pytest.mark.mlflow,
    # MLflow asks SQLAlchemy for a loader that SQLAlchemy is about to retire.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"),
]

NAME = "tiny-1_4-suponly-s0"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "U2PL_TRACKING", "U2PL_ROOT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in store.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def mirrored(tiny_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with one finished run that was mirrored twice; not to be changed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        project = trained_copy(tiny_template, tmp_path_factory.mktemp("models") / "project", "suponly")
        patch.delenv("U2PL_TRACKING", raising=False)
        for name, value in store.ENVIRONMENT.items():
            patch.setenv(name, value)
        for _ in range(2):
            summary = sync(project)
            assert (summary.problems, summary.notes, summary.runs) == ([], [], 1)
    return project


@pytest.fixture
def project(mirrored: Project, tmp_path: Path) -> Project:
    """A copy of its run in a project of the test's own, not mirrored yet."""
    for folder in ("runs", "data"):
        shutil.copytree(
            mirrored.root / folder, tmp_path / folder, ignore=shutil.ignore_patterns("tracking*", "*.lock")
        )
    for file in ("params.yaml", "dvc.yaml"):
        shutil.copy(mirrored.root / file, tmp_path)
    return Project(tmp_path)


def only_run(opened: Store) -> Any:
    (run,) = opened.client.search_runs([opened.experiment], "tags.`u2pl.kind` = 'run'")
    return run


def logged(opened: Store) -> list[Any]:
    return list(opened.client.search_logged_models([opened.experiment]))


def picture(project: Project) -> Path:
    return min((project.runs / NAME / "samples").glob("*.input.png"))


def expected(project: Project, tmp_path: Path) -> np.ndarray:
    file = model_file.write_of_run(project, project.runs / NAME, tmp_path / "expected.u2pl")
    return u2pl.load(file, "cpu").predict(picture(project)).classes


def test_a_finished_run_has_one_model_however_often_it_is_mirrored(mirrored: Project):
    opened = Store(mirrored)
    (model,) = logged(opened)
    run = only_run(opened)
    assert run.data.tags[models.MODEL] == model.model_id and str(model.status) == "READY"
    assert model.source_run_id == run.info.run_id and model.params["method"] == "suponly"
    assert [output.model_id for output in run.outputs.model_outputs] == [model.model_id]
    miou = read_json(mirrored.runs / NAME / "metrics.json")["miou"]["reported"]
    (score,) = model.metrics
    assert (score.key, score.value) == ("miou_reported", miou)
    validation = run.inputs.dataset_inputs[-1].dataset
    digests = {each.dataset.digest: {t.key: t.value for t in each.tags} for each in run.inputs.dataset_inputs}
    assert digests[score.dataset_digest]["mlflow.data.context"] == "validation"
    assert score.dataset_name == validation.name == "tiny"
    history = opened.client.get_metric_history(run.info.run_id, "miou_reported")
    assert [point.value for point in history] == [miou]


def test_its_data_set_is_an_input_with_the_digest_of_the_fingerprint(mirrored: Project):
    run = only_run(Store(mirrored))
    found = {
        next(tag.value for tag in each.tags if tag.key == "mlflow.data.context"): each
        for each in run.inputs.dataset_inputs
    }
    assert found.keys() == {"training", "validation"}
    training = found["training"]
    data = read_json(mirrored.runs / NAME / "run.json")["facts"]["data"]
    assert data.startswith(training.dataset.digest) and len(training.dataset.digest) == 12
    tags = {tag.key: tag.value for tag in training.tags}
    assert (tags["split"], tags["labeled"], tags["unlabeled"]) == ("1/4", "4", "12")
    assert json.loads(training.dataset.profile) == {"num_rows": 16, "labeled": 4, "unlabeled": 12}
    source = Path(json.loads(training.dataset.source)["uri"])
    assert source.is_dir() and (source / "images").is_dir()

    import mlflow.data

    assert mlflow.data.get_source(training).load() == str(source)


def test_the_model_takes_the_bytes_of_a_picture_and_says_what_u2pl_says(
    mirrored: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import mlflow
    import pandas as pd

    opened = Store(mirrored)
    (model,) = logged(opened)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", opened.uri)
    loaded = mlflow.pyfunc.load_model(f"models:/{model.model_id}")
    assert loaded.metadata.signature.inputs.input_names() == ["image"]
    assert loaded.metadata.signature.outputs.input_names() == ["mask", "classes", "pixels"]
    assert loaded.input_example["image"][0] == picture(mirrored).read_bytes()
    found = loaded.predict(pd.DataFrame({"image": [picture(mirrored).read_bytes()] * 2}))
    classes = expected(mirrored, tmp_path)
    for row in found.to_dict("records"):
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(row["mask"]))), classes)
        assert row["classes"] == ["ground", "square", "disc", "bar"]
        assert row["pixels"] == [int((classes == index).sum()) for index in range(4)]
    assert loaded.predict(loaded.input_example)["mask"][0] == found["mask"][0]
    with pytest.raises(UserError, match="Picture 0 cannot be read"):
        loaded.predict(pd.DataFrame({"image": [b"no picture"]}))


def test_its_files_are_a_copy_of_the_network_and_its_card_and_no_source(mirrored: Project):
    opened = Store(mirrored)
    (model,) = logged(opened)
    folder = Path(model.artifact_location.removeprefix("file://"))
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {"MLmodel", "README.md", "input_example.json", f"data/{NAME}.u2pl"} <= files
    assert not [file for file in files if file.endswith(".py")]
    assert (folder / "README.md").read_text().startswith(f"# {NAME}")
    needed = (folder / "requirements.txt").read_text().splitlines()
    assert [line.partition("==")[0] for line in needed] == ["mlflow", "u2pl"]


def test_what_a_killed_process_left_of_a_model_gives_way_to_a_whole_one(project: Project):
    opened = Store(project)
    folder = project.runs / NAME
    run_id = opened.mirror(folder)
    opened.client.create_logged_model(opened.experiment, "half", run_id)
    opened.mirror_model(folder)
    (model,) = logged(opened)
    assert model.name == NAME and str(model.status) == "READY"
    # Killed after the model was whole, before the run said so.
    opened.client.delete_tag(run_id, models.MODEL)
    opened.mirror_model(folder)
    assert [each.model_id for each in logged(opened)] == [model.model_id]
    assert opened.client.get_run(run_id).data.tags[models.MODEL] == model.model_id


def test_models_can_be_left_out(project: Project, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("U2PL_TRACKING", "no-models")
    assert sync(project).problems == []
    assert logged(Store(project)) == []
    with pytest.raises(UserError, match=r"U2PL_TRACKING=no-models\. Unset that"):
        register_best(project, "tiny", [NAME])
    monkeypatch.delenv("U2PL_TRACKING")
    assert sync(project).problems == []
    assert len(logged(Store(project))) == 1


def test_a_network_that_cannot_be_read_is_a_note_and_no_failure(project: Project):
    (project.runs / NAME / "weights.pt").write_text("damaged")
    summary = sync(project)
    assert summary.problems == [] and summary.runs == 1
    (note,) = summary.notes
    assert note.startswith(f"The model of {NAME} was not logged: ")
    assert logged(Store(project)) == []


# ---- registering -----------------------------------------------------------------------------------------


def result(project: Project, name: str, miou: float, **changes: Any) -> None:
    """A copy of the finished run with another result."""
    folder = project.runs / name
    shutil.copytree(project.runs / NAME, folder)
    uid = f"{abs(hash(name)):032x}"[-32:]
    write_json(folder / "run.json", read_json(folder / "run.json") | {"name": name, "uid": uid} | changes)
    metrics = read_json(folder / "metrics.json") | {"name": name} | changes
    metrics["miou"] = metrics["miou"] | {"reported": miou}
    write_json(folder / "metrics.json", metrics)


@pytest.fixture
def u2pl_command(project: Project, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    from u2pl_cli.app import run

    monkeypatch.setenv("U2PL_ROOT", str(project.root))
    return lambda *words: run(list(words))


def test_one_flag_registers_the_best_run_and_does_so_once(project: Project, u2pl_command, capsys):
    result(project, "better", 99.0)
    for _ in range(2):
        assert u2pl_command("track", "sync", "--register", "tiny") == 0
        assert "better (99.00 % mIoU) is models:/tiny@best, version 1." in capsys.readouterr().out
    opened = Store(project)
    version = opened.client.get_model_version_by_alias("tiny", "best")
    run = opened.client.get_run(version.run_id)
    assert run.info.run_name == "better" and version.source == f"models:/{run.data.tags[models.MODEL]}"
    assert len(opened.client.search_model_versions("name = 'tiny'")) == 1

    result(project, "best", 99.5)
    assert u2pl_command("track", "sync", "--register", "tiny") == 0
    assert "best (99.50 % mIoU) is models:/tiny@best, version 2." in capsys.readouterr().out
    # Of the runs that are named, though another is better.
    assert u2pl_command("track", "sync", NAME, "better", "--register", "tiny") == 0
    assert "better (99.00 % mIoU) is models:/tiny@best, version 1." in capsys.readouterr().out


def test_the_best_of_the_active_plan_is_one_of_its_finished_runs(project: Project, u2pl_command, capsys):
    from u2pl_cli.track import _candidates

    from u2pl.pipeline import planned_names, resolve

    result(project, "not-of-the-plan", 99.0)
    (project.pipelines / "plans").mkdir(parents=True)
    (project.pipelines / "tables").mkdir()
    (project.pipelines / "plans" / "own.yaml").write_text(
        "dataset: tiny\nseeds: [0, 1]\ntables: {methods: {splits: {classic-1/8: 1/4}, rows: [SupOnly]}}\n"
    )
    tables = Path(__file__).parents[2] / "pipelines" / "tables"
    shutil.copy(tables / "methods.yaml", project.pipelines / "tables")
    plan = resolve(project, "own")
    assert sorted(planned_names(project, plan).values()) == [NAME, "tiny-1_4-suponly-s1"]
    plan.write(project)
    assert _candidates(project) == [NAME]
    (project.runs / NAME / "metrics.json").unlink()
    assert set(_candidates(project)) == {NAME, "not-of-the-plan"}


def test_runs_that_cannot_be_compared_have_no_best(project: Project, u2pl_command, capsys):
    result(project, "other", 99.0, dataset="other")
    assert u2pl_command("track", "sync", "--register", "x") == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "no mIoU of one is better than one of another" in said
    assert "u2pl track sync RUN RUN --register NAME" in said


def test_without_a_finished_run_there_is_no_best(project: Project):
    (project.runs / NAME / "weights.pt").unlink()
    with pytest.raises(UserError, match="None of these runs has finished"):
        register_best(project, "tiny", [NAME])


def test_a_name_that_mlflow_does_not_take_is_a_sentence(project: Project):
    with pytest.raises(UserError, match=r"was not registered as 'a/b': .*Take a name without / and :"):
        register_best(project, "a/b", [NAME])


# ---- served, and beside training ---------------------------------------------------------------------------


@pytest.fixture
def scoring(mirrored: Project, tmp_path: Path) -> Iterator[str]:
    """`mlflow models serve` on loopback, with the packages of this environment."""
    (model,) = logged(Store(mirrored))
    port = free_port()
    # It starts uvicorn by its name, which a test environment need not have among its commands.
    (tmp_path / "uvicorn").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m uvicorn "$@"\n')
    (tmp_path / "uvicorn").chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "MLFLOW_TRACKING_URI": f"sqlite:///{mirrored.root}/mlflow.db",
    }
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", f"models:/{model.model_id}"]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    with (
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True) as process,
    ):
        try:
            wait_until(lambda: answers(f"http://127.0.0.1:{port}/ping"), 180)
            yield f"http://127.0.0.1:{port}/invocations"
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def ask(address: str, content: bytes) -> Any:
    body = {"dataframe_records": [{"image": base64.b64encode(content).decode()}]}
    request = urllib.request.Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


@pytest.mark.slow
def test_the_model_is_served_on_loopback(mirrored: Project, scoring: str, tmp_path: Path):
    (row,) = ask(scoring, picture(mirrored).read_bytes())["predictions"]
    mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(row["mask"]))))
    assert np.array_equal(mask, expected(mirrored, tmp_path))
    assert row["classes"] == ["ground", "square", "disc", "bar"] and sum(row["pixels"]) == 64 * 64
    with pytest.raises(urllib.error.HTTPError) as refused:
        ask(scoring, b"no picture")
    assert refused.value.code == 400 and b"Picture 0 cannot be read" in refused.value.read()
    refused.value.close()


@pytest.mark.slow
def test_a_training_leaves_its_model_and_the_load_of_the_machine_by_itself(
    tiny_project: Project, monkeypatch: pytest.MonkeyPatch
):
    words = ["train", "--dataset", "tiny", "--split", "1/4", "--method", "suponly"]
    done = forked.run(*words, cwd=tiny_project.root, environment=os.environ | {"U2PL_TRACKING": ""})
    assert done.returncode == 0, done.stderr
    opened = Store(tiny_project)
    wait_until(lambda: models.MODEL in only_run(opened).data.tags, 180)
    assert (tiny_project.runs / NAME / "tracking.log").read_text() == ""
    run = only_run(opened)
    assert run.info.status == "FINISHED"
    sampled = (tiny_project.runs / NAME / "system.jsonl").read_text().splitlines()
    history = opened.client.get_metric_history(run.info.run_id, "system/trainer_memory_megabytes")
    assert len(sampled) == len(history) >= 1
    before = (len(logged(opened)), run.data.tags, run.data.metrics)
    assert sync(tiny_project).problems == []
    run = only_run(opened)
    assert (len(logged(opened)), run.data.tags, run.data.metrics) == before
