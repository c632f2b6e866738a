"""Masks to start from: which pixels are blank, that they read as the data set's own, and how they are shown."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from u2pl.annotations import write
from u2pl.data.description import Description, read_mask
from u2pl.labeling import premasks, sheet
from u2pl.labeling.packed import Packed


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 1), st.sampled_from([1, 7, 1000]))
def test_at_most_a_share_of_all_pixels_is_blank_and_as_many_as_ties_allow(
    seed: int, share: float, values: int
) -> None:
    draw = np.random.default_rng(seed)
    pictures = [
        draw.integers(0, values, (draw.integers(1, 9), 5)).astype(np.uint16)
        * (premasks.LEVELS // values // 2)
        for _ in range(3)
    ]
    limit = premasks.threshold(sum(map(premasks.histogram, pictures)), share)
    whole = np.concatenate([picture.reshape(-1) for picture in pictures])
    assert (whole > limit).mean() <= share
    below = whole[whole <= limit]
    assert (
        below.size == 0
        or (whole >= below.max()).mean() > share
        or limit == 0
        or (whole > limit).mean() == share
    )


def test_the_limit_is_the_quantile_of_all_pictures_together() -> None:
    sure, unsure = (
        np.full((4, 4), 0.01, np.float32),
        np.linspace(0.5, 1.0, 16, dtype=np.float32).reshape(4, 4),
    )
    levels = [premasks.levels(picture, 3) for picture in (sure, unsure)]
    counts = sum(map(premasks.histogram, levels))
    limit = premasks.threshold(counts, 0.25)
    blank = [premasks.blanked(np.ones((4, 4), np.uint8), level, limit, 255) == 255 for level in levels]
    assert not blank[0].any() and blank[1].sum() == 8
    assert (unsure[blank[1]] > np.quantile(np.concatenate([sure, unsure]), 0.75)).all()
    assert not any((level > premasks.threshold(counts, 0)).any() for level in levels)
    assert premasks.levels(np.array([[0, np.log(3), 9]], np.float32), 3).tolist() == [
        [0, premasks.LEVELS - 1, premasks.LEVELS - 1]
    ]


CLASSES = ["sea", "boat", "buoy"]
COLORS = [(0, 90, 200), (255, 255, 255), (255, 160, 0)]


@pytest.mark.parametrize(
    "words",
    [
        {},
        {"colors": COLORS},
        {"colors": COLORS, "palette": "colors"},
        {"colors": COLORS, "palette": "indices"},
        {"colors": COLORS, "ignore_color": (1, 2, 3)},
        {"zero": "void"},
        {"zero": "void", "colors": COLORS},
        {"ignore_index": 7},
        {"values": {5: "sea", 0: "void", 9: "boat", 2: "buoy", 3: "buoy"}},
        {"values": {300: "sea", 0: "void", 9: "boat", 2: "buoy"}, "colors": COLORS},
        {"ignore_index": 0, "zero": "void"},
        {"mask_orientation": "stored"},
    ],
    ids=str,
)
def test_what_is_written_reads_as_the_data_sets_own_masks(words: dict[str, Any], tmp_path: Path) -> None:
    description = Description(name="boats", classes=CLASSES, **words)
    indices = np.array([[0, 1, 2], [2, description.ignore_index, 0]], np.uint8)
    premasks.write(tmp_path / "a.png", indices, description)
    assert (read_mask(tmp_path / "a.png", premasks.readable(description)) == indices).all()
    # The file says what its values mean, to whoever does not know the data set.
    said = premasks.said(tmp_path / "a.png")
    assert said and said.classes == CLASSES
    with Image.open(tmp_path / "a.png") as picture:
        assert said.in_colors == (picture.mode == "RGB")
        shown_as = {
            picture.getpixel((column, row)): indices[row, column] for row in (0, 1) for column in range(3)
        }
    meaning = {value: index for index, value in enumerate(said.values)} | {
        said.blank: description.ignore_index
    }
    assert shown_as.items() <= meaning.items()
    # A tool that saves it in RGB, as many do, changes nothing.
    with Image.open(tmp_path / "a.png") as picture:
        shown = picture.convert("RGB")
        shown.save(tmp_path / "b.png")
    if description.palette != "indices":
        assert (read_mask(tmp_path / "b.png", premasks.readable(description)) == indices).all()
    assert shown.getpixel((1, 0)) == tuple(description.colors[1]), "in the classes' colours"


def test_of_masks_that_others_wrote_or_changed_nothing_is_said(tmp_path: Path) -> None:
    description = Description(name="boats", classes=CLASSES, colors=COLORS)
    ours = tmp_path / "ours.png"
    premasks.write(ours, np.array([[0, 1, 2, 255]], np.uint8), description)
    assert premasks.said(ours) == premasks.Said(CLASSES, [0, 1, 2], 255)
    with Image.open(ours) as picture:
        picture.load()
        text = picture.info[premasks.KEYWORD]

        def save(changed: Image.Image, said: str) -> Path:
            chunks = PngInfo()
            chunks.add_text(premasks.KEYWORD, said)
            changed.save(tmp_path / "changed.png", pnginfo=chunks)
            return tmp_path / "changed.png"

        assert premasks.said(save(picture, text)) == premasks.said(ours)
        turned = picture.remap_palette([3, 2, 1, 0, *range(4, 256)])
        for changed in (turned, picture.convert("RGB"), picture.convert("L")):
            assert premasks.said(save(changed, text)) is None
        facts = json.loads(text)
        for other in (
            *("", "[]", "{}", "1" * 5000, "[" * 5000),
            *(json.dumps({**facts, key: value}) for key in facts for value in (None, [], [[1]], "a")),
        ):
            assert premasks.said(save(picture, other)) is None, other
        picture.save(tmp_path / "anew.png")
        picture.save(tmp_path / "picture.bmp")
    (tmp_path / "damaged.png").write_bytes(ours.read_bytes()[:40])
    (tmp_path / "folder.png").mkdir()
    for name in ("anew.png", "picture.bmp", "damaged.png", "folder.png", "missing.png"):
        assert premasks.said(tmp_path / name) is None, name


def test_masks_of_many_pictures_lie_packed() -> None:
    masks = [np.random.default_rng(k).integers(0, 3, (20 + k, 30)).astype(np.uint8) for k in range(3)]
    packed = Packed()
    for k, mask in enumerate(masks):
        packed.append(Path(f"{k}.png"), str(k), mask[:, ::-1])
    assert len(packed) == 3 and [one.name for one in packed[1:]] == ["1", "2"]
    for one, mask in zip(packed, masks, strict=True):
        assert one.file == Path(f"{one.name}.png") and (one.mask == mask[:, ::-1]).all()


@pytest.mark.parametrize("tool", ["cvat", "label_studio"])
def test_what_tools_import_is_written_picture_by_picture(tool: str, tmp_path: Path) -> None:
    packed, draw = Packed(), np.random.default_rng(0)
    for k in range(30):
        packed.append(tmp_path / f"{k}.png", str(k), draw.integers(0, 2, (50, 50)).astype(np.uint8))
    model = {"model": "m"} if tool == "label_studio" else {}
    peaks = []
    for images in (packed[:2], packed[:2], packed):  # the first imports things
        tracemalloc.start()
        getattr(write, tool)(tmp_path / tool, images, CLASSES, COLORS, **model)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 2 * peaks[1]


def test_blank_has_a_colour_that_no_class_has() -> None:
    classes = [f"class {k}" for k in range(255)]
    colors = [*premasks.BLANKS, *((k, k, k) for k in range(2, 253))]
    description = Description(name="many", classes=classes, colors=colors)
    assert premasks.blank_color(description) not in colors


def test_a_contact_sheet_shows_pictures_predictions_and_words_and_hatches_blank_pixels() -> None:
    description = Description(name="boats", classes=CLASSES, colors=COLORS)
    picture = np.full((60, 120, 3), 100, np.uint8)
    predicted = np.zeros((60, 120), np.uint8)
    mask = predicted.copy()
    mask[:, 60:] = description.ignore_index
    entry = sheet.entry(picture, mask, predicted, description, ["1  name", "why"])
    assert entry.picture.shape == entry.prediction.shape == (sheet.SIDE // 2, sheet.SIDE, 3)
    left, right = entry.prediction[:, : sheet.SIDE // 2], entry.prediction[:, sheet.SIDE // 2 :]
    assert (left == (50, 95, 150)).all(), "the class's colour over the picture"
    assert set(np.unique(right)) == {40, 255}
    pages = sheet.pages([entry] * (sheet.PER_PAGE + 1))
    assert [page.shape[1] for page in pages] == [pages[0].shape[1]] * 2
    assert pages[0].shape[0] > pages[1].shape[0]
    assert (pages[0] == 255).mean() < 0.9 and (pages[0] == 0).any(), "there are words"
    assert sheet.pages([]) == []


def test_long_words_are_cut_to_the_room_there_is() -> None:
    description = Description(name="boats", classes=CLASSES, colors=COLORS)
    empty = np.zeros((10, 10), np.uint8)
    entry = sheet.entry(np.zeros((10, 10, 3), np.uint8), empty, empty, description, ["x" * 5000])
    (page,) = sheet.pages([entry])
    assert page.shape[1] < 1100
