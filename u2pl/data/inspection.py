"""Looks at the file of a picture or mask before its pixels are taken.

Pillow cuts 16 bits to 8, stretches 4-bit greys, shows the first of several pages and drops transparency, all without
a word. What would be changed so is read as it was meant here, or refused in a sentence.
"""

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

from u2pl.errors import UserError

READING = 2
"""Raise it when some file comes to be read as other pixels or classes, or refused: then data sets prepared before are
looked at again."""

FORMATS = ("PNG", "JPEG", "MPO", "BMP", "TIFF", "WEBP", "GIF")
"""As Pillow calls them. A file's suffix says nothing: a GIF called .png is a GIF. An MPO is a telephone's JPEG, whose
further pictures are thumbnails and maps of depth."""
LOSSLESS = {
    *("raw", "tiff_raw_16", "packbits", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate", "lzma", "zstd"),
    *("tiff_ccitt", "group3", "group4"),
}
"""Compressions of TIFF, as Pillow calls them."""
SHOWN = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
"""Modes of pictures that Pillow turns into the colours they show."""
INDICES, COLORS = ("1", "L", "LA", "P", "PA"), ("RGB", "RGBA")
"""Modes of masks; greys of more than 8 bits, whose modes begin with I, come to the indices."""

ORIENTATION, BITS, PHOTOMETRIC = 0x0112, 258, 262
"""Tags of EXIF and TIFF."""
WHITE_IS_ZERO = 0


class BadFile(UserError):
    """A file of a data set that cannot be used; `kind` groups equal problems of many files."""

    def __init__(self, kind: str, path: Path, detail: str = ""):
        self.kind, self.path, self.detail = kind, path, detail
        explained = f" ({detail})" if detail else ""
        super().__init__(f"{kind}: {path}{explained}. Mend or replace the file, then run u2pl prepare again.")


class Picture(NamedTuple):
    """A picture as it is shown."""

    pixels: NDArray[np.uint8]
    """(H, W, 3), RGB."""
    orientation: int
    """EXIF orientation that it was turned by, 1 to 8; 1: not at all."""


class RawMask(NamedTuple):
    """What a mask file holds, turned by its own EXIF orientation."""

    values: NDArray[Any]
    """Integers (H, W), or colours uint8 (H, W, 3)."""
    palette: NDArray[np.uint8] | None
    """(N, 3), where the values are the indices of a palette; N may be less than the largest of them."""


@contextmanager
def opened(path: Path, kind: str) -> Iterator[ImageFile.ImageFile]:
    """The one picture in a file, of which only the header is read so far.

    Args:
        path: the file.
        kind: "image" or "mask", for the errors.

    Raises:
        BadFile: there is no such file, it is no picture or one of several pages, or what is done with it fails.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for without end
            raise BadFile(f"{kind} that is no regular file", path)
        # Not by its path: Pillow then maps plain TIFFs into memory, and scrambles those that lie on their side.
        with path.open("rb") as file, Image.open(file) as picture:
            if picture.format not in FORMATS:
                raise BadFile(
                    f"{kind} in a format that is not read (save it as PNG)", path, picture.format or ""
                )
            if picture.format == "BMP" and _is_misread_bmp(picture):
                raise BadFile(
                    f"{kind} as a BMP in greys of few bits, which is not read (save it as PNG)", path
                )
            pages = 1 if picture.format == "MPO" else getattr(picture, "n_frames", 1)
            if pages != 1:
                raise BadFile(
                    f"{kind} of several pages or frames (save each as a file)", path, f"{pages} of them"
                )
            yield picture
    except (BadFile, MemoryError):
        raise
    except FileNotFoundError:
        raise BadFile(f"missing {kind}", path) from None
    except PermissionError as error:
        raise BadFile(f"{kind} that may not be read", path, error.strerror or "") from None
    except Image.DecompressionBombError as error:
        raise BadFile(f"{kind} of too many pixels", path, str(error).partition(",")[0]) from None
    # Pillow fails in many ways on damaged files, and on what cameras write beside the pixels.
    except Exception as error:
        raise BadFile(f"truncated or damaged {kind}", path, str(error).partition("\n")[0]) from None


def read_picture(path: Path) -> Picture:
    """The picture in RGB, turned the way its EXIF orientation says, as viewers and annotation tools show it.

    Raises:
        BadFile: missing, damaged, or not to be shown with 8 bits a channel and no transparency.
    """
    with opened(path, "image") as picture:
        bits = _bits(picture)
        if bits > 8 or picture.mode.startswith(("I", "F")):
            raise BadFile(
                "image with more than 8 bits a channel (scale it to 8 bits)",
                path,
                f"mode {picture.mode}, {bits} bits",
            )
        if picture.mode not in SHOWN:
            raise BadFile("image in colours that are not read (save it as RGB)", path, f"mode {picture.mode}")
        if _is_plain_jpeg(picture) and (pixels := decoded(picture)) is not None:
            return Picture(pixels, orientation=1)
        orientation = _load_upright(picture)
        _refuse_transparency(picture, bits, "image", path)
        # Where nothing is to be changed, `convert` would copy the picture.
        return Picture(np.array(picture if picture.mode == "RGB" else picture.convert("RGB")), orientation)


def decoded(picture: ImageFile.ImageFile) -> NDArray[np.uint8] | None:
    """The pixels of an RGB JPEG or a grey PNG, as Pillow would give them, from OpenCV in less time.

    Both decode with libjpeg-turbo and zlib, but Pillow keeps colours in four bytes a pixel, and copies them out again.
    None: OpenCV gives nothing of that size; Pillow then reads it, or says what is wrong.
    """
    import cv2  # here, as it takes a while to import and most commands read no picture

    size = (picture.height, picture.width)
    flags, shape = (
        (cv2.IMREAD_COLOR_RGB, (*size, 3)) if picture.mode == "RGB" else (cv2.IMREAD_UNCHANGED, size)
    )
    file: Any = picture.fp
    file.seek(0)
    encoded = np.frombuffer(file.read(), np.uint8)
    try:
        pixels: Any = cv2.imdecode(encoded, flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        return None
    return pixels if pixels is not None and (pixels.dtype, pixels.shape) == (np.uint8, shape) else None


def read_raw_mask(path: Path) -> RawMask:
    """The values of a mask as they are stored: greys of 1, 2 and 4 bits are not stretched, a palette not applied.

    Raises:
        BadFile: missing, damaged, saved with loss, or a kind of picture no mask can be.
    """
    with opened(path, "mask") as picture:
        bits, mode = _bits(picture), picture.mode
        loss = _loss(picture, path)
        if loss:
            raise BadFile(
                "mask saved with loss, which changes its values (save it as PNG from its source)", path, loss
            )
        if picture.format == "TIFF" and picture.tag_v2.get(PHOTOMETRIC) == WHITE_IS_ZERO:  # type: ignore[attr-defined]
            raise BadFile(
                "mask whose values may be meant upside down (save it as PNG)", path, "TIFF, white is 0"
            )
        if mode not in (*INDICES, *COLORS) and not mode.startswith("I"):
            raise BadFile("mask that is neither an index nor an RGB picture", path, f"mode {mode}")
        if bits > 8 and mode in COLORS:
            raise BadFile(
                "mask in colours of more than 8 bits a channel (save it with 8)", path, f"{bits} bits"
            )
        _load_upright(picture)
        _refuse_transparency(picture, bits, "mask", path)
        values = np.array(picture)
        if mode in COLORS:
            return RawMask(values[..., :3], None)
        if mode in ("LA", "PA"):
            values = values[..., 0]
        if mode == "1":
            values = values.astype(np.uint8)
        if mode in ("L", "LA") and bits < 8:
            values = values // _stretch(bits)
        return RawMask(values, _palette(picture) if mode in ("P", "PA") else None)


def orientation_of(path: Path) -> int:
    """The EXIF orientation of a mask file, 1 to 8; 1: none, or none that turns it.

    Raises:
        BadFile: missing or damaged.
    """
    with opened(path, "mask") as picture:
        return _orientation(picture)


def colors_of_indices(path: Path) -> dict[int, tuple[int, ...]]:
    """The colours that a palette gives to the indices in a mask; of greys from 0 to 255 in their order none, nor of
    other masks.

    Raises:
        BadFile: as `read_raw_mask`.
    """
    with opened(path, "mask") as picture:
        if picture.mode not in ("P", "PA"):
            return {}
    values, palette = read_raw_mask(path)
    if palette is None or np.array_equal(palette, np.arange(256)[:, None].repeat(3, axis=1)):
        return {}
    return {k: tuple(palette[k].tolist()) for k in np.unique(values).tolist() if k < len(palette)}


def upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Pixels (H, W) as stored, turned as an EXIF orientation says."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.T
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _orientation(picture: ImageFile.ImageFile) -> int:
    value = picture.getexif().get(ORIENTATION, 1)
    return value if value in range(2, 9) else 1


def _is_plain_jpeg(picture: ImageFile.ImageFile) -> bool:
    """Whether it is in colours that need no conversion, and upright as it is."""
    return picture.format == "JPEG" and picture.mode == "RGB" and _orientation(picture) == 1


def _load_upright(picture: ImageFile.ImageFile) -> int:
    """Decode the picture, turn it as its EXIF orientation says, and return that."""
    # Before Pillow loads a TIFF, which it turns itself and then forgets why.
    orientation = _orientation(picture)
    picture.load()
    if 0 in picture.size:
        raise ValueError("no pixels")
    if orientation != 1 and picture.format != "TIFF":
        ImageOps.exif_transpose(picture, in_place=True)
    return orientation


def _bits(picture: ImageFile.ImageFile) -> int:
    """Bits of a channel in the file, before it is loaded."""
    if picture.mode == "1":
        return 1
    if picture.format == "TIFF":
        return max(picture.tag_v2.get(BITS, (1,)))  # type: ignore[attr-defined]
    if picture.format == "PNG" and picture.tile:
        stored = str(picture.tile[0][3]).partition(";")[2]  # "L;4", "RGB;16B"; none are 8
        return int(stored.rstrip("B") or 8)
    return 8


def _is_misread_bmp(picture: ImageFile.ImageFile) -> bool:
    """Whether there are other bits to a pixel than 1 or 8, which Pillow takes for granted where a palette is grey."""
    if picture.mode not in ("1", "L"):
        return False
    file: Any = picture.fp
    place = file.tell()
    file.seek(14)
    header = file.read(16)
    file.seek(place)
    start = 10 if header[0] == 12 else 14  # the header of OS/2 has shorter sizes
    return int.from_bytes(header[start : start + 2], "little") != (1 if picture.mode == "1" else 8)


def _stretch(bits: int) -> int:
    """What Pillow multiplies greys of few bits with, so that the largest is white."""
    return 255 // (2**bits - 1)


def _loss(picture: ImageFile.ImageFile, path: Path) -> str:
    """The lossy way in which the file is compressed; empty: no pixel was changed."""
    if picture.format in ("JPEG", "MPO"):
        return "JPEG"
    if picture.format == "WEBP" and not _is_lossless_webp(path):
        return "lossy WebP"
    compression = picture.info.get("compression", "raw")
    if picture.format == "TIFF" and compression not in LOSSLESS:
        return f"TIFF with compression {compression}"
    return ""


def _is_lossless_webp(path: Path) -> bool:
    """Whether the pixels are in a chunk VP8L, not in VP8."""
    with path.open("rb") as file:
        file.seek(12)
        while len(head := file.read(8)) == 8:
            if head.startswith(b"VP8L"):
                return True
            size = int.from_bytes(head[4:], "little")
            file.seek(size + size % 2, 1)
    return False


def _palette(picture: ImageFile.ImageFile) -> NDArray[np.uint8]:
    return np.array(picture.getpalette(), dtype=np.uint8).reshape(-1, 3)


def _refuse_transparency(picture: ImageFile.ImageFile, bits: int, kind: str, path: Path) -> None:
    """Pixels that are not opaque: nobody knows on which ground they are meant to be seen.

    Raises:
        BadFile: there are some.
    """
    if _has_transparency(picture, bits):
        raise BadFile(f"{kind} with transparent pixels (save it without transparency)", path)


def _has_transparency(picture: ImageFile.ImageFile, bits: int) -> bool:
    if picture.getbands()[-1] == "A":
        lowest, _ = picture.getchannel("A").getextrema()
        return bool(lowest < 255)  # type: ignore[operator]
    clear = picture.info.get("transparency")
    if clear is None:
        return False
    pixels = np.array(picture)
    if isinstance(clear, bytes):  # of each index of a palette, how opaque it is
        return any(clear[index] < 255 for index in np.unique(pixels).tolist() if index < len(clear))
    if pixels.ndim == 3:
        return bool((pixels == clear).all(axis=2).any())
    if picture.mode == "1":
        clear = bool(clear)
    if picture.mode == "L" and bits < 8:
        clear *= _stretch(bits)
    return bool((pixels == clear).any())
