"""Exports of annotation tools: found, read to class indices, matched to files; what is broken is said in a sentence."""

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco

from u2pl.annotations import exports, runs
from u2pl.annotations.export import Export
from u2pl.errors import UserError

CLASSES = {"cat": 1, "dog": 2}
SIZE = (6, 8)


def put(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def only(folder: Path) -> Export:
    (export,) = exports.find(folder)
    return export


def block(rows: slice, columns: slice, index: int = 1, under: NDArray[np.uint8] | None = None):
    mask = np.zeros(SIZE, np.uint8) if under is None else under.copy()
    mask[rows, columns] = index
    return mask


def png(mask: NDArray[Any]) -> str:
    file = io.BytesIO()
    Image.fromarray((mask * 255).astype(np.uint8)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


LOWER, UPPER = (slice(1, 4), slice(1, 5)), (slice(2, 5), slice(3, 7))
"""Two rectangles; the second, a dog, lies over the first, a cat."""
BOTH = block(*UPPER, index=2, under=block(*LOWER))


def corners(box: tuple[slice, slice]) -> list[tuple[int, int]]:
    rows, columns = box
    return [
        (columns.start, rows.start),
        (columns.stop, rows.start),
        (columns.stop, rows.stop),
        (columns.start, rows.stop),
    ]


# ---- each tool's way to draw the same two rectangles ---------------------------------------------------


def labelme_file(shapes: list[dict[str, Any]], image: str = "a.jpg") -> dict[str, Any]:
    return {
        "version": "5.4.1",
        "flags": {},
        "shapes": [{"group_id": None, "flags": {}, **shape} for shape in shapes],
        "imagePath": image,
        "imageData": None,
        "imageHeight": SIZE[0],
        "imageWidth": SIZE[1],
    }


def as_labelme(folder: Path) -> None:
    def inner(box: tuple[slice, slice]) -> list[list[int]]:  # the outline, which labelme fills too
        rows, columns = box
        return [[columns.start, rows.start], [columns.stop - 1, rows.stop - 1]]

    (x0, y0), (x1, y1) = inner(UPPER)
    shapes = [
        {"label": "cat", "points": inner(LOWER)[::-1], "shape_type": "rectangle"},
        {"label": "dog", "points": [[x0, y0], [x1, y0], [x1, y1], [x0, y1]], "shape_type": "polygon"},
    ]
    put(folder / "a.json", labelme_file(shapes))


def coco_file(annotations: list[dict[str, Any]], **image: Any) -> dict[str, Any]:
    return {
        "info": {},
        "images": [{"id": 7, "file_name": "a.jpg", "height": SIZE[0], "width": SIZE[1], **image}],
        "annotations": [{"id": k, "image_id": 7, **each} for k, each in enumerate(annotations)],
        "categories": [{"id": 3, "name": "cat"}, {"id": 9, "name": "dog"}],
    }


def as_coco(folder: Path) -> None:
    runs = coco.encode(np.asfortranarray(block(*UPPER)))
    put(
        folder / "instances.json",
        coco_file(
            [
                {"category_id": 3, "segmentation": [[v for corner in corners(LOWER) for v in corner]]},
                {"category_id": 9, "segmentation": {**runs, "counts": runs["counts"].decode()}, "iscrowd": 1},
            ]
        ),
    )


def as_coco_counts(folder: Path) -> None:
    def counts(mask: NDArray[np.uint8]) -> dict[str, Any]:
        return {"size": list(SIZE), "counts": runs.lengths(mask.ravel(order="F") > 0).tolist()}

    each = [(3, block(*LOWER)), (9, block(*UPPER))]
    put(
        folder / "instances.json", coco_file([{"category_id": k, "segmentation": counts(m)} for k, m in each])
    )


def cvat_file(shapes: str, name: str = "a.jpg") -> str:
    labels = "".join(f"<label><name>{name}</name><color>#ff0000</color></label>" for name in CLASSES)
    return (
        f"<?xml version='1.0' encoding='utf-8'?><annotations><version>1.1</version><meta><task><labels>{labels}"
        f"</labels></task></meta><image id='0' name='{name}' width='{SIZE[1]}' height='{SIZE[0]}'>{shapes}</image>"
        "</annotations>"
    )


def as_cvat(folder: Path) -> None:
    points = ";".join(f"{x}.00,{y}.00" for x, y in corners(LOWER))
    shapes = (  # the upper one stands first
        "<mask label='dog' rle='0, 12' left='3' top='2' width='4' height='3' z_order='1'/>"
        f"<polygon label='cat' points='{points}' z_order='0'/><tag label='cat'/>"
    )
    put(folder / "annotations.xml", cvat_file(shapes))


def as_cvat_boxes(folder: Path) -> None:
    boxes = [
        f"<box label='{name}' xtl='{c.start}' ytl='{r.start}' xbr='{c.stop}' ybr='{r.stop}' z_order='0'/>"
        for name, (r, c) in [("cat", LOWER), ("dog", UPPER)]
    ]
    put(folder / "annotations.xml", cvat_file("".join(boxes)))


def as_cvat_masks(folder: Path) -> None:
    put(
        folder / "labelmap.txt",
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:250,50,83::\ndog:1,2,3::\n",
    )
    colors = np.array([(0, 0, 0), (250, 50, 83), (1, 2, 3)], np.uint8)
    (folder / "SegmentationClass").mkdir()
    Image.fromarray(colors[BOTH]).save(folder / "SegmentationClass" / "a.png")


def studio(results: list[dict[str, Any]], image: str = "/data/upload/1/0a1b2c3d-a.jpg") -> dict[str, Any]:
    whole = {"original_height": SIZE[0], "original_width": SIZE[1], "image_rotation": 0}
    return {
        "id": 1,
        "annotations": [{"id": 1, "was_cancelled": False, "result": [{**whole, **each} for each in results]}],
        "data": {"image": image},
        "predictions": [],
    }


def percent(points: list[tuple[int, int]]) -> list[list[float]]:
    return [[100 * x / SIZE[1], 100 * y / SIZE[0]] for x, y in points]


def as_label_studio(folder: Path) -> None:
    brush = {"format": "rle", "rle": runs.to_brush(block(*UPPER) > 0), "brushlabels": ["dog"]}
    results = [
        {
            "id": "p",
            "type": "polygonlabels",
            "value": {"points": percent(corners(LOWER)), "polygonlabels": ["cat"]},
        },
        {"id": "b", "type": "brushlabels", "value": brush},
        {"id": "c", "type": "choices", "value": {"choices": ["sharp"]}},
    ]
    put(folder / "project-1.json", [studio(results)])


def as_label_studio_rectangles(folder: Path) -> None:
    results = []
    for name, box in [("cat", LOWER), ("dog", UPPER)]:
        (x, y), _, (right, bottom), _ = percent(corners(box))
        value = {
            "x": x,
            "y": y,
            "width": right - x,
            "height": bottom - y,
            "rotation": 0,
            "rectanglelabels": [name],
        }
        results.append({"id": name, "type": "rectanglelabels", "value": value})
    put(folder / "project-1.json", [studio(results)])


def as_yolo(folder: Path, names: str = "names:\n  0: cat\n  1: dog\n") -> None:
    put(folder / "data.yaml", "path: /somewhere/else\ntrain: ../../images\n" + names)
    lines = [
        " ".join([str(k), *(f"{v / 100:.6f}" for point in percent(corners(box)) for v in point)])
        for k, box in enumerate([LOWER, UPPER])
    ]
    put(folder / "labels" / "train" / "a.txt", "\n".join(lines) + "\n")


def as_yolo_list(folder: Path) -> None:
    as_yolo(folder, "nc: 2\nnames: [cat, dog]\n")


def as_yolo_classes(folder: Path) -> None:
    as_yolo(folder)
    (folder / "data.yaml").unlink()
    put(folder / "classes.txt", "cat\ndog\n")


TOOLS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "labelme": ("labelme", as_labelme),
    "coco": ("COCO", as_coco),
    "coco counts": ("COCO", as_coco_counts),
    "cvat": ("CVAT for images", as_cvat),
    "cvat boxes": ("CVAT for images", as_cvat_boxes),
    "cvat masks": ("CVAT segmentation mask", as_cvat_masks),
    "label studio": ("Label Studio", as_label_studio),
    "label studio rectangles": ("Label Studio", as_label_studio_rectangles),
    "yolo": ("YOLO polygons", as_yolo),
    "yolo list": ("YOLO polygons", as_yolo_list),
    "yolo classes.txt": ("YOLO polygons", as_yolo_classes),
}


@pytest.mark.parametrize("tool", TOOLS)
def test_every_tool_gives_the_same_mask_of_the_same_drawing_and_later_objects_lie_above(
    tool: str, tmp_path: Path
):
    form, write = TOOLS[tool]
    write(tmp_path)
    put(tmp_path / "package.json", {"name": "no export"})
    put(tmp_path / "notes.txt", "no export either")
    export = only(tmp_path)
    assert (export.format, export.classes) == (form, ["cat", "dog"])
    found = exports.match(export, {"first": tmp_path / "a.jpg", "second": tmp_path / "b.jpg"})
    assert (list(found.names.values()), found.problems) == (["first"], [])
    mask = export.mask(export.pictures[0], CLASSES, SIZE, 0)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, BOTH)
    np.testing.assert_array_equal(export.mask(export.pictures[0], CLASSES, SIZE, 255) == 255, BOTH == 0)


@pytest.mark.parametrize("tool", [tool for tool in TOOLS if not tool.startswith("yolo")])
def test_a_drawing_on_a_picture_of_another_size_is_refused(tool: str, tmp_path: Path):
    TOOLS[tool][1](tmp_path)
    export = only(tmp_path)
    with pytest.raises(UserError, match=r"8 x 6 pixels"):
        export.mask(export.pictures[0], CLASSES, (8, 6), 0)


@pytest.mark.parametrize("tool", TOOLS)
def test_a_class_that_the_caller_does_not_know_is_named(tool: str, tmp_path: Path):
    TOOLS[tool][1](tmp_path)
    export = only(tmp_path)
    with pytest.raises(UserError, match="class 'dog', which is not among the classes: cat"):
        export.mask(export.pictures[0], {"cat": 1}, SIZE, 0)


def test_a_folder_with_all_of_them_gives_each_of_them(tmp_path: Path):
    for tool, (_, write) in TOOLS.items():
        (tmp_path / tool).mkdir()
        write(tmp_path / tool)
    found = exports.find(tmp_path)
    assert sorted(export.format for export in found) == sorted(form for form, _ in TOOLS.values())
    assert exports.plain_classes(found) == ["cat", "dog"]
