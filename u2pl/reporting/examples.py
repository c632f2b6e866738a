"""Example pictures of the report: thumbnails for the page, and a contact sheet."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from u2pl.reporting.charts import save


@dataclass(frozen=True)
class SheetRow:
    """One row of a contact sheet: a label, and pictures by column heading."""

    label: str
    pictures: dict[str, Path]


def picture(path: Path) -> np.ndarray:
    """The colour picture in `path`, uint8 (H, W, 3)."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def data_uri(path: Path) -> str:
    """The picture file in `path` as the address of itself."""
    return _address(path.read_bytes(), "png")


def thumbnail(path: Path, width: int = 256, *, exact: bool | None = None) -> str:
    """The picture in `path`, at most `width` pixels wide, as the address of itself (WebP).

    Of a photograph a tenth of the size is left. An exact one keeps its colours; by itself, one of few colours is.
    """
    with Image.open(path) as image:
        small = image.convert("RGB")
    flat = small.getcolors(maxcolors=256) is not None if exact is None else exact
    if small.width > width:
        size = width, max(1, round(small.height * width / small.width))
        small = small.resize(size, Image.Resampling.NEAREST if flat else Image.Resampling.LANCZOS)
    out = io.BytesIO()
    small.save(out, "webp", lossless=flat, quality=100 if flat else 72, method=4)
    return _address(out.getvalue(), "webp")


def _address(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def sheet_png(rows: Sequence[SheetRow], path: Path) -> None:
    """Write a contact sheet: a column a heading, empty where a row lacks a picture."""
    headings = list(dict.fromkeys(heading for row in rows for heading in row.pictures))
    shapes = [picture(next(iter(row.pictures.values()))).shape for row in rows]
    # Row heights in proportion to the pictures, so that wide street scenes leave no gaps.
    heights = [height / width for height, width, _ in shapes] or [0.5]
    figure = Figure(
        figsize=(1.5 * max(2, len(headings)) + 0.3, 1.5 * sum(heights) + 0.4), layout="constrained", dpi=150
    )
    grid = figure.subplots(
        len(heights), max(1, len(headings)), squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[], frame_on=False)
    for index, row in enumerate(rows):
        grid[index, 0].set_ylabel(row.label, fontsize=9)
        for column, heading in enumerate(headings):
            if index == 0:
                grid[index, column].set_title(heading, fontsize=9)
            if heading in row.pictures:
                grid[index, column].imshow(picture(row.pictures[heading]), interpolation="nearest")
    if not rows:
        grid[0, 0].text(0.5, 0.5, "No run has finished yet.", ha="center")
    save(figure, path)
