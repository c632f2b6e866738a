"""Finds pictures and masks by name, reads them as arrays, and writes them."""

import os
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from u2pl.data.inspection import BadFile, decoded, opened, read_picture
from u2pl.errors import UserError

Color = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


class Finder:
    """Finds the file that belongs to a name, whatever its suffix; reads each folder once."""

    def __init__(self, root: Path, pattern: str):
        """`pattern` is a folder below `root`, or a path with `{name}` in it."""
        self.root = root
        self.pattern = pattern if "{name}" in pattern else f"{pattern.rstrip('/')}/{{name}}"
        self._stems = lru_cache(maxsize=None)(_stems)

    def find(self, name: str) -> list[Path]:
        """The files of `name`: none where it is missing, several where they differ in the suffix alone."""
        target = self.root / self.pattern.replace("{name}", name)
        exact = target.suffix.lower() in SUFFIXES
        found = self._stems(target.parent).get(plain(target.stem if exact else target.name), [])
        return [path for path in found if not exact or path.suffix.lower() == target.suffix.lower()]


def _stems(folder: Path) -> dict[str, list[Path]]:
    """Of each name the files; what is no file, as a folder or a pipe, stands only where there is nothing else."""
    files: dict[str, list[Path]] = {}
    others: dict[str, list[Path]] = {}
    if folder.is_dir():
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            raise UserError(
                f"The folder {folder} cannot be read ({error.strerror}). Mend its permissions."
            ) from None
        for entry in entries:
            path = folder / entry.name
            if path.suffix.lower() in SUFFIXES:
                (files if entry.is_file() else others).setdefault(plain(path.stem), []).append(path)
    return others | files


def plain(text: str) -> str:
    """One of the several ways Unicode has to write an accented letter: file systems differ in theirs."""
    return unicodedata.normalize("NFC", text)


def read_image(path: Path) -> NDArray[np.uint8]:
    """The picture as uint8 (H, W, 3), RGB; grey and palette pictures are converted, turned ones set upright.

    Raises:
        BadFile: missing, truncated, damaged, of several pages, or with what would be lost: more than 8 bits a channel,
            transparency.
    """
    return read_picture(path).pixels


def read_indices(path: Path) -> NDArray[np.uint8]:
    """The class indices in a mask that `u2pl prepare` wrote, uint8 (H, W); nothing is checked again.

    Raises:
        BadFile: missing, truncated or damaged, or not as it was written.
    """
    with opened(path, "mask") as picture:
        if picture.mode != "L":
            raise BadFile("mask that u2pl prepare did not write", path, f"mode {picture.mode}")
        pixels = decoded(picture)
        return np.array(picture) if pixels is None else pixels


def write_png(
    path: Path,
    pixels: NDArray[np.uint8],
    palette: Sequence[Color] | None = None,
    texts: Mapping[str, str] | None = None,
) -> None:
    """Write a picture (H, W, 3) or class indices (H, W) as a PNG; indices with a palette as a palette picture.

    Another name becomes `path` at the end, so that no half picture is ever seen; nothing is flushed to the disk, which
    would take minutes for thousands of files.

    Args:
        path: of the file.
        pixels: the picture.
        palette: the colour of each index.
        texts: keyword -> ASCII text that the file is to hold beside its pixels.
    """
    picture = Image.fromarray(pixels)
    if palette is not None:
        picture.putpalette([value for color in palette for value in color])
    chunks = PngInfo()
    for keyword, text in (texts or {}).items():
        chunks.add_text(keyword, text)
    encoded = BytesIO()  # writing to the file itself, Pillow does not say that the disk is full
    picture.save(encoded, format="PNG", pnginfo=chunks)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_bytes(encoded.getbuffer())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
