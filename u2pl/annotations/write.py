"""Writes masks as pre-annotations for CVAT and Label Studio: one mask a class and picture, to be corrected by brush.

One object a class, and not one for every patch of it: a brush then adds to the class or takes from it anywhere in the
picture, and there are never more objects than classes. Outlines would have no holes.

One picture is written after the other, so that many large ones need no more memory than one.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import numpy as np
from numpy.typing import NDArray

from u2pl.annotations import runs
from u2pl.annotations.regions import Region
from u2pl.data.pictures import Color
from u2pl.errors import UserError
from u2pl.escaping import one_line, printable
from u2pl.files import write_atomically, write_json, write_text

BLANK = 255
"""Index of pixels that are left to people."""


class PreAnnotation(NamedTuple):
    """A picture and what is believed of it.

    Attributes:
        file: the picture.
        name: what it is called, without its suffix; may have folders.
        mask: class indices, uint8 (H, W); `BLANK` where nothing is.
    """

    file: Path
    name: str
    mask: NDArray[np.uint8]


def cvat(
    path: Path, images: Sequence[PreAnnotation], classes: Sequence[str], colors: Sequence[Color]
) -> list[Path]:
    """Write a folder for CVAT: `annotations.xml` (CVAT for images 1.1), `labels.json`, and what to do, `import.txt`.

    Args:
        path: of the folder.
        images: whose names, with their files' suffixes, are those of the frames in the task.
        classes: name of each index.
        colors: of each class.

    Returns:
        the files.

    Raises:
        UserError: a name has a character that XML has not.
    """
    root = Element("annotations")
    SubElement(root, "version").text = "1.1"
    task = SubElement(SubElement(root, "meta"), "task")
    SubElement(task, "size").text = str(len(images))
    labels = SubElement(task, "labels")
    for name, color in zip(classes, colors, strict=True):
        label = SubElement(labels, "label")
        SubElement(label, "name").text = _for_xml(name)
        SubElement(label, "color").text = _hex(color)
        SubElement(label, "attributes")
    ElementTree.indent(root)
    end = f"</{root.tag}>"
    head = ElementTree.tostring(root, "unicode").removesuffix(end)
    files = [path / name for name in ("annotations.xml", "labels.json", "import.txt")]
    _write_parts(
        files[0],
        chain(
            ['<?xml version="1.0" encoding="utf-8"?>\n', head],
            (f"  {_cvat_image(k, image, classes)}\n" for k, image in enumerate(images)),
            [end, "\n"],
        ),
    )
    write_json(
        files[1],
        [
            {"name": name, "color": _hex(color), "attributes": []}
            for name, color in zip(classes, colors, strict=True)
        ],
    )
    write_text(
        files[2],
        "1. In CVAT create a task of the pictures, as a ZIP archive where they lie in folders; paste labels.json "
        "under Labels, Raw.\n"
        "2. In the task choose Actions, Upload annotations, CVAT 1.1, and take annotations.xml.\n",
    )
    return files


def label_studio(
    path: Path,
    images: Sequence[PreAnnotation],
    classes: Sequence[str],
    colors: Sequence[Color],
    *,
    model: str,
) -> list[Path]:
    """Write a folder for Label Studio: predictions, `tasks.json`, `label_config.xml`, and what to do, `import.txt`.

    Pictures stay where they are. Label Studio serves them as local files of the folder that they have in common; the
    references begin with that folder's own name, since its storage must lie below its document root.

    Args:
        path: of the folder.
        images: with masks as they are shown, upright.
        classes: name of each index.
        colors: of each class.
        model: what the predictions are said to be of.

    Returns:
        the files.

    Raises:
        UserError: a name has a character that XML has not.
    """
    view = Element("View")
    SubElement(view, "Image", name="image", value="$image", zoom="true", zoomControl="true")
    brush = SubElement(view, "BrushLabels", name="label", toName="image")
    for name, color in zip(classes, colors, strict=True):
        SubElement(brush, "Label", value=_for_xml(name), background=_hex(color))
    ElementTree.indent(view)
    folder = Path(os.path.commonpath([image.file.parent.resolve() for image in images] or [Path.cwd()]))
    files = [path / name for name in ("tasks.json", "label_config.xml", "import.txt")]
    tasks = (_task(image, classes, folder, model) for image in images)
    texts = (json.dumps(task, ensure_ascii=False, allow_nan=False) for task in tasks)
    separated = (", " * bool(k) + text for k, text in enumerate(texts))
    _write_parts(files[0], chain(["["], separated, ["]\n"]))
    write_text(files[1], ElementTree.tostring(view, "unicode") + "\n")
    write_text(
        files[2],
        "1. Start Label Studio with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and "
        f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={one_line(str(folder.parent))}; in a new project paste "
        "label_config.xml under Labeling Interface, Code, and under Cloud Storage add the source storage Local files "
        f"with the path {one_line(str(folder))}, without a sync.\n"
        "2. Import tasks.json, and label; export as JSON.\n",
    )
    return files


def file_name(image: PreAnnotation) -> str:
    """The name of a picture's file, with the folders that its name has."""
    suffix = image.file.suffix
    return image.name if suffix and image.name.endswith(suffix) else image.name + suffix


def _write_parts(path: Path, parts: Iterable[str]) -> None:
    """Write a text atomically that comes in parts."""

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8") as file:
            file.writelines(parts)

    write_atomically(path, write)


def _layers(mask: NDArray[np.uint8], classes: Sequence[str]) -> Iterator[tuple[str, Region]]:
    """The pixels of each class that a mask has."""
    for index in np.unique(mask).tolist():
        if index != BLANK:
            yield classes[index], mask == index


def _cvat_image(number: int, image: PreAnnotation, classes: Sequence[str]) -> str:
    """The element of a picture, indented as inside the root."""
    height, width = image.mask.shape
    name = _for_xml(file_name(image))
    element = Element("image", id=str(number), name=name, width=str(width), height=str(height))
    for label_name, region in _layers(image.mask, classes):
        element.append(_cvat_mask(label_name, region))
    ElementTree.indent(element, level=1)
    return ElementTree.tostring(element, "unicode")


def _cvat_mask(name: str, region: Region) -> Element:
    """A mask in its bounding box, in runs along the rows."""
    rows, columns = (np.flatnonzero(region.any(axis=axis)) for axis in (1, 0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    counts = runs.lengths(region[top:bottom, left:right].ravel())
    return Element(
        "mask",
        label=name,
        source="auto",
        occluded="0",
        rle=", ".join(map(str, counts.tolist())),
        left=str(left),
        top=str(top),
        width=str(right - left),
        height=str(bottom - top),
        z_order="0",
    )


def _task(image: PreAnnotation, classes: Sequence[str], folder: Path, model: str) -> dict[str, Any]:
    """A picture and its prediction, as Label Studio imports them."""
    height, width = image.mask.shape
    below = image.file.parent.resolve().relative_to(folder) / image.file.name
    reference = quote(f"{folder.name}/{below.as_posix()}".lstrip("/"))
    result = [
        {
            "id": f"class{classes.index(name)}",
            "from_name": "label",
            "to_name": "image",
            "type": "brushlabels",
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": {"format": "rle", "rle": runs.to_brush(region), "brushlabels": [name]},
        }
        for name, region in _layers(image.mask, classes)
    ]
    return {
        "data": {"image": f"/data/local-files/?d={reference}", "name": image.name},
        "predictions": [{"model_version": model, "result": result}],
    }


def _hex(color: Color) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)


def _for_xml(text: str) -> str:
    if printable(text) != text:
        raise UserError(f"The name {printable(text)!r} has a character that XML has not. Rename it.")
    return text
