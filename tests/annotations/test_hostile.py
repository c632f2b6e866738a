"""Files that are damaged, absurd or meant to harm: a sentence that says what to do, soon, and nothing read outside."""

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from test_exports import SIZE, TOOLS, coco_file, cvat_file, labelme_file, put, studio

from u2pl.annotations import exports, runs
from u2pl.annotations.regions import BadShape
from u2pl.errors import UserError

CLASSES = {"cat": 1, "dog": 2}


def read_all(folder: Path, size: tuple[int, int] = SIZE) -> None:
    for export in exports.find(folder):
        for picture in export.pictures:
            export.mask(picture, CLASSES, size, 0)


def refused(folder: Path, size: tuple[int, int] = SIZE) -> str:
    begun = time.monotonic()
    with pytest.raises(UserError) as error:
        read_all(folder, size)
    assert time.monotonic() - begun < 20
    text = str(error.value)
    assert str(folder) in text
    assert text.endswith(".")
    assert len(text) < 1500
    return text


def shape(kind: str, points: Any, **more: Any) -> dict[str, Any]:
    return labelme_file([{"label": "cat", "points": points, "shape_type": kind, **more}])


def segmentation(value: Any, **more: Any) -> dict[str, Any]:
    return coco_file([{"category_id": 3, "segmentation": value, **more}])


def region(kind: str, **value: Any) -> list[dict[str, Any]]:
    return [studio([{"id": "r", "type": f"{kind}labels", "value": {**value, f"{kind}labels": ["cat"]}}])]


FAR = 1e15
JSON: dict[str, Any] = {
    "labelme, far away": shape("polygon", [[0, 0], [FAR, 0], [0, FAR]]),
    "labelme, a line without end": shape("line", [[-FAR, 0], [FAR, 3]]),
    "labelme, a disc without end": shape("circle", [[1, 1], [FAR, 1]]),
    "labelme, two corners": shape("polygon", [[0, 0], [1, 1]]),
    "labelme, no corner": shape("rectangle", []),
    "labelme, a corner of three": shape("polygon", [[0, 0, 0], [1, 1, 1], [2, 2, 2]]),
    "labelme, unknown shape": shape("cube", [[0, 0], [1, 1]]),
    "labelme, no mask": shape("mask", [[0, 0], [1, 1]], mask=None),
    "labelme, no picture": shape("mask", [[0, 0], [1, 1]], mask="aGVsbG8="),
    "labelme, no base64": shape("mask", [[0, 0], [1, 1]], mask="?*"),
    "labelme, words for numbers": shape("polygon", [["a", "b"]]),
    "labelme, shapes of another kind": {"shapes": 5, "imagePath": "a.jpg"},
    "labelme, no path": {"shapes": [], "imagePath": None},
    "coco, odd": segmentation([[0, 0, 1, 1, 2]]),
    "coco, far away": segmentation([[0, 0, FAR, 0, 0, FAR]]),
    "coco, more than the picture": segmentation({"size": list(SIZE), "counts": [0, 10**9]}),
    "coco, negative": segmentation({"size": list(SIZE), "counts": [-1, 49]}),
    "coco, less than the picture": segmentation({"size": list(SIZE), "counts": [3, 4]}),
    "coco, larger than numbers": segmentation({"size": list(SIZE), "counts": [2**70]}),
    "coco, a huge size": segmentation({"size": [10**9, 10**9], "counts": [10**18]}),
    "coco, no text of COCO": segmentation({"size": list(SIZE), "counts": "\u00e9\u00e9"}),
    "coco, a text that breaks off": segmentation({"size": list(SIZE), "counts": "o" * 3}),
    "coco, a text without end": segmentation({"size": list(SIZE), "counts": "o" * 10**6}),
    "coco, size of one number": segmentation({"size": [6], "counts": "1"}),
    "coco, no class": coco_file([{"category_id": 77, "segmentation": [[0, 0, 1, 1, 2, 2]]}]),
    "coco, no picture": coco_file([{"image_id": 8, "category_id": 3, "segmentation": [[0, 0, 1, 1, 2, 2]]}]),
    "coco, tables of another kind": {"images": {}, "annotations": "x", "categories": []},
    "coco, neither outline nor box": {
        **coco_file(
            [{"category_id": 3, "segmentation": [[0, 0, 1, 1, 2, 2]]}, {"category_id": 3, "segmentation": []}]
        )
    },
    "studio, absurd brush": region("brush", rle=[255] * 40),
    "studio, short brush": region("brush", rle=[0, 0, 0, 4 * 48]),
    "studio, no bytes": region("brush", rle=[1000, -1]),
    "studio, words": region("brush", rle="aaaa"),
    "studio, no brush": region("brush"),
    "studio, far away": region("polygon", points=[[0, 0], [FAR, 0], [0, FAR]]),
    "studio, a corner of one": region("polygon", points=[[0], [1], [2]]),
    "studio, no corners": region("polygon"),
    "studio, no sides": region("rectangle", x=1, y=2),
    "studio, a turn of words": region("rectangle", x=1, y=2, width=1, height=1, rotation="much"),
    "studio, no picture": region("bitmask", imageDataURL="data:image/png;base64,aGVsbG8="),
    "studio, no data": [{"data": {}, "annotations": [{"result": []}]}],
    "studio, answers of another kind": [{"data": {"image": "a.jpg"}, "annotations": 5}],
    "studio, the other JSON": [{"image": "a.jpg", "annotation_id": 1, "annotator": 1}],
}


@pytest.mark.parametrize("what", JSON)
def test_json_that_cannot_be_is_refused_in_a_sentence(what: str, tmp_path: Path):
    put(tmp_path / "export.json", JSON[what])
    refused(tmp_path)


SHAPES = {
    "far away": f"<polygon label='cat' points='0,0;{FAR},0;0,{FAR}'/>",
    "no numbers": "<polygon label='cat' points='a,b;c,d;e,f'/>",
    "nan": "<polygon label='cat' points='nan,nan;1,1;2,2'/>",
    "no points": "<polygon label='cat'/>",
    "a corner of three": "<polygon label='cat' points='1,2,3;1,2,3;1,2,3'/>",
    "no label": "<polygon points='1,2;1,3;2,3'/>",
    "a box without end": f"<box label='cat' xtl='0' ytl='0' xbr='{FAR}' ybr='1'/>",
    "a box with a side missing": "<box label='cat' xtl='0' ytl='0' xbr='1'/>",
    "a huge mask": f"<mask label='cat' rle='0,{10**18}' left='0' top='0' width='{10**9}' height='{10**9}'/>",
    "a mask of nothing": "<mask label='cat' rle='0' left='0' top='0' width='0' height='0'/>",
    "too many pixels": f"<mask label='cat' rle='0,{10**18}' left='0' top='0' width='2' height='2'/>",
    "negative pixels": "<mask label='cat' rle='-4,8' left='0' top='0' width='2' height='2'/>",
    "no pixels": "<mask label='cat' left='0' top='0' width='2' height='2'/>",
    "far pixels": "<mask label='cat' rle='0,4' left='1000000' top='0' width='2' height='2'/>",
    "order of words": "<box label='cat' xtl='0' ytl='0' xbr='1' ybr='1' z_order='top'/>",
}


@pytest.mark.parametrize("what", SHAPES)
def test_cvats_shapes_that_cannot_be_are_refused_in_a_sentence(what: str, tmp_path: Path):
    put(tmp_path / "annotations.xml", cvat_file(SHAPES[what]))
    refused(tmp_path)


BOMB = "<!DOCTYPE a [<!ENTITY a0 'aaaaaaaaaa'>{}]>".format(
    "".join(f"<!ENTITY a{k} '{f'&a{k - 1};' * 10}'>" for k in range(1, 12))
)
XML = {
    "entities of entities": BOMB + "<annotations><version>&a11;</version></annotations>",
    "a file of the machine": "<!DOCTYPE a [<!ENTITY f SYSTEM 'file:///etc/passwd'>]><annotations>&f;</annotations>",
    "a definition elsewhere": "<!DOCTYPE a SYSTEM 'http://127.0.0.1:9/a.dtd'><annotations/>",
    "broken off": cvat_file("<box label='cat'")[:-60],
    "an unknown encoding": "<?xml version='1.0' encoding='klingon'?><annotations/>",
    "a video": "<annotations><version>1.1</version><track id='0' label='cat'/></annotations>",
    "a picture without a name": "<annotations><version>1.1</version><image id='0'/></annotations>",
}


@pytest.mark.parametrize("what", XML)
def test_xml_with_entities_and_damaged_xml_are_refused_in_a_sentence(what: str, tmp_path: Path):
    put(tmp_path / "annotations.xml", XML[what])
    assert "root:" not in refused(tmp_path)


def test_labels_of_masks_that_cannot_be_are_refused_in_a_sentence(tmp_path: Path):
    (tmp_path / "SegmentationClass").mkdir()
    for text in (
        "cat\n",
        "cat:1,2::\n",
        "cat:1,2,300::\n",
        "cat:1,2,3::\ndog:1,2,3::\n",
        "cat:1,2,3::\ncat:1,2,4::\n",
    ):
        put(tmp_path / "labelmap.txt", text)
        refused(tmp_path)
    put(tmp_path / "labelmap.txt", "cat:1,2,3::\n")
    Image.new("RGB", SIZE[::-1], (1, 2, 4)).save(tmp_path / "SegmentationClass" / "a.png")
    assert "#010204" in refused(tmp_path)
    (tmp_path / "SegmentationClass" / "a.png").write_bytes(b"no picture")
    refused(tmp_path)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ("0 0.1 0.2 0.3\n", "names: [cat]\n"),
        ("0 0.1 0.2 0.3 0.4 0.5\n", "names: [cat]\n"),
        ("cat 0.1 0.2 0.3 0.4 0.5 0.6\n", "names: [cat]\n"),
        ("-1 0.1 0.2 0.3 0.4 0.5 0.6\n", "names: [cat]\n"),
        ("7 0.1 0.2 0.3 0.4 0.5 0.6\n", "names: [cat]\n"),
        ("0 0.1 0.2 0.3 0.4 0.5 1e300\n", "names: [cat]\n"),
        ("0 0.1 0.2 0.3 0.4 0.5 nan\n", "names: [cat]\n"),
        ("0 0.1 0.2 0.3 0.4 0.5 0.6\n", "names: 5\n"),
        ("0 0.1 0.2 0.3 0.4 0.5 0.6\n", "names: {1: cat}\n"),
        ("0 0.1 0.2 0.3 0.4 0.5 0.6\n", "names: [cat\n"),
        ("0 0.1 0.2 0.3 0.4 0.5 0.6\n", "names: !!python/object/apply:os.getcwd []\n"),
        ("0 0.1 0.2 0.3 0.4 0.5 0.6\n", "names: " + "[" * 100_000),
    ],
)
def test_yolos_files_that_cannot_be_are_refused_in_a_sentence(labels: str, names: str, tmp_path: Path):
    put(tmp_path / "data.yaml", names)
    put(tmp_path / "labels" / "a.txt", labels)
    refused(tmp_path)


@pytest.mark.parametrize(
    "tool", [tool for tool in TOOLS if tool.startswith(("labelme", "coco", "cvat", "label"))]
)
def test_a_file_that_breaks_off_anywhere_is_refused_or_is_none_and_never_fails(tool: str, tmp_path: Path):
    TOOLS[tool][1](tmp_path)
    path = next(path for path in sorted(tmp_path.rglob("*")) if path.suffix in {".json", ".xml", ".png"})
    whole = path.read_bytes()
    sentences = 0
    for end in range(0, len(whole), max(1, len(whole) // 60)):
        path.write_bytes(whole[:end])
        try:
            read_all(tmp_path)
        except UserError:
            sentences += 1
    assert sentences > 20


def test_fifty_megabytes_of_brackets_and_of_numbers_are_no_trouble(tmp_path: Path):
    for name, text in [
        ("deep.json", '{"shapes": [], "imagePath": ' + "[" * 50_000_000),
        ("long.json", '[{"data": {"image": "a.jpg"}, "annotations": [' + "1," * 25_000_000 + "1]}]"),
    ]:
        put(tmp_path / name, text)
        refused(tmp_path)
        (tmp_path / name).unlink()


def test_fifty_megabytes_of_corners_and_of_objects_are_no_trouble(tmp_path: Path):
    for shapes in (
        "<polygon label='cat' points='" + "1,2;" * 12_000_000 + "1,2'/>",
        "<box label='cat' xtl='0' ytl='0' xbr='1' ybr='1'/>" * 200_000,
    ):
        put(tmp_path / "annotations.xml", cvat_file(shapes))
        assert "more than" in refused(tmp_path)
    (tmp_path / "annotations.xml").unlink()
    put(tmp_path / "a.json", shape("polygon", [[1, 2]] * 200_000))
    assert "more than 100,000 corners" in refused(tmp_path)


def test_deep_json_that_is_no_export_and_other_files_are_passed_over(tmp_path: Path):
    put(tmp_path / "deep.json", "[" * 100_000)
    put(tmp_path / "half.json", '{"a": ')
    put(tmp_path / "tasks.json", [{"data": 1}])
    put(tmp_path / "map.xml", "<osm><node/></osm>")
    put(tmp_path / "notes.xml", "<annotations><note/></annotations>")
    put(tmp_path / "conf.yaml", "names: [a]\n")
    put(tmp_path / "labels" / "a.txt", "0 0.5 0.5 0.1 0.1\n")
    (tmp_path / "binary.json").write_bytes(bytes(range(256)))
    (tmp_path / "folder.json").mkdir()
    assert exports.find(tmp_path) == []


def test_nothing_outside_of_the_folder_is_read(tmp_path: Path):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for folder in (inside, outside):
        folder.mkdir()
    for _, write in TOOLS.values():
        write(outside) if not (outside / "SegmentationClass").exists() else None
    (inside / "linked").symlink_to(outside)
    (inside / "a.json").symlink_to(outside / "a.json")
    (inside / "loop").symlink_to(inside)
    assert exports.find(inside) == []
    put(
        inside / "up.json",
        labelme_file([{"label": "cat", "points": [[0, 0], [3, 0], [0, 3]]}], "../../etc/passwd"),
    )
    (export,) = exports.find(inside)
    assert exports.match(export, {"x": inside / "x.jpg"}).names == {}
    assert export.mask(export.pictures[0], CLASSES, SIZE, 0).any()


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 255), max_size=60), st.tuples(st.integers(1, 5), st.integers(1, 5)))
def test_any_bytes_as_a_brush_are_a_region_or_a_sentence(data: list[int], size: tuple[int, int]):
    whole = [*(4 * size[0] * size[1]).to_bytes(4, "big"), 56 | (data[0] & 7 if data else 0), *data[1:]]
    for each in (data, whole):
        try:
            assert runs.from_brush(each, size).shape == size
        except BadShape as error:
            assert str(error)


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.text(st.characters(codec="utf-8"), max_size=30),
        st.text("0123456789:;<=>?@abcdeflmno", max_size=30),
    ),
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
)
def test_any_text_as_run_lengths_of_coco_is_a_region_or_a_sentence(text: str, size: tuple[int, int]):
    try:
        assert runs.from_coco(text, size).shape == size
    except BadShape as error:
        assert str(error)
