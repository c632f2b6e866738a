"""The one picture of a run's examples, from pictures of known colours."""

from pathlib import Path

from PIL import Image

from u2pl.tracking.examples import COLUMNS, grid, of_run

COLORS = {"input": (10, 20, 30), "truth": (128, 0, 0), "prediction": (0, 128, 0)}


def draw(folder: Path, name: str, size: tuple[int, int]) -> None:
    (folder / "samples").mkdir(exist_ok=True)
    for kind in COLUMNS:
        Image.new("RGB", size, COLORS[kind]).save(folder / "samples" / f"{name}.{kind}.png")


def colors(picture: Image.Image) -> set[tuple[int, ...]]:
    return {color for _, color in picture.getcolors(1 << 24)}  # type: ignore[misc]


def test_a_row_an_image_with_input_truth_and_prediction_side_by_side(tmp_path: Path):
    draw(tmp_path, "b", (40, 30))
    draw(tmp_path, "a", (40, 20))
    pictures = of_run(tmp_path)
    assert [path.name for path in pictures[:3]] == ["a.input.png", "a.truth.png", "a.prediction.png"]
    sheet = grid(pictures)
    assert sheet is not None and sheet.size == (3 * 44 + 4, 18 + 24 + 34)
    for column, kind in enumerate(COLUMNS):
        for row in (18 + 10, 18 + 24 + 15):
            assert sheet.getpixel((4 + 44 * column + 20, row)) == COLORS[kind]


def test_large_masks_are_made_smaller_without_colours_of_other_classes(tmp_path: Path):
    draw(tmp_path, "wide", (1280, 640))
    stripes = Image.new("RGB", (1280, 640), COLORS["truth"])
    stripes.paste(COLORS["prediction"], (0, 0, 333, 640))
    stripes.save(tmp_path / "samples" / "wide.truth.png")
    sheet = grid(of_run(tmp_path))
    assert sheet is not None and sheet.size == (3 * 324 + 4, 18 + 164)
    tile = sheet.crop((328, 18, 648, 178))
    assert colors(tile) == {COLORS["truth"], COLORS["prediction"]}


def test_a_damaged_or_missing_picture_leaves_its_place_white(tmp_path: Path):
    draw(tmp_path, "a", (40, 30))
    (tmp_path / "samples" / "a.truth.png").write_text("no picture")
    (tmp_path / "samples" / "a.prediction.png").unlink()
    sheet = grid(of_run(tmp_path))
    assert sheet is not None
    assert sheet.getpixel((20, 30)) == COLORS["input"]
    assert colors(sheet.crop((48, 18, 132, 48))) == {(255, 255, 255)}


def test_where_nothing_can_be_read_there_is_no_picture(tmp_path: Path):
    assert grid(of_run(tmp_path)) is None
    draw(tmp_path, "a", (40, 30))
    for path in (tmp_path / "samples").iterdir():
        path.write_text("no picture")
    assert grid(of_run(tmp_path)) is None
