"""A run's data set as MLflow knows inputs: the training images and the validation images, each with a digest."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from u2pl.data.records import Manifest, Source
from u2pl.errors import UserError
from u2pl.files import sha256, sha256_json
from u2pl.project import Project
from u2pl.runs.records import Run
from u2pl.typed_files import read

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

_DIGITS = 12
_CONTEXT = "mlflow.data.context"
_PICTURE = {"type": "tensor", "tensor-spec": {"dtype": "uint8", "shape": [-1, -1, 3]}}
_MASK = {"type": "tensor", "tensor-spec": {"dtype": "uint8", "shape": [-1, -1]}}
_SCHEMA = json.dumps(
    {"mlflow_tensorspec": {"features": json.dumps([_PICTURE]), "targets": json.dumps([_MASK])}}
)


def of_run(project: Project, folder: Path, run: Run) -> "list[DatasetInput]":
    """What the run learned from and what it is judged by; empty where nobody knows, as of some imported runs.

    The digest of the training images is one of what `u2pl prepare` wrote of the split, and part of the run's
    fingerprint: the same digest is the same images and lists.

    Args:
        project: where the data set may be prepared; it need not.
        folder: the run's, with its lists of images.
        run: what run.json says.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    prepared = _manifest(project, run)
    digest = run["facts"].get("data") or (sha256_json(prepared) if prepared else None)
    if digest is None:
        return []
    counts = {part: _lines(folder / f"{part}.txt") for part in ("labeled", "unlabeled", "val")}
    if prepared and None in counts.values():
        counts = {part: prepared["counts"][part] for part in counts}  # type: ignore[literal-required]
    labeled, unlabeled, val = (counts[part] or 0 for part in counts)
    source = json.dumps({"uri": _source(project, run["dataset"])})

    def data_set(digest: str, context: str, profile: dict[str, Any], **tags: Any) -> "DatasetInput":
        entity = Dataset(
            run["dataset"], digest[:_DIGITS], "local", source, _SCHEMA, json.dumps({**profile, **tags})
        )
        said = {_CONTEXT: context, "split": run["split"], **tags}
        return DatasetInput(entity, [InputTag(key, str(value)) for key, value in said.items()])

    names = folder / "val.txt"
    judged = sha256(names.read_bytes()) if names.is_file() else sha256(f"{digest} val")
    return [
        data_set(digest, "training", {"num_rows": labeled + unlabeled}, labeled=labeled, unlabeled=unlabeled),
        data_set(judged, "validation", {"num_rows": val}, images=val),
    ]


def _manifest(project: Project, run: Run) -> Manifest | None:
    try:
        return read(Manifest, project.split(run["dataset"], run["split"]) / "manifest.json")
    except (FileNotFoundError, UserError):
        return None  # it is not prepared here, which is no concern of the mirror


def _lines(path: Path) -> int | None:
    return len(path.read_text(encoding="utf-8").splitlines()) if path.is_file() else None


def _source(project: Project, dataset: str) -> str:
    """The folder of the pictures, or where u2pl would keep what it prepared of them."""
    prepared = project.data(dataset)
    try:
        return str(project.root / read(Source, prepared / "source.json")["root"])
    except (FileNotFoundError, UserError):
        return str(prepared)
