"""What a run leaves on disk, as it is read back: run.json, metrics.json, ablation.json, events and history."""

import functools
import json
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

from pydantic import AfterValidator, TypeAdapter
from typing_extensions import TypedDict

from u2pl.typed_files import (
    Count,
    DatasetName,
    Fingerprint,
    Finite,
    FolderName,
    MethodName,
    MlflowId,
    SplitName,
    Time,
    Uid,
    fits,
    read,
)

KINDS = ("input", "truth", "prediction", "entropy")
"""Of the pictures of a validation image in a folder `samples`: NAME.KIND.png; earlier versions wrote no entropy."""


class _Recipe(TypedDict):
    backbone: str
    batch: Count
    crop: Count
    epochs: Count
    evaluation: Literal["whole", "sliding", "center"]


@functools.cache  # made once: it takes longer than all else about reading a run
def _recipe() -> TypeAdapter[_Recipe]:
    return TypeAdapter(_Recipe)


def _is_a_recipe(values: dict[str, Any]) -> dict[str, Any]:
    _recipe().validate_python(values, strict=True)
    return values


RecordedRecipe = Annotated[dict[str, Any], AfterValidator(_is_a_recipe)]
"""A recipe of today or of an earlier version, which had other settings; what tables and reports read is there."""


class Facts(TypedDict):
    """All that decides a run's numbers."""

    recipe_version: int
    dataset: DatasetName
    split: SplitName
    method: MethodName
    seed: Count
    recipe: RecordedRecipe
    hyper: dict[str, Any]
    data: NotRequired[str]
    """Left out by an imported run."""


class Origin(TypedDict):
    """Where an imported run comes from."""

    file: str
    sha256: str
    network: str
    epoch: int | Finite | None
    best_miou: int | Finite | None


class RunIdentity(TypedDict):
    """What run.json and metrics.json both say of a run."""

    name: FolderName
    dataset: DatasetName
    split: SplitName
    method: MethodName
    seed: Count
    overrides: dict[str, Any]
    recipe: RecordedRecipe
    hyper: dict[str, Any]
    fingerprint: Fingerprint


class Run(RunIdentity):
    """run.json: whose folder it is."""

    flavor: str
    facts: Facts
    named: NotRequired[bool]
    """Whether its name is the user's own."""
    parent: FolderName | None
    """The ablation it was trained for."""
    uid: Uid
    created: Time
    tags: dict[str, str | int | Finite | None]
    imported: NotRequired[Origin]


class Protocol(TypedDict):
    """How a number was measured."""

    evaluation: str
    network: str
    checkpoint: str


class Miou(TypedDict):
    """Percent; a run that was imported and not evaluated has none."""

    reported: Finite | None
    last: NotRequired[Finite | None]
    best: NotRequired[Finite | None]
    best_epoch: NotRequired[int | Finite | None]


class Metrics(RunIdentity):
    """metrics.json: the result of a run."""

    protocol: Protocol
    split_source: str
    labeled: Count | None
    unlabeled: Count | None
    miou: Miou
    iou: dict[str, Finite | None]
    """Class -> percent; None where the class nowhere occurs."""
    steps: Count
    epochs: Count
    seconds: Finite
    images_per_second: Finite
    revision: NotRequired[str | None]


class Pictures(TypedDict):
    """A folder of pictures that a run was scored on."""

    images: str
    masks: str
    class_numbers: bool
    count: Count


class PictureScores(RunIdentity):
    """metrics.json of a run's evaluation on a folder of pictures."""

    pictures: Pictures
    protocol: Protocol
    miou: Miou
    iou: dict[str, Finite | None]
    revision: str | None


class AblationRow(TypedDict):
    """One value of an ablation."""

    value: str
    run: FolderName
    miou_reported: Finite | None
    miou_last: Finite | None
    miou_best: Finite | None
    seed: NotRequired[int]
    """Of a comparison of several."""


class Comparison(TypedDict):
    """The values of a setting compared, as a table reads them."""

    name: FolderName
    parameter: str
    method: MethodName
    dataset: DatasetName
    split: SplitName
    seed: Count
    """The first, where there are several."""
    seeds: NotRequired[list[int]]
    runs: list[AblationRow]


class Ablation(Comparison):
    """ablation.json: the comparison that grows while its runs are trained."""

    uid: Uid


class Report(TypedDict):
    """report.json: a page that `u2pl report` wrote, for the tracking store."""

    page: str
    """Its path, from the project's root."""
    uid: Uid


class TrackedRun(TypedDict):
    """tracking.json: where a run's MLflow run is."""

    store: str
    experiment: MlflowId
    run: MlflowId
    fingerprint: Fingerprint


class Event(TypedDict):
    """A line of events.jsonl."""

    time: int
    """Milliseconds since the epoch."""
    event: str
    step: Count
    epoch: Count
    metrics: dict[str, Finite]
    message: NotRequired[str]


def read_run(folder: Path) -> Run:
    """Whose folder it is.

    Raises:
        FileNotFoundError: it is no run's folder.
        UserError: run.json is damaged.
    """
    return read(Run, folder / "run.json", f"Move {folder} elsewhere, then start the same command again.")


def is_complete(folder: Path) -> bool:
    """Whether a run's folder has a result and the weights that it is of; whose they are is not asked."""
    return all((folder / name).is_file() for name in ("metrics.json", "weights.pt"))


def read_metrics(folder: Path) -> Metrics:
    """The result in a folder.

    Raises:
        FileNotFoundError: there is none.
        UserError: metrics.json is damaged.
    """
    return read(Metrics, folder / "metrics.json")


def protocol(metrics: Metrics | PictureScores) -> str:
    """How a result was measured, in words; on a folder of pictures, on which."""
    how = metrics["protocol"]
    text = f"{how['evaluation']}, {how['network']} network, {how['checkpoint']} checkpoint"
    pictures: Any = metrics.get("pictures")
    return f"{text}, on {pictures['images']}" if pictures else text


def parse_event(line: bytes | str) -> Event | None:
    """A line of events.jsonl; None where its writer was killed, or it is no event."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if fits(Event, value) else None
