"""Exports of annotation tools: found, read to class indices, matched to files; what is broken is said in a sentence."""

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco

from u2pl.annotations import exports, label_studio, labelme, runs
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


PACKED = [0, 0, 0, 60, 57, 27, 252, 96, 19, 255, 206, 1, 31, 252, 224, 19, 255, 223, 0, 143, 252]
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


# ---- shapes ----------------------------------------------------------------------------------------------


def cvat_mask(folder: Path, shapes: str, size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    text = cvat_file(shapes).replace(
        f"width='{SIZE[1]}' height='{SIZE[0]}'", f"width='{size[1]}' height='{size[0]}'"
    )
    put(folder / "annotations.xml", text)
    return only(folder).mask("a.jpg", CLASSES, size, 0)


def test_a_pixel_is_covered_where_its_centre_is(tmp_path: Path):
    def box(left: float, right: float) -> list[int]:
        edges = f"xtl='{left}' xbr='{right}' ytl='0' ybr='1'"
        return cvat_mask(tmp_path, f"<box label='cat' {edges}/>")[0].nonzero()[0].tolist()

    assert box(1.4, 3.4) == [1, 2]
    assert box(1.6, 3.6) == [2, 3]
    assert box(3.6, 1.6) == [2, 3]
    assert box(-3, 1) == [0]
    assert box(6.5, 20) == [6, 7]


def test_ellipses_and_turned_rectangles_have_the_area_that_they_have(tmp_path: Path):
    size = (200, 300)
    ellipse = cvat_mask(
        tmp_path, "<ellipse label='cat' cx='150' cy='100' rx='80' ry='40' rotation='30'/>", size
    )
    assert abs(ellipse.sum() - np.pi * 80 * 40) < 60
    assert ellipse[100 + 39, 150 + 68]  # clockwise: its long axis points down on the right
    assert not ellipse[100 - 39, 150 + 68]
    box = cvat_mask(tmp_path, "<box label='cat' xtl='50' ytl='80' xbr='250' ybr='120' rotation='30'/>", size)
    assert abs(box.sum() - 200 * 40) < 150
    assert box[100 + 48, 150 + 83]
    assert not box[100 - 48, 150 + 83]


def test_a_line_is_one_pixel_wide_and_points_cover_nothing(tmp_path: Path):
    shapes = "<polyline label='cat' points='1,2;6,2'/><points label='dog' points='3,3;4,4'/>"
    np.testing.assert_array_equal(cvat_mask(tmp_path, shapes), block(slice(2, 3), slice(1, 7)))


def test_label_studio_turns_rectangles_around_their_upper_left_corner(tmp_path: Path):
    value = {"x": 50, "y": 0, "width": 50, "height": 100 / 3, "rotation": 90, "rectanglelabels": ["cat"]}
    put(tmp_path / "a.json", [studio([{"id": "r", "type": "rectanglelabels", "value": value}])])
    np.testing.assert_array_equal(
        only(tmp_path).mask("a.jpg", CLASSES, SIZE, 0), block(slice(0, 4), slice(2, 4))
    )


def test_label_studios_ellipses_and_bitmasks_are_read(tmp_path: Path):
    mask = block(*LOWER)
    ellipse = {"x": 50, "y": 50, "radiusX": 50, "radiusY": 50, "rotation": 0, "ellipselabels": ["cat"]}
    bitmask = {"imageDataURL": f"data:image/png;base64,{png(mask)}", "bitmasklabels": ["dog"]}
    results = [
        {"id": "e", "type": "ellipselabels", "value": ellipse},
        {"id": "b", "type": "bitmasklabels", "value": bitmask},
    ]
    put(tmp_path / "a.json", [studio(results)])
    found = only(tmp_path).mask("a.jpg", CLASSES, SIZE, 0)
    np.testing.assert_array_equal(found == 2, mask == 1)
    assert found[0, 4] == found[5, 4] == found[2, 0] == 1
    assert not found[[0, 0, -1, -1], [0, -1, 0, -1]].any()


def test_a_label_of_label_studio_may_stand_beside_its_region(tmp_path: Path):
    results = [
        {"id": "r", "type": "rectangle", "value": {"x": 0, "y": 0, "width": 25, "height": 50}},
        {
            "id": "r",
            "type": "labels",
            "value": {"labels": ["dog"], "x": 0, "y": 0, "width": 25, "height": 50},
        },
    ]
    put(tmp_path / "a.json", [studio(results)])
    assert only(tmp_path).classes == ["dog"]
    np.testing.assert_array_equal(
        only(tmp_path).mask("a.jpg", CLASSES, SIZE, 0), block(slice(0, 3), slice(0, 2), 2)
    )


def test_of_several_answers_the_true_one_counts_or_else_the_last_and_no_cancelled_one(tmp_path: Path):
    def answer(width: float, **more: Any) -> dict[str, Any]:
        value = {"x": 0, "y": 0, "width": width, "height": 100, "rectanglelabels": ["cat"]}
        return {"result": [{"id": "r", "type": "rectanglelabels", "value": value}], **more}

    def columns(*answers: dict[str, Any]) -> int:
        task = {"data": {"image": "a.jpg"}, "annotations": list(answers)}
        put(tmp_path / "a.json", [task, {"data": {"image": "b.jpg"}, "annotations": []}])
        export = only(tmp_path)
        return int(export.mask("a.jpg", CLASSES, SIZE, 0)[0].sum()) if export.pictures else 0

    assert columns(answer(25), answer(50)) == 4
    assert columns(answer(25, ground_truth=True), answer(50)) == 2
    assert columns(answer(25), answer(50, was_cancelled=True)) == 2
    assert columns(answer(50, was_cancelled=True)) == 0


def test_what_label_studios_library_packed_is_unpacked():
    """`mask2rle` of label-studio-sdk 2.1.2 gave these bytes for this mask."""
    mask = np.array([[0, 1, 1, 0, 0], [1, 0, 0, 1, 1], [0, 0, 0, 0, 1]], bool)
    np.testing.assert_array_equal(runs.from_brush(PACKED, mask.shape), mask)


def test_of_a_brush_counts_what_is_at_least_half_opaque_whatever_its_colour():
    values = [
        9,
        9,
        9,
        0,
        255,
        255,
        255,
        127,
        0,
        0,
        0,
        128,
        7,
        7,
        7,
        255,
    ]  # four pixels, one value after the other
    head = f"{len(values):032b}{7:05b}" + "0011" * 4
    text = head + "000" + f"{len(values) - 1:04b}" + "".join(f"{value:08b}" for value in values)
    packed = list(int(text + "0" * (-len(text) % 8), 2).to_bytes(-(-len(text) // 8), "big"))
    np.testing.assert_array_equal(runs.from_brush(packed, (2, 2)), [[False, False], [True, True]])


def test_labelmes_lines_circles_and_points_are_as_wide_as_labelme_draws_them():
    def area(kind: str, *points: tuple[float, float]) -> tuple[int, int, int]:
        drawn = labelme.drawn(
            {"label": "a", "shape_type": kind, "points": [list(p) for p in points]}, (60, 80)
        )
        return int(drawn.sum()), int(drawn.any(axis=1).sum()), int(drawn.any(axis=0).sum())

    pixels, rows, columns = area("line", (20, 30), (60, 30))
    assert (rows, columns) in {(10, 40), (10, 41)}
    assert pixels == rows * columns
    assert area("circle", (40, 30), (52, 35))[1:] == (27, 27)  # 13 around the pixel in the middle
    assert area("point", (40, 30))[1:] == (11, 11)
    assert area("linestrip", (20, 10), (20, 40), (60, 40))[1:] > (30, 40)


def test_a_box_of_yolo_beside_outlines_is_a_box_around_its_centre(tmp_path: Path):
    as_yolo(tmp_path)
    put(tmp_path / "labels" / "train" / "b.txt", "1 0.5 0.5 0.5 0.333333\n")
    true = block(slice(2, 4), slice(2, 6), 2)
    np.testing.assert_array_equal(only(tmp_path).mask("images/train/b", CLASSES, SIZE, 0), true)


def test_labelmes_masks_lie_where_their_corner_is_and_are_cut_at_the_edge(tmp_path: Path):
    shape = {
        "label": "cat",
        "shape_type": "mask",
        "points": [[5, 4], [8, 6]],
        "mask": png(np.array([[1, 0, 1, 1], [0, 1, 1, 1], [1, 1, 1, 1]])),
    }
    put(tmp_path / "a.json", labelme_file([shape]))
    true = np.zeros(SIZE, np.uint8)
    true[4, [5, 7]] = true[5, [6, 7]] = 1
    np.testing.assert_array_equal(only(tmp_path).mask("a.jpg", CLASSES, SIZE, 0), true)


def test_cocos_boxes_count_where_an_object_has_no_outline_and_boxes_alone_are_no_masks(tmp_path: Path):
    outline = {"category_id": 3, "segmentation": [[0, 0, 2, 0, 2, 2, 0, 2]]}
    box = {"category_id": 9, "bbox": [4, 1, 3, 2], "segmentation": []}
    put(tmp_path / "a.json", coco_file([outline, box]))
    true = block(slice(1, 3), slice(4, 7), 2, under=block(slice(0, 2), slice(0, 2)))
    np.testing.assert_array_equal(only(tmp_path).mask("a.jpg", CLASSES, SIZE, 0), true)
    put(tmp_path / "a.json", coco_file([box]))
    assert exports.find(tmp_path) == []


def test_pictures_that_somebody_looked_at_and_left_empty_are_there_where_the_tool_tells_so(tmp_path: Path):
    put(tmp_path / "labelme" / "a.json", labelme_file([]))
    as_yolo(tmp_path / "yolo")
    put(tmp_path / "yolo" / "labels" / "train" / "b.txt", "")
    put(tmp_path / "studio.json", [studio([])])
    put(
        tmp_path / "coco.json",
        coco_file([{"category_id": 3, "segmentation": [[0, 0, 2, 0, 2, 2]], "image_id": 7}]),
    )
    value = json.loads((tmp_path / "coco.json").read_text())
    value["images"].append({"id": 8, "file_name": "b.jpg"})
    put(tmp_path / "coco.json", value)
    found = {export.format: export.pictures for export in exports.find(tmp_path)}
    assert found == {
        "labelme": ["labelme/a.jpg"],
        "YOLO polygons": ["images/train/a", "images/train/b"],
        "Label Studio": ["a.jpg"],
        "COCO": ["a.jpg"],
    }


def test_names_that_mean_void_are_classes_like_others(tmp_path: Path):
    put(
        tmp_path / "a.json",
        labelme_file([{"label": "__ignore__", "points": [[0, 0], [3, 3]], "shape_type": "rectangle"}]),
    )
    export = only(tmp_path)
    assert export.classes == ["__ignore__"]
    assert (export.mask("a.jpg", {"__ignore__": 255}, SIZE, 0) == 255).sum() == 16


def test_two_files_of_labelme_of_one_picture_are_refused(tmp_path: Path):
    for name in ("a", "b"):
        put(tmp_path / f"{name}.json", labelme_file([]))
    with pytest.raises(UserError, match=r"both of a\.jpg"):
        exports.find(tmp_path)


# ---- pictures --------------------------------------------------------------------------------------------


def named(*pictures: str) -> Export:
    return Export("COCO", Path("a.json"), [], list(pictures), lambda picture, size: iter(()))


def paths(*names: str) -> dict[str, Path]:
    return {name: Path("/data", name) for name in names}


@pytest.mark.parametrize(
    ("picture", "found"),
    [
        ("train/a.jpg", "x/train/a.jpg"),
        ("C:\\photos\\val\\a.jpg", "x/val/a.jpg"),
        ("train/a", "x/train/a.jpg"),
        ("val/a.png", "x/val/a.jpg"),
        ("elsewhere/b.jpg", "b.png"),
        ("c.v2.jpg", "c.v2.jpg"),
        ("c.v2", "c.v2.jpg"),
        ("../../etc/passwd", None),
        ("", None),
        ("a.jpg", None),
        ("other/a.jpg", None),
    ],
)
def test_pictures_are_found_by_as_much_of_their_path_as_there_is(picture: str, found: str | None):
    matched = exports.match(
        named(picture), paths("x/train/a.jpg", "x/val/a.jpg", "b.png", "c.v2.jpg", "c.v3.jpg")
    )
    assert matched.names.get(picture) == found
    assert len(matched.problems) == (found is None)


def test_pictures_that_are_nowhere_or_in_several_places_are_told_apart():
    files = paths("x/a.jpg", "y/a.jpg", "b.jpg")
    matched = exports.match(named("a.jpg", "z.jpg", "b.jpg", "old/b.png"), files)
    assert matched.names == {}
    assert [kind for kind, _ in matched.problems] == [
        "pictures in COCO that may be several files",
        "pictures in COCO that are none of the files",
        "files that several pictures in COCO would be",
    ]
    assert [where for _, where in matched.problems] == [
        "a.jpg: x/a.jpg, y/a.jpg",
        "z.jpg",
        "b.jpg: b.jpg, old/b.png",
    ]


@pytest.mark.parametrize(
    ("reference", "path"),
    [
        ("/data/upload/1/0a1b2c3d-a.jpg", "a.jpg"),
        ("/data/upload/1/0a1b2c3d-b%20%C3%BC.jpg", "b ü.jpg"),
        ("/data/upload/a.jpg", "a.jpg"),
        ("https://studio.example/data/upload/7/ffffffff-deadbeef-a.jpg", "deadbeef-a.jpg"),
        ("/data/local-files/?d=photos/sub/a%20b.jpg", "photos/sub/a b.jpg"),
        ("https://studio.example/data/local-files/?d=photos/a.jpg", "photos/a.jpg"),
        ("https://pictures.example/sub/a.jpg?size=large#top", "sub/a.jpg"),
        ("s3://bucket/sub/a.jpg", "sub/a.jpg"),
        ("sub/a 100%.jpg", "sub/a 100%.jpg"),
        ("http://[broken/a.jpg", "http://[broken/a.jpg"),
    ],
)
def test_what_label_studio_calls_a_picture_is_a_path(reference: str, path: str):
    assert label_studio.picture_path(reference) == path


def test_yolos_names_may_lie_among_the_labels_and_are_read_once(tmp_path: Path):
    as_yolo_classes(tmp_path)
    (tmp_path / "classes.txt").rename(tmp_path / "labels" / "classes.txt")
    assert only(tmp_path).classes == ["cat", "dog"]
    put(tmp_path / "data.yaml", "names: [one, two]\n")
    assert only(tmp_path).classes == ["one", "two"]


@settings(max_examples=80, deadline=None)
@given(arrays.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_run_lengths_of_coco_are_those_of_pycocotools(mask: NDArray[np.bool_]):
    packed = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    np.testing.assert_array_equal(runs.from_coco(packed, mask.shape), mask)
    np.testing.assert_array_equal(
        runs.from_coco(runs.lengths(mask.ravel(order="F")).tolist(), mask.shape), mask
    )


@settings(max_examples=80, deadline=None)
@given(arrays.arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40))))
def test_brushes_are_packed_and_unpacked(mask: NDArray[np.bool_]):
    np.testing.assert_array_equal(runs.from_brush(runs.to_brush(mask), mask.shape), mask)
