"""Pre-annotations for CVAT and Label Studio: written, read back, and the same pixel by pixel."""

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from u2pl.annotations import exports, write
from u2pl.annotations.write import PreAnnotation
from u2pl.errors import UserError

CLASSES = ["background", "crack & rust", "<moss>"]
COLORS = [(0, 0, 0), (200, 30, 40), (0, 255, 7)]
INDEX = {name: k for k, name in enumerate(CLASSES)}

MASKS = arrays.arrays(
    np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.sampled_from([0, 1, 2, 255])
)
EXAMPLES = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def submitted(tasks: Path) -> None:
    """What Label Studio exports once somebody has submitted the predictions as they are."""
    answered = [
        {
            **task,
            "id": k,
            "annotations": [{"result": task["predictions"][0]["result"], "was_cancelled": False}],
        }
        for k, task in enumerate(json.loads(tasks.read_text()))
    ]
    tasks.write_text(json.dumps(answered))


def back(folder: Path, tool: str, images: list[PreAnnotation]) -> list[NDArray[np.uint8]]:
    if tool == "CVAT":
        write.cvat(folder, images, CLASSES, COLORS)
    else:
        write.label_studio(folder, images, CLASSES, COLORS, model="run-1")
        submitted(folder / "tasks.json")
    found = exports.find(folder)
    if not found:  # CVAT of blank masks alone
        return [np.full(image.mask.shape, 255, np.uint8) for image in images]
    matched = exports.match(found[0], {image.name: image.file for image in images})
    assert not matched.problems
    picture_of = {key: picture for picture, key in matched.names.items()}
    return [
        found[0].mask(picture_of[image.name], INDEX, image.mask.shape, 255)
        if image.name in picture_of
        else np.full(image.mask.shape, 255, np.uint8)
        for image in images
    ]


@pytest.mark.parametrize("tool", ["CVAT", "Label Studio"])
@EXAMPLES
@given(masks=st.lists(MASKS, min_size=1, max_size=3))
def test_what_is_written_is_read_back_pixel_by_pixel(
    tool: str, masks, tmp_path_factory: pytest.TempPathFactory
):
    folder = tmp_path_factory.mktemp("out")
    images = [
        PreAnnotation(folder / "photos" / f"a/b {k} ü%.jpg", f"a/b {k} ü%", mask)
        for k, mask in enumerate(masks)
    ]
    for image, mask in zip(images, back(folder / "out", tool, images), strict=True):
        np.testing.assert_array_equal(mask, image.mask)


def written(tmp_path: Path) -> list[PreAnnotation]:
    mask = np.array([[255, 1, 1], [255, 1, 2]], np.uint8)
    return [
        PreAnnotation(tmp_path / "photos" / "x" / "a b.JPG", "x/a b", mask),
        PreAnnotation(tmp_path / "photos" / "y" / "c.png", "y/c.png", np.full((2, 2), 255, np.uint8)),
    ]


def test_cvat_gets_one_mask_a_class_in_its_own_run_lengths_and_labels_with_colours(tmp_path: Path):
    files = write.cvat(tmp_path / "out", written(tmp_path), CLASSES, COLORS)
    assert [file.name for file in files] == ["annotations.xml", "labels.json", "import.txt"]
    root = ElementTree.parse(files[0]).getroot()
    assert [image.get("name") for image in root.iter("image")] == ["x/a b.JPG", "y/c.png"]
    first, second = root.iter("mask")  # pixels without and with the class in turn, along the rows of the box
    assert first.attrib == {
        **{"label": "crack & rust", "source": "auto", "occluded": "0", "z_order": "0", "rle": "0, 3, 1"},
        **{"left": "1", "top": "0", "width": "2", "height": "2"},
    }
    assert (second.get("label"), second.get("rle"), second.get("left"), second.get("top")) == (
        "<moss>",
        "0, 1",
        "2",
        "1",
    )
    labels = [
        {"name": n, "color": c, "attributes": []}
        for n, c in zip(CLASSES, ["#000000", "#c81e28", "#00ff07"], strict=True)
    ]
    assert json.loads(files[1].read_text()) == labels
    assert len(files[2].read_text().splitlines()) == 2


def test_label_studio_gets_files_below_its_document_root_and_a_configuration_with_colours(tmp_path: Path):
    files = write.label_studio(tmp_path / "out", written(tmp_path), CLASSES, COLORS, model="facade-1")
    assert [file.name for file in files] == ["tasks.json", "label_config.xml", "import.txt"]
    tasks = json.loads(files[0].read_text())
    assert [task["data"]["image"] for task in tasks] == [
        "/data/local-files/?d=photos/x/a%20b.JPG",
        "/data/local-files/?d=photos/y/c.png",
    ]
    assert [(p["model_version"], len(p["result"])) for task in tasks for p in task["predictions"]] == [
        ("facade-1", 2),
        ("facade-1", 0),
    ]
    labels = ElementTree.parse(files[1]).getroot().iter("Label")
    assert [label.get("value") for label in labels] == CLASSES
    text = files[2].read_text()
    assert f"DOCUMENT_ROOT={tmp_path}; " in text
    assert f"path {tmp_path / 'photos'}," in text
    assert len(text.splitlines()) == 2


@pytest.mark.parametrize("name", ["bell\a", "half \ud800"])
def test_a_name_that_xml_cannot_have_is_named(name: str, tmp_path: Path):
    images = [PreAnnotation(tmp_path / "a.png", "a", np.zeros((2, 2), np.uint8))]
    for tool in (write.cvat, lambda *each: write.label_studio(*each, model="m")):
        with pytest.raises(UserError, match=r"XML has not\. Rename it"):
            tool(tmp_path / "out", images, [name], COLORS[:1])
    assert not (tmp_path / "out").exists()
