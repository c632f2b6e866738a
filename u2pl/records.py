"""The files that runs and data sets leave on disk, as they are read back: every field typed, and names never paths.

A folder may come from anywhere, and what stands in its files is put together to paths, commands and queries. So
nothing is believed that has not the type, and the alphabet, of what u2pl writes there.
"""

import csv
import functools
import json
import re
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypeGuard, TypeVar

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from u2pl.errors import UserError
from u2pl.files import read_csv, read_json
from u2pl.project import Project, is_inside

T = TypeVar("T")


def _is_folder_name(text: str) -> str:
    """`text`, if it can be the name of one visible folder."""
    if not re.fullmatch(r"[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*", text) or len(text.encode()) > 255:
        raise ValueError("is no name of a folder")
    return text


def _stays_inside(path: str) -> str:
    if not is_inside(path) or "\0" in path:
        raise ValueError("leads out of its folder")
    return path


def _is_a_time(text: str) -> str:
    datetime.fromisoformat(text)
    return text


FolderName = Annotated[str, AfterValidator(_is_folder_name)]
"""Of a run or an ablation."""
DatasetName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=200)]
SplitName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_./-]*$", max_length=200), AfterValidator(_stays_inside)
]
MethodName = Annotated[str, Field(pattern=r"^\w[\w-]*$")]
ImageName = Annotated[str, AfterValidator(_stays_inside)]
Fingerprint = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
MlflowId = Annotated[str, Field(pattern=r"^[0-9A-Za-z][\w.-]*$", max_length=100)]
Uid = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Time = Annotated[str, AfterValidator(_is_a_time)]
Count = Annotated[int, Field(ge=0)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Recipe(TypedDict):
    backbone: str
    batch: Count
    crop: Count
    epochs: Count
    evaluation: Literal["whole", "sliding", "center"]


def _is_a_recipe(values: dict[str, Any]) -> dict[str, Any]:
    _adapter(_Recipe).validate_python(values, strict=True)
    return values


RecordedRecipe = Annotated[dict[str, Any], AfterValidator(_is_a_recipe)]
"""A recipe of today or of an earlier version, which had other settings; what tables and reports read is there."""


class Facts(TypedDict):
    """All that decides a run's numbers."""

    recipe_version: int
    dataset: DatasetName
    split: SplitName
    method: MethodName
    seed: int
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


class Described(TypedDict):
    """What run.json and metrics.json both say of a run."""

    name: FolderName
    dataset: DatasetName
    split: SplitName
    method: MethodName
    seed: int
    overrides: dict[str, Any]
    recipe: RecordedRecipe
    hyper: dict[str, Any]
    fingerprint: Fingerprint


class Run(Described):
    """run.json: whose folder it is."""

    flavor: str
    facts: Facts
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


class Metrics(Described):
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


class AblationRow(TypedDict):
    """One value of an ablation."""

    value: str
    run: FolderName
    miou_reported: Finite | None
    miou_last: Finite | None
    miou_best: Finite | None


class Comparison(TypedDict):
    """The values of a setting compared, as a table reads them."""

    name: FolderName
    parameter: str
    method: MethodName
    dataset: DatasetName
    split: SplitName
    seed: int
    runs: list[AblationRow]


class Ablation(Comparison):
    """ablation.json: the comparison that grows while its runs are trained."""

    uid: Uid


class Where(TypedDict):
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


@with_config(ConfigDict(extra="forbid"))
class FileRecord(TypedDict):
    """What one image and its mask were found to be; see `data.check.Record`."""

    image: str
    mask: str | None
    image_sha256: str
    mask_sha256: str | None
    pixels: list[Count]
    stats: list[list[int]]
    only_image_turned: NotRequired[bool]
    palette: NotRequired[dict[str, list[int]]]


class JournalLine(TypedDict):
    """A line of checked.jsonl."""

    name: ImageName
    record: FileRecord


class Source(TypedDict):
    """source.json: where the files of a data set are, and what was found in each."""

    root: str
    version: int | None
    reading: NotRequired[int]
    """Version of how files are read."""
    data: str
    files: dict[ImageName, FileRecord]
    seeds: NotRequired[dict[str, int]]
    """Folder of a split -> the seed that the user said it is to be drawn with."""


class Counts(TypedDict):
    """Images of a split."""

    train: Count
    labeled: Count
    unlabeled: Count
    val: Count


class Fine(TypedDict):
    """Images with the more precise annotation."""

    train: Count
    labeled: Count


class ClassCounts(TypedDict):
    """Of one class, in training images that have a mask."""

    pixels: Count
    images: Count
    labeled_images: Count


class Manifest(TypedDict):
    """manifest.json: one prepared split."""

    dataset: DatasetName
    split: SplitName
    source: str
    seed: NotRequired[int]
    counts: Counts
    fine: NotRequired[Fine]
    sha256: dict[str, str]
    data: str
    classes: dict[str, ClassCounts]
    ignore_index: Annotated[int, Field(ge=0, le=255)]
    background: bool
    overlap: NotRequired[bool]
    published: NotRequired[dict[str, str | None]]


class LockedOutput(TypedDict):
    """An output in dvc.lock."""

    path: Annotated[str, AfterValidator(_stays_inside)]
    md5: NotRequired[str]
    size: NotRequired[Count]


class LockedStage(TypedDict):
    """A stage in dvc.lock."""

    outs: NotRequired[list[LockedOutput]]


def chosen_seed(project: Project, dataset: str, split: str) -> int | None:
    """The seed that the user said a prepared split is to be drawn with; None where that is left to params.yaml."""
    try:
        source = read(Source, project.data(dataset) / "source.json")
    except (FileNotFoundError, UserError):
        return None
    return source.get("seeds", {}).get(project.split(dataset, split).name)


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def read(kind: type[T], path: Path, remedy: str = "Delete it, then start the same command again.") -> T:
    """The JSON file `path` as a `kind`, fields that `kind` does not know included.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it is no JSON, or not of that kind; the sentence ends with `remedy`.
    """
    value: T = read_json(path, remedy)
    adapter: TypeAdapter[T] = _adapter(kind)  # type: ignore[arg-type]
    try:
        adapter.validate_python(value, strict=True)
    except ValidationError as error:
        raise UserError(f"{path} is not what u2pl writes there ({problems(error)}). {remedy}") from None
    return value


def fits(kind: type[T], value: Any) -> TypeGuard[T]:
    """Whether a value is a `kind`."""
    try:
        _adapter(kind).validate_python(value, strict=True)  # type: ignore[arg-type]
    except ValidationError:
        return False
    return True


def problems(error: ValidationError, most: int = 3) -> str:
    """What pydantic found wrong, in a few words."""
    found = [
        ": ".join(filter(None, [".".join(map(str, each["loc"])), each["msg"].removeprefix("Value error, ")]))
        for each in error.errors(include_url=False)
    ]
    return "; ".join(found[:most]) + (f"; and {len(found) - most} more" if len(found) > most else "")


def read_run(folder: Path) -> Run:
    """Whose folder it is.

    Raises:
        FileNotFoundError: it is no run's folder.
        UserError: run.json is damaged.
    """
    return read(Run, folder / "run.json", f"Move {folder} elsewhere, then start the same command again.")


def read_metrics(folder: Path) -> Metrics:
    """The result in a folder.

    Raises:
        FileNotFoundError: there is none.
        UserError: metrics.json is damaged.
    """
    return read(Metrics, folder / "metrics.json")


def event(line: bytes | str) -> Event | None:
    """A line of events.jsonl; None where its writer was killed, or it is no event."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if fits(Event, value) else None


def read_history(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Metric -> (epoch from 0, value) for each epoch that has one, from history.csv; empty where there is none.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / "history.csv"
    series: dict[str, list[tuple[int, float]]] = {}
    if not path.is_file():
        return series
    try:
        for row in read_csv(path):
            epoch = int(float(row["epoch"]))
            for name, value in row.items():
                if value and name not in ("epoch", "step"):
                    series.setdefault(name, []).append((epoch, float(value)))
    except (ValueError, KeyError, TypeError, OverflowError, csv.Error) as error:
        raise UserError(
            f"{path} is damaged ({type(error).__name__}: {error}). Move it elsewhere; curves are drawn from it alone."
        ) from None
    return series
