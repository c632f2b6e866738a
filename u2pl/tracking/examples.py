"""One picture of a run's examples: a row an image, with input, truth and prediction side by side."""

from pathlib import Path

from PIL import Image, ImageDraw

COLUMNS = ("input", "truth", "prediction")
"""Kinds of pictures, in the order of the grid."""
_WIDTH = 320
"""Most pixels of a picture's width in the grid."""
_MARGIN, _HEADING = 4, 18


def of_run(folder: Path) -> list[Path]:
    """The pictures in a run folder, in the order of the grid."""
    inputs = sorted((folder / "samples").glob("*.input.png"))
    names = [path.name.removesuffix(".input.png") for path in inputs]
    return [folder / "samples" / f"{name}.{kind}.png" for name in names for kind in COLUMNS]


def grid(pictures: list[Path]) -> Image.Image | None:
    """The pictures in rows of COLUMNS; one that cannot be read leaves its place white, and of none there is no grid."""
    tiles = [_tile(path) for path in pictures]
    found = [tile for tile in tiles if tile is not None]
    if not found:
        return None
    rows = [tiles[start : start + len(COLUMNS)] for start in range(0, len(tiles), len(COLUMNS))]
    width = max(tile.width for tile in found)
    heights = [max((tile.height for tile in row if tile), default=0) for row in rows]
    size = (
        len(COLUMNS) * (width + _MARGIN) + _MARGIN,
        _HEADING + sum(height + _MARGIN for height in heights),
    )
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    places = [_MARGIN + column * (width + _MARGIN) for column in range(len(COLUMNS))]
    for kind, x in zip(COLUMNS, places, strict=True):
        draw.text((x, _MARGIN), kind, fill="black")
    top = _HEADING
    for row, height in zip(rows, heights, strict=True):
        for tile, x in zip(row, places, strict=True):
            if tile is not None:
                sheet.paste(tile, (x, top))
        top += height + _MARGIN
    return sheet


def _tile(path: Path) -> Image.Image | None:
    try:
        with Image.open(path) as picture:
            tile = picture.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    if tile.width <= _WIDTH:
        return tile
    # Colours of classes must not become colours of others.
    how = Image.Resampling.LANCZOS if path.name.endswith(".input.png") else Image.Resampling.NEAREST
    return tile.resize((_WIDTH, max(1, round(tile.height * _WIDTH / tile.width))), how)
