"""Reads pictures and masks as arrays, and finds them by name."""

import struct
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from u2pl.errors import UserError

Color = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")

_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


class BadFile(UserError):
    """A file of a data set that cannot be used; `kind` groups equal problems of many files."""

    def __init__(self, kind: str, path: Path, detail: str = ""):
        self.kind, self.path, self.detail = kind, path, detail
        explained = f" ({detail})" if detail else ""
        super().__init__(f"{kind}: {path}{explained}. Mend or replace the file, then run u2pl prepare again.")


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
    files: dict[str, list[Path]] = {}
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() in SUFFIXES:
                files.setdefault(plain(path.stem), []).append(path)
    return files


def plain(text: str) -> str:
    """One of the several ways Unicode has to write an accented letter: file systems differ in theirs."""
    return unicodedata.normalize("NFC", text)


def _decoded(path: Path, kind: str) -> Image.Image:
    """The fully decoded picture, so that a truncated file is noticed."""
    try:
        with Image.open(path) as picture:
            picture.load()
            return picture
    except FileNotFoundError:
        raise BadFile(f"missing {kind}", path) from None
    except Image.DecompressionBombError as error:
        raise BadFile(f"{kind} of too many pixels", path, str(error).partition(",")[0]) from None
    except _DAMAGE as error:
        raise BadFile(f"truncated or damaged {kind}", path, str(error).partition("\n")[0]) from None


def read_image(path: Path) -> NDArray[np.uint8]:
    """The picture as uint8 (H, W, 3), RGB; grey, palette and transparent pictures are converted.

    Raises:
        BadFile: missing, truncated, damaged, or more than 8 bits a channel (converting those would clip).
    """
    picture = _decoded(path, "image")
    if picture.mode.startswith(("I", "F")):
        raise BadFile("image with more than 8 bits a channel", path, f"mode {picture.mode}")
    # Viewers and annotation tools show a photograph the way its EXIF orientation says.
    try:
        ImageOps.exif_transpose(picture, in_place=True)
    except (
        Exception
    ) as error:  # Pillow fails in many ways on what cameras and programs write beside the pixels
        raise BadFile("truncated or damaged image", path, f"EXIF: {error}") from None
    # Where nothing is to be changed, both would copy the picture.
    return np.array(picture if picture.mode == "RGB" else picture.convert("RGB"))


def read_indices(path: Path) -> NDArray[Any]:
    """The raw values of a mask: integers (H, W), or uint8 (H, W, 3) where it is a colour picture.

    Of a palette picture these are the indices, not the colours they stand for.

    Raises:
        BadFile: missing, truncated or damaged, or a kind of picture no mask can be.
    """
    picture = _decoded(path, "mask")
    values = np.array(picture)
    if picture.mode in ("1", "L", "P") or picture.mode.startswith("I"):
        return values.astype(np.uint8) if picture.mode == "1" else values
    if picture.mode in ("RGB", "RGBA"):
        return values[..., :3]
    raise BadFile("mask that is neither an index nor an RGB picture", path, f"mode {picture.mode}")


def write_png(path: Path, pixels: NDArray[np.uint8], palette: Sequence[Color] | None = None) -> None:
    """Write a picture (H, W, 3) or class indices (H, W) as a PNG; indices with a palette as a palette picture.

    Another name becomes `path` at the end, so that no half picture is ever seen; nothing is flushed to the disk, which
    would take minutes for thousands of files.
    """
    picture = Image.fromarray(pixels)
    if palette is not None:
        picture.putpalette([value for color in palette for value in color])
    encoded = BytesIO()  # writing to the file itself, Pillow does not say that the disk is full
    picture.save(encoded, format="PNG")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_bytes(encoded.getbuffer())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
