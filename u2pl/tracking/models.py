"""Finished runs as MLflow models: logged once, from a process of their own; the best of them registered."""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from u2pl.errors import UserError
from u2pl.project import Project
from u2pl.runs.records import Metrics, Run, is_complete, read_metrics, read_run
from u2pl.tracking.addresses import HidingStream
from u2pl.tracking.store import default_uri, models_enabled, only_store, patience

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, LoggedModel
    from mlflow.tracking import MlflowClient

MODEL = "u2pl.model"
"""Tag of a run in MLflow: id of its model there."""
ALIAS = "best"
LONGEST_SECONDS = 900
"""After which a process that logs a model gives up; `sync` makes up for it."""
_LOADER = "u2pl.exchange.served"


def due(folder: Path) -> bool:
    """Whether a run folder has a network to be logged, and that is wanted; whether it was already is not asked."""
    return models_enabled() and is_complete(folder)


def log_in_background(project: Project, folder: Path) -> None:
    """Log the model of a finished run from a process that nobody waits for, in a session of its own.

    Neither the training nor the stage of a pipeline that it is part of lasts until it is done.
    """
    command = [sys.executable, "-m", "u2pl.tracking.models", str(folder), "--project", str(project.root)]
    with (folder / "tracking.log").open("ab") as log:
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)


def log_model(
    client: "MlflowClient",
    experiment: str,
    project: Project,
    folder: Path,
    run_id: str,
    validation: "DatasetInput | None",
) -> None:
    """Log the network of a finished run as a model of its MLflow run, unless it has one.

    Args:
        client: the store.
        experiment: id of the experiment.
        project: where the classes of the run's data set are known.
        folder: the run's.
        run_id: its MLflow run.
        validation: the input that its mIoU was measured on.

    Raises:
        UserError: the network cannot be read, or its classes are not known here. Or whatever MLflow raises.
    """
    with FileLock(folder / "tracking-model.lock"):
        if MODEL in client.get_run(run_id).data.tags:
            return
        run, metrics = read_run(folder), read_metrics(folder)
        model_id = _complete(client, experiment, run_id)
        if model_id is None:
            model_id = _upload(client, experiment, project, folder, run, metrics, run_id)
        _score(client, model_id, run_id, metrics, validation)
        client.set_tag(run_id, MODEL, model_id)


def _complete(client: "MlflowClient", experiment: str, run_id: str) -> str | None:
    """The model that the run has already, all of it; what a killed process left of one is deleted."""
    found = None
    for model in client.search_logged_models([experiment], f"source_run_id = '{run_id}'"):
        if str(model.status) == "READY":
            found = model.model_id
        else:
            client.delete_logged_model(model.model_id)
    return found


def _upload(
    client: "MlflowClient",
    experiment: str,
    project: Project,
    folder: Path,
    run: Run,
    metrics: Metrics,
    run_id: str,
) -> str:
    from mlflow.entities import LoggedModelOutput

    from u2pl.exchange import model_file  # not above: a side process that logs none need not load numpy

    with tempfile.TemporaryDirectory() as temporary:
        # First what may fail: the store is to have no model without files.
        file = model_file.default_path(folder)
        made = model_file.write_of_run(
            project, folder, None if file.is_file() else Path(temporary) / file.name
        )
        facts = model_file.read_facts(made)
        params = {key: str(run[key]) for key in ("dataset", "split", "method", "seed")}
        model = client.create_logged_model(
            experiment, _model_name(run["name"]), run_id, {"u2pl.name": run["name"]}, params, "segmentation"
        )
        target = Path(temporary) / "model"
        metadata = {"classes": facts["classes"], "run": run["name"], "miou": metrics["miou"]["reported"]}
        _save(target, made, _example(folder), metadata, model)
        (target / "README.md").write_text(facts["card"], encoding="utf-8")
        with patience():
            client.log_model_artifacts(model.model_id, str(target))
    client.finalize_logged_model(model.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=metrics["steps"])])
    return str(model.model_id)


def _save(target: Path, file: Path, example: Any, metadata: dict[str, Any], model: "LoggedModel") -> None:
    """Write what MLflow calls a model into a folder: a copy of the model file, and what says how it is called."""
    with warnings.catch_warnings():
        # What MLflow warns of here are its own classes, and what pandas thinks of its code.
        warnings.simplefilter("ignore")
        import mlflow.pyfunc
        from mlflow.models import Model

        about = Model(
            artifact_path=model.artifact_location,
            run_id=model.source_run_id,
            model_uuid=model.model_id,
            model_id=model.model_id,
        )
        mlflow.pyfunc.save_model(
            str(target),
            loader_module=_LOADER,
            data_path=str(file),
            mlflow_model=about,
            signature=signature(),
            input_example=example,
            pip_requirements=[f"u2pl=={version('u2pl')}"],
            metadata=metadata,
        )


def signature() -> Any:
    """What a served model takes and gives: see `u2pl.exchange.served`."""
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Array, ColSpec, DataType, Schema, TensorSpec

    from u2pl.exchange.served import CLASSES, IMAGE, MASK, PIXELS

    out: list[ColSpec | TensorSpec] = [
        ColSpec(DataType.binary, MASK),
        ColSpec(Array(DataType.string), CLASSES),
        ColSpec(Array(DataType.long), PIXELS),
    ]
    return ModelSignature(Schema([ColSpec(DataType.binary, IMAGE)]), Schema(out))


def _example(folder: Path) -> Any:
    """A validation picture as it is to be sent; a grey one where the run kept none."""
    import io

    import pandas as pd
    from PIL import Image

    from u2pl.exchange.served import IMAGE

    pictures = sorted((folder / "samples").glob("*.input.png"))
    if pictures:
        content = pictures[0].read_bytes()
    else:
        encoded = io.BytesIO()
        Image.new("RGB", (64, 64), "grey").save(encoded, format="PNG")
        content = encoded.getvalue()
    return pd.DataFrame({IMAGE: [content]})


def _score(
    client: "MlflowClient", model_id: str, run_id: str, metrics: Metrics, validation: "DatasetInput | None"
) -> None:
    """Let the model have the mIoU that the run has, so that the page can sort models by it."""
    from mlflow.entities import Metric

    miou = metrics["miou"]["reported"]
    known = next((m for m in client.get_metric_history(run_id, "miou_reported") if m.value == miou), None)
    if miou is None or known is None:
        return
    of = validation and {
        "dataset_name": validation.dataset.name,
        "dataset_digest": validation.dataset.digest,
    }
    about: dict[str, Any] = {"model_id": model_id, "run_id": run_id, **(of or {})}
    point = Metric(known.key, known.value, known.timestamp, known.step, **about)
    client.log_batch(run_id, [point])


def _model_name(name: str) -> str:
    """A run's name as MLflow takes it for a model's."""
    return "".join("_" if character in "/:.%\"'" else character for character in name)


def best_of(folders: Sequence[Path]) -> tuple[Path, float]:
    """The finished run of the highest mIoU, and that.

    Raises:
        UserError: none has finished, or they were scored on different images.
    """
    found: list[tuple[float, Path, tuple[str, str]]] = []
    for folder in folders:
        if not is_complete(folder):
            continue
        metrics = read_metrics(folder)
        if (miou := metrics["miou"]["reported"]) is not None:
            found.append((miou, folder, (metrics["dataset"], metrics["protocol"]["evaluation"])))
    if not found:
        raise UserError("None of these runs has finished, so none is the best. Train one: u2pl train")
    kinds = sorted({kind for _, _, kind in found})
    if len(kinds) > 1:
        names = ", ".join(f"{dataset} ({evaluation})" for dataset, evaluation in kinds)
        raise UserError(
            f"These runs were scored on different images or in different ways, {names}: no mIoU of one is better than "
            "one of another. Name the runs to choose from: u2pl track sync RUN RUN --register NAME"
        )
    miou, folder, _ = max(found, key=lambda item: (item[0], item[1].name))
    return folder, miou


def register(client: "MlflowClient", name: str, run_id: str) -> str:
    """Make the model of an MLflow run a version of the registered model `name`, with the alias `best`; which version.

    A model that is a version of it already stays that one.

    Raises:
        UserError: the run has no model. Or whatever MLflow raises, as of a name that it does not take.
    """
    from mlflow.exceptions import MlflowException

    model_id = client.get_run(run_id).data.tags.get(MODEL)
    if model_id is None:
        raise UserError(
            "its model is not in the store, which takes none with U2PL_TRACKING=no-models. Unset that"
        )
    try:
        client.get_registered_model(name)
    except MlflowException:
        client.create_registered_model(name)
    known = [v for v in client.search_model_versions(f"run_id = '{run_id}'") if v.name == name]
    if known:
        made = known[0]
    else:
        # A database asks for the model in its own way, see MLflow's SqlAlchemyStore.create_model_version.
        with only_store(client.tracking_uri):
            made = client.create_model_version(name, f"models:/{model_id}", run_id, model_id=model_id)
    client.set_registered_model_alias(name, ALIAS, made.version)
    return str(made.version)


def _main() -> int:
    from u2pl.tracking.mirror import Store, reason

    parser = argparse.ArgumentParser(
        prog="python -m u2pl.tracking.models", description="Log the model of a finished run."
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--project", type=Path, required=True)
    arguments = parser.parse_args()
    project = Project(arguments.project)
    sys.stdout, sys.stderr = (HidingStream(each, default_uri(project)) for each in (sys.stdout, sys.stderr))
    os.setpriority(os.PRIO_PROCESS, 0, 15)
    signal.alarm(LONGEST_SECONDS)
    try:
        Store(project).mirror_model(arguments.folder)
    except Exception as error:
        print(f"The model was not logged: {reason(error, default_uri(project))}; run: u2pl track sync")
        return 1
    finally:
        sys.stdout.close()
        sys.stderr.close()
    return 0


if __name__ == "__main__":
    os._exit(_main())
