"""What preparation leaves on disk beside the lists: what was found in each file, and the manifest of a split."""

from typing import Annotated, NotRequired

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from u2pl.errors import UserError
from u2pl.project import Project
from u2pl.typed_files import Count, DatasetName, ImageName, SplitName, read


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


class MergedFacts(TypedDict):
    """Corrected masks that lie over the data set's own; see `data.merged`."""

    onto: SplitName
    images: Count
    sha256: str


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
    merged: NotRequired[MergedFacts]
    """Of a round's split."""


def chosen_seed(project: Project, dataset: str, split: str) -> int | None:
    """The seed that the user said a prepared split is to be drawn with; None where that is left to params.yaml."""
    try:
        source = read(Source, project.data(dataset) / "source.json")
    except (FileNotFoundError, UserError):
        return None
    return source.get("seeds", {}).get(project.split(dataset, split).name)
