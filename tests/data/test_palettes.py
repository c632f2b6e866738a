from pathlib import Path

import numpy as np
import pytest
from data.encoders import png
from PIL import Image

from u2pl.data.catalog import built_in
from u2pl.data.description import Description, default_color, read_mask
from u2pl.data.inspection import BadFile
from u2pl.data.palettes import is_ramp

Color = tuple[int, int, int]
BLACK, WHITE, RED, GREEN, GREY = (0, 0, 0), (255, 255, 255), (200, 30, 30), (30, 200, 30), (224, 224, 192)
RAMP = [(k, k, k) for k in range(256)]


def of(*colors: Color, **keys: object) -> Description:
    """A description of as many classes as there are colours."""
    return Description(name="x", classes=[f"c{k}" for k in range(len(colors))], colors=list(colors), **keys)  # type: ignore[arg-type]


def mask(path: Path, indices: list[int], palette: list[Color]) -> Path:
    picture = Image.fromarray(np.array([indices], dtype=np.uint8))
    # All 256, since Pillow takes fewer bits for fewer colours and cuts larger indices.
    picture.putpalette([value for color in palette for value in color])
    picture.save(path / "m.png", bits=8)
    return path / "m.png"


@pytest.mark.parametrize(
    ("indices", "palette", "description", "classes"),
    [
        ([0, 1, 2], [RED, BLACK, GREEN], of(BLACK, RED, GREEN), [1, 0, 2]),
        ([0, 2], [RED, BLACK, GREEN], of(BLACK, RED, GREEN), [1, 2]),
        ([1, 0, 3], [GREY, BLACK, GREEN, RED], of(BLACK, RED, ignore_color=GREY), [0, 255, 1]),
        ([0, 1], [WHITE, BLACK], of(BLACK, WHITE), [1, 0]),
        ([0, 1], [BLACK, WHITE], of(WHITE, BLACK), [1, 0]),
        ([0, 1], [BLACK, WHITE], of(BLACK, RED, WHITE), [0, 2]),
        ([2, 0, 1], [GREY, RED, BLACK], of(BLACK, RED, ignore_index=2, ignore_color=GREY), [0, 2, 1]),
        ([2, 0, 1], [BLACK, RED, GREY], of(BLACK, RED, ignore_color=GREY), [255, 0, 1]),
        ([2, 2], [BLACK, RED, GREY], of(BLACK, RED, ignore_color=GREY), [255, 255]),
    ],
)  # fmt: skip
def test_where_all_colours_are_classes_the_colours_count(
    tmp_path: Path, indices: list[int], palette: list[Color], description: Description, classes: list[int]
) -> None:
    assert read_mask(mask(tmp_path, indices, palette), description).tolist() == [classes]


@pytest.mark.parametrize(
    ("indices", "palette", "description"),
    [
        ([0, 1, 2, 255], RAMP, of(BLACK, RED, GREEN)),
        ([0, 1], [BLACK, WHITE], of(GREEN, RED)),
        ([0, 1, 2], [(0, 0, 0), (85, 85, 85), (170, 170, 170), (255, 255, 255)], of(BLACK, RED, GREEN)),
        ([0, 1, 255], [BLACK, RED, *[(7, 7, 7)] * 254], of(BLACK, RED)),
        ([0, 1, 255], [BLACK, RED, *[BLACK] * 254], of(BLACK, RED)),
        ([255, 255], [BLACK, RED, *[BLACK] * 254], of(BLACK, RED)),
        ([0, 255], [BLACK, *[(9, 9, 9)] * 255], of(BLACK, RED)),
    ],
)
def test_where_a_palette_is_grey_or_has_the_classes_own_colours_the_indices_count(
    tmp_path: Path, indices: list[int], palette: list[Color], description: Description
) -> None:
    assert read_mask(mask(tmp_path, indices, palette), description).tolist() == [indices]


@pytest.mark.parametrize(
    ("indices", "palette", "description", "said"),
    [
        ([0, 1], [BLACK, (200, 30, 31)], of(BLACK, RED), r"index 1 is \(200, 30, 31\); .*it is c1, \(200, 30, 30\)"),
        ([0, 1, 2], [BLACK, GREEN, WHITE], of(BLACK, RED, GREEN), r"1 is \(30, 200, 30\), the colour of c2; .* c1, "),
        ([0, 7], [BLACK, *[(9, 99, 9)] * 9], of(BLACK, RED), r"index 7 is \(9, 99, 9\); .* it is no class"),
        ([0, 255], RAMP, of(BLACK, WHITE), r"index 255 is \(255, 255, 255\), the colour of c1; .* it is void"),
        ([0, 0], RAMP, of(WHITE, BLACK), r"index 0 is \(0, 0, 0\), the colour of c1; .* it is c0, \(255, 255, 255\)"),
        ([0, 1, 255], [RED, BLACK, *[BLACK] * 254], of(BLACK, RED), r"index 255 is \(0, 0, 0\), the colour of c0"),
    ],
)  # fmt: skip
def test_what_can_be_meant_either_way_is_refused_with_both_colours(
    tmp_path: Path, indices: list[int], palette: list[Color], description: Description, said: str
) -> None:
    path = mask(tmp_path, indices, palette)
    with pytest.raises(BadFile, match=rf"palette: indices.*palette: colors.*{said}"):
        read_mask(path, description)
    chosen = description.model_copy(update={"palette": "indices"})
    if 7 not in indices:
        assert read_mask(path, chosen).tolist() == [indices]


def test_the_description_may_say_that_colours_count(tmp_path: Path) -> None:
    colors = of(BLACK, WHITE, palette="colors")
    assert read_mask(mask(tmp_path, [0, 255], RAMP), colors).tolist() == [[0, 1]]
    with pytest.raises(BadFile, match=r"mask colour that is neither a class nor ignored.*\(1, 1, 1\)"):
        read_mask(mask(tmp_path, [0, 1], RAMP), colors)
    short = [png(np.array([[0, 9]]), 8, 3, (b"PLTE", bytes([*BLACK, *other]))) for other in (WHITE, GREEN)]
    (tmp_path / "m.png").write_bytes(short[0])
    with pytest.raises(BadFile, match="its palette has no colour for"):
        read_mask(tmp_path / "m.png", colors)
    (tmp_path / "m.png").write_bytes(short[1])
    with pytest.raises(BadFile, match="index 9 is without colour"):
        read_mask(tmp_path / "m.png", of(BLACK, RED))


def test_without_colours_in_the_description_the_indices_count(tmp_path: Path) -> None:
    plain = Description(name="x", classes=["a", "b"])
    assert read_mask(mask(tmp_path, [1, 0, 255], [RED, GREEN, *[WHITE] * 254]), plain).tolist() == [
        [1, 0, 255]
    ]


def test_the_palette_of_zero_is_void_is_compared_by_class(tmp_path: Path) -> None:
    shifted = of(BLACK, RED, zero="void")
    assert read_mask(mask(tmp_path, [0, 1, 2], [GREY, BLACK, RED]), shifted).tolist() == [[255, 0, 1]]
    with pytest.raises(BadFile, match=r"index 1 is \(30, 200, 30\); .*it is c0"):
        read_mask(mask(tmp_path, [1, 2], [BLACK, GREEN, RED]), shifted)


@pytest.mark.parametrize("name", ["voc", "camvid", "facade"])
def test_palettes_of_built_in_data_sets_never_matter(tmp_path: Path, name: str) -> None:
    description = built_in()[name].description
    indices = [0, 5, len(description.classes) - 1, description.ignore_index]
    for palette in ([default_color(k) for k in range(256)], RAMP, [RED] * 256):
        assert read_mask(mask(tmp_path, indices, palette), description).tolist() == [indices]


def test_a_ramp_rises_evenly_from_black() -> None:
    assert is_ramp(RAMP) and is_ramp(RAMP[:2]) and is_ramp([BLACK, (51, 51, 51), (102, 102, 102)])
    for palette in ([], [BLACK], RAMP[1:], RAMP[::-1], [BLACK] * 9, [BLACK, RED], [BLACK, *RAMP[2:]]):
        assert not is_ramp(palette)


@pytest.mark.parametrize(
    "description", [of(BLACK, RED), of(RED, GREEN, ignore_color=BLACK)], ids=["a class's", "void's"]
)
def test_an_index_that_only_fills_a_palette_up_means_nothing(
    tmp_path: Path, description: Description
) -> None:
    palette = [*description.colors, *[BLACK] * (256 - len(description.colors))]
    with pytest.raises(BadFile, match="neither a class nor ignored"):
        read_mask(mask(tmp_path, [0, 1, 7], palette), description)
