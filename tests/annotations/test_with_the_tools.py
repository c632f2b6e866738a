"""The tools' own libraries and checks take what is written, and what they write is read: the same pixel by pixel.

`make test` installs them where u2pl is not: datumaro is what CVAT imports and exports with.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from u2pl.annotations import exports, labelme, runs, write
from u2pl.annotations.write import PreAnnotation
from u2pl.data.pictures import write_png

TOOLS = Path(sys.prefix) / "annotation-tools" / "bin" / "python"
CLASSES = ["background", "crack & rust", "moss"]
COLORS = [(0, 0, 0), (200, 30, 40), (0, 255, 7)]
INDEX = {name: k for k, name in enumerate(CLASSES)}

pytestmark = pytest.mark.skipif(not TOOLS.exists(), reason="`make test` installs the tools' libraries")


def ask(beside: Path, **job: Any) -> dict[str, NDArray[Any]]:
    answer = beside / "answer.npz"
    done = subprocess.run(
        [TOOLS, Path(__file__).with_name("tool_reader.py")],
        input=json.dumps({**job, "answer": str(answer)}),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(answer) as found:
        return dict(found)


def drawn(count: int = 12, blank: bool = True) -> list[PreAnnotation]:
    """Masks of every kind: noise, patches, one class alone, a single pixel or row, nothing at all."""
    random = np.random.default_rng(22)
    values = [0, 1, 2, 255] if blank else [0, 1, 2]
    sizes = [(1, 1), (1, 9), (7, 1), *((int(h), int(w)) for h, w in random.integers(2, 60, (count, 2)))]
    masks = [random.choice(values, size).astype(np.uint8) for size in sizes]
    masks += [np.repeat(np.repeat(mask, 7, 0), 5, 1) for mask in masks[3:6]]
    masks += [np.full((300, 500), k, np.uint8) for k in values]
    return [PreAnnotation(Path(f"photos/p{k}.png"), f"p{k}", mask) for k, mask in enumerate(masks)]


def test_datumaro_reads_what_is_written_for_cvat(tmp_path: Path):
    images = drawn()
    write.cvat(tmp_path / "out", images, CLASSES, COLORS)
    for image in images:  # datumaro reads pictures from here; CVAT has those of its task
        write_png(
            tmp_path / "out" / "images" / f"{image.name}.png", np.zeros((*image.mask.shape, 3), np.uint8)
        )
    found = ask(tmp_path, do="cvat_read", folder=str(tmp_path / "out"), classes=CLASSES)
    assert found.keys() == {image.name for image in images}
    for image in images:
        np.testing.assert_array_equal(found[image.name], image.mask)


@pytest.mark.parametrize(
    ("form", "how", "name"),
    [
        ("cvat", {}, "CVAT for images"),
        ("voc_segmentation", {"label_map": "source"}, "CVAT segmentation mask"),
        ("coco_instances", {}, "COCO"),
    ],
)
def test_what_datumaro_writes_is_read(form: str, how: dict[str, str], name: str, tmp_path: Path):
    images = drawn(blank=False)
    true = {image.name: image.mask for image in images}
    masks = {key: mask.tolist() for key, mask in true.items()}
    folder = tmp_path / "out"
    ask(tmp_path, do="datumaro_write", form=form, folder=str(folder), masks=masks, classes=CLASSES, **how)
    (export,) = exports.find(folder)
    black = name == "CVAT segmentation mask"  # its background is where nothing is
    assert (export.format, export.classes) == (name, CLASSES[1:] if black else CLASSES)
    matched = exports.match(export, {image.name: image.file for image in images})
    assert (matched.problems, set(matched.names.values())) == ([], set(true))
    for picture, key in matched.names.items():
        mask = export.mask(picture, INDEX, true[key].shape, 0 if black else 255)
        np.testing.assert_array_equal(mask, true[key])


def test_label_studio_checks_and_decodes_what_is_written_for_it(tmp_path: Path):
    images = drawn()
    write.label_studio(tmp_path / "out", images, CLASSES, COLORS, model="run-1")
    found = ask(tmp_path, do="label_studio_read", folder=str(tmp_path / "out"), classes=CLASSES)
    for image in images:
        np.testing.assert_array_equal(found.get(image.name, np.full(image.mask.shape, 255)), image.mask)


def test_the_brushes_of_label_studio_are_read(tmp_path: Path):
    masks = {image.name: (image.mask == 1).astype(int) for image in drawn()}
    found = ask(
        tmp_path, do="label_studio_write", masks={name: mask.tolist() for name, mask in masks.items()}
    )
    for name, mask in masks.items():
        np.testing.assert_array_equal(runs.from_brush(found[name].tolist(), mask.shape), mask > 0)


def test_shapes_are_drawn_as_labelme_draws_them(tmp_path: Path):
    random = np.random.default_rng(22)
    corners = {
        "polygon": 6,
        "rectangle": 2,
        "circle": 2,
        "line": 2,
        "linestrip": 4,
        "point": 1,
        "oriented_rectangle": 4,
    }
    shapes = [
        {"label": "a", "shape_type": kind, "points": random.uniform(-5, 55, (count, 2)).round(2).tolist()}
        for kind, count in corners.items()
        for _ in range(20)
    ]
    found = ask(tmp_path, do="labelme_read", shapes=shapes, size=[40, 50])
    for k, shape in enumerate(shapes):
        np.testing.assert_array_equal(found[str(k)], labelme.drawn(shape, (40, 50)), shape["shape_type"])
