"""Small data sets that were misread once: each is refused in a sentence, or its masks are the truth."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from u2pl.data.inspection import upright
from u2pl.data.prepare import prepare
from u2pl.data.prepared import open_split
from u2pl.errors import UserError
from u2pl.project import Project

CASES = Path(__file__).parents[3] / "shared" / "cases"

pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="../shared/cases is not there")


def described(case: str, folder: Path, **changes: object) -> str:
    """A copy of the case's description, with some keys changed; its files stay where they are."""
    values = yaml.safe_load((CASES / case / "d.yaml").read_text()) | {"root": str(CASES / case)} | changes
    path = folder / "d.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in values.items() if value is not None}))
    return str(path)


@pytest.mark.parametrize(
    ("case", "changes"),
    [
        ("01-palette-order", {}),
        ("01b-quantize", {}),
        ("05c-exif-both", {}),
        ("08-zero-is-void", {"zero": "void"}),
        ("08-zero-is-void", {"zero": "void", "ignore_index": None}),
        (
            "08-zero-is-void",
            {"values": {0: "void", 1: "bg", 2: "c1", 3: "c2", 4: "c3"}, "ignore_index": None},
        ),
    ],
)
def test_the_masks_that_are_written_are_the_truth(
    project: Project, tmp_path: Path, case: str, changes: dict[str, object]
) -> None:
    prepared = prepare(project, described(case, tmp_path, **changes), "1/4")
    split = open_split(project, prepared.description.name, "1/4")
    with np.load(CASES / case / "truth.npz") as truths:
        assert set(truths) == set(split.images)
        for name, truth in truths.items():
            with Image.open(split.images[name]) as picture:  # the truth lies over the picture as stored
                truth = upright(truth, picture.getexif().get(0x0112, 1))
            is_void = np.zeros_like(truth, bool)
            if "zero" in changes or "values" in changes:
                with Image.open(CASES / case / "masks" / f"{name}.png") as mask:
                    is_void = np.array(mask) == 0
            assert np.array_equal(split.mask(name), np.where(is_void, 255, truth))


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("02c-jpeg-in-range", "mask saved with loss, which changes its values"),
        ("06-rgb16", "image with more than 8 bits a channel"),
        ("08-zero-is-void", "where 0 is void and the classes start at 1, write zero: void"),
    ],
)
def test_what_cannot_be_read_as_it_is_meant_is_refused(
    project: Project, tmp_path: Path, case: str, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        prepare(project, described(case, tmp_path), "1/4")
    assert not project.split(case.replace("-", "_"), "1/4").exists()
