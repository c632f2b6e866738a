"""Pre-annotations for CVAT and Label Studio: written, read back, and the same pixel by pixel."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from u2pl.annotations import exports, write
from u2pl.annotations.write import PreAnnotation

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
