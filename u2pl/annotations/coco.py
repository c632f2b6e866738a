"""COCO: one JSON file with all pictures, outlines and run lengths of instances."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NotRequired

import numpy as np
from typing_extensions import TypedDict

from u2pl.annotations import regions, runs
from u2pl.annotations.export import REMEDY, Export, Many, Object, check_size, checked, first_come
from u2pl.annotations.regions import BadShape, Region, Size
from u2pl.errors import UserError
from u2pl.typed_files import Count, Finite


class Runs(TypedDict):
    """Run lengths of a whole picture."""

    size: Many[Count]
    counts: str | Many[int]


class Annotation(TypedDict):
    """An object."""

    image_id: int | str
    category_id: int
    segmentation: NotRequired[Many[Many[Finite]] | Runs | None]
    bbox: NotRequired[Many[Finite] | None]


class Picture(TypedDict):
    """A picture."""

    id: int | str
    file_name: str
    height: NotRequired[Count | None]
    width: NotRequired[Count | None]


class Category(TypedDict):
    """A class."""

    id: int
    name: str


class Document(TypedDict):
    """A file."""

    images: Many[Picture]
    annotations: Many[Annotation]
    categories: Many[Category]


def is_one(value: Any) -> bool:
    """Whether a JSON value is COCO's, or was meant so, and has outlines."""
    if not (isinstance(value, dict) and {"images", "annotations", "categories"} <= value.keys()):
        return False
    each = value["annotations"]
    return not isinstance(each, list) or any(isinstance(a, dict) and a.get("segmentation") for a in each)


def read(path: Path, value: Any) -> Export:
    """A file of instances.

    Raises:
        UserError: it is not as COCO's tools write it.
    """
    document: Document = checked(Document, value, path, "a tool that exports COCO")
    names = {category["id"]: category["name"] for category in document["categories"]}
    pictures = {picture["id"]: picture for picture in document["images"]}
    drawn: dict[str, list[Annotation]] = {}
    sizes: dict[str, tuple[int | None, int | None]] = {}
    for k, annotation in enumerate(document["annotations"]):
        picture = pictures.get(annotation["image_id"])
        if picture is None or annotation["category_id"] not in names:
            what = "an image" if picture is None else "a category"
            raise UserError(f"{path}: annotation {k + 1} is of {what} that is not there. {REMEDY}")
        drawn.setdefault(picture["file_name"], []).append(annotation)
        sizes[picture["file_name"]] = picture.get("height"), picture.get("width")

    def objects(picture: str, size: Size) -> Iterator[Object]:
        check_size(sizes[picture], size)
        for annotation in drawn[picture]:
            yield names[annotation["category_id"]], _region(annotation, size)

    return Export("COCO", path, first_come(iter(names.values())), list(drawn), objects)


def _region(annotation: Annotation, size: Size) -> Region:
    """The pixels of an object: its outlines together, its run lengths, or its box where it has neither."""
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, dict):
        if tuple(segmentation["size"]) != size:
            raise BadShape(
                f"its run lengths are of {' x '.join(map(str, segmentation['size'][::-1]))} pixels"
            )
        return runs.from_coco(segmentation["counts"], size)
    if segmentation:
        region = np.zeros(size, bool)
        for outline in segmentation:
            if len(outline) % 2:
                raise BadShape("an outline with a coordinate too many")
            region |= regions.polygon(list(zip(outline[::2], outline[1::2], strict=True)), size)
        return region
    box = annotation.get("bbox") or []
    if len(box) != 4:
        raise BadShape("an object without outline and without box")
    left, top, width, height = box
    return regions.rectangle(left, top, left + width, top + height, size)
