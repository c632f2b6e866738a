"""Small data sets that were misread elsewhere, of which nothing is said: the masks must be the truth."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from u2pl.auto import data_set
from u2pl.auto.folder import understand
from u2pl.data.inspection import upright
from u2pl.errors import UserError
from u2pl.project import Project

CASES = Path(__file__).parents[3] / "shared" / "cases"
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="the shared data sets are not here")


@pytest.mark.parametrize(
    "case",
    ["01-palette-order", "01b-quantize", "05c-exif-both", "07-val-0-255", "09-two-columns"],
)
def test_classes_are_the_true_ones_but_for_their_order(project: Project, case: str):
    made = data_set.make(project, understand(CASES / case))
    with np.load(CASES / case / "truth.npz") as truths:
        pairs = set()
        for name, truth in truths.items():
            with Image.open(next((CASES / case / "images").glob(f"{Path(name).name}.*"))) as picture:
                truth = upright(truth, picture.getexif().get(0x0112, 1))
            written = np.asarray(Image.open(next((made.folder / "masks").rglob(f"{Path(name).name}.png"))))
            assert written.shape == truth.shape
            pairs |= set(zip(truth.reshape(-1).tolist(), written.reshape(-1).tolist(), strict=True))
    assert len({truth for truth, _ in pairs}) == len({ours for _, ours in pairs}) == len(pairs)


@pytest.mark.parametrize(("case", "said"), [("02c-jpeg-in-range", "saved with loss"), ("06-rgb16", "8 bits")])
def test_what_cannot_be_read_as_it_is_meant_is_refused_with_the_reason(case: str, said: str):
    with pytest.raises(UserError, match=said):
        understand(CASES / case)
