from pathlib import Path

import numpy as np
from PIL import Image

from u2pl.trust import sheets
from u2pl.trust.sheets import MARK, Row, marked, sheet


def test_a_sheet_has_a_row_an_image_and_pictures_of_any_size(tmp_path: Path) -> None:
    red, blue = np.zeros((40, 30, 3), np.uint8), np.zeros((500, 3000, 3), np.uint8)
    red[..., 0], blue[..., 2] = 255, 255
    path = tmp_path / "sheet.png"
    sheet(path, ("one", "two"), [Row("a" * 300, "why " * 100, (red, blue)), Row("b", "", (blue, red))])
    with Image.open(path) as opened:
        pixels = np.array(opened)
    assert pixels.shape[1] == 2 * (sheets.WIDEST + sheets.GAP) + sheets.GAP
    count = {tuple(color): (pixels == color).all(axis=2).sum() for color in ((255, 0, 0), (0, 0, 255))}
    assert count[255, 0, 0] == 2 * 160 * 120 and count[0, 0, 255] == 2 * 320 * 53
    sheet(path, ("one",), [])
    assert not path.exists()


def test_marked_pixels_stand_out_of_a_grey_picture() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (5, 6, 3)).astype(np.uint8)
    where = np.zeros((5, 6), bool)
    where[2, 3] = True
    found = marked(picture, where)
    assert tuple(found[2, 3]) == MARK and (found[~where].std(axis=1) == 0).all()
