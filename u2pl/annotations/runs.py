"""Run lengths as three tools write masks: CVAT within a box, COCO down the columns, Label Studio bit by bit.

pycocotools decodes those of COCO; it trusts the counts that it is given, so they are looked at before. CVAT's and
Label Studio's are read and written here: the libraries that do so pin versions of OpenCV, pandas and Pillow that are
older than ours.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from u2pl.annotations.regions import BadShape, Region, Size, decoded


def alternating(counts: Sequence[int] | Sequence[str], pixels: int) -> Region:
    """Runs of pixels that are not covered and that are, in turn, as bool (pixels,).

    Raises:
        BadShape: they are not of so many pixels.
    """
    found = check(counts, pixels)
    return np.repeat(np.arange(found.size) % 2 == 1, found)


def check(counts: Sequence[int] | Sequence[str], pixels: int) -> NDArray[np.int64]:
    """Run lengths as int64, which are of so many pixels together.

    Raises:
        BadShape: they are not.
    """
    try:
        found = np.asarray(counts).astype(np.int64)
    except (ValueError, OverflowError, TypeError):
        raise BadShape("its run lengths are no numbers of pixels") from None
    if found.ndim != 1 or (found.size and (found.min() < 0 or found.max() > pixels)):
        raise BadShape("its run lengths are no numbers of pixels")
    if found.sum() != pixels:
        raise BadShape(f"its run lengths are of {found.sum()} pixels, and not of {pixels}")
    return found


def lengths(region: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The run lengths of a flat region, of those that are not covered first: `alternating` is the way back."""
    changes = np.flatnonzero(np.diff(region, prepend=False))
    return np.diff(np.concatenate([[0], changes, [region.size]]))


# ---- COCO ------------------------------------------------------------------------------------------------


def from_coco(counts: str | Sequence[int], size: Size) -> Region:
    """COCO's run lengths, compressed to a text or not, which go down the columns.

    Raises:
        BadShape: they are not of a picture of that size.
    """
    plain = _decompressed(counts, size[0] * size[1]) if isinstance(counts, str) else counts
    check(plain, size[0] * size[1])
    return decoded({"size": list(size), "counts": list(plain)}, size)


def _decompressed(text: str, pixels: int) -> list[int]:
    """The counts behind COCO's text: five bits a character, differences to the count before the last."""
    counts: list[int] = []
    value = shift = 0
    for character in text.encode(errors="replace"):
        part = character - 48
        if not 0 <= part < 64 or shift > 60:
            raise BadShape("its run lengths are no text that COCO writes")
        value |= (part & 31) << shift
        shift += 5
        if part & 32:
            continue
        if part & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        if not 0 <= counts[-1] <= pixels:
            raise BadShape("its run lengths are no numbers of pixels")
        value = shift = 0
    if shift:
        raise BadShape("its run lengths break off")
    return counts


# ---- Label Studio ----------------------------------------------------------------------------------------

_SIZES = (4, 8, 12, 16)
"""Bits of the four kinds of lengths that `to_brush` writes."""


def from_brush(data: Sequence[int], size: Size) -> Region:
    """Label Studio's brush: a picture with alpha, value after value, in runs; at least half opaque pixels count.

    Args:
        data: bytes; 32 bits with the number of values, 5 with a value's bits less one, four times 4 with the bits of
            a kind of length less one; then runs: a bit that says whether one value is repeated, two with the kind of
            the length, the length less one, and that value or as many as the length says.
        size: of the picture.

    Raises:
        BadShape: it is no such picture of that size.
    """
    values = 4 * size[0] * size[1]
    try:
        packed = np.frombuffer(bytes(data), np.uint8)
    except (ValueError, TypeError):
        raise BadShape("its brush is no list of bytes") from None
    bits = _Bits(packed)
    if (found := bits.read(32)) != values:
        raise BadShape(f"its brush is of {found // 4} pixels, and not of {values // 4}")
    if bits.read(5) != 7:
        raise BadShape("its brush has values that are no bytes")
    kinds = [bits.read(4) + 1 for _ in range(4)]
    picture = np.empty(values, np.uint8)
    at = 0
    while at < values:
        repeated = bits.read(1)
        run = bits.read(kinds[bits.read(2)]) + 1
        if at + run > values:
            raise BadShape("its brush has more pixels than the picture")
        picture[at : at + run] = bits.read(8) if repeated else bits.bytes(run)
        at += run
    return np.asarray(picture[3::4].reshape(size) >= 128)


class _Bits:
    """Reads numbers bit by bit, the highest first."""

    def __init__(self, packed: NDArray[np.uint8]):
        self.packed = packed
        self.at = 0

    def read(self, count: int) -> int:
        """The next number of so many bits."""
        self._check(count)
        start, end = self.at, self.at + count
        self.at = end
        whole = int.from_bytes(self.packed[start // 8 : -(-end // 8)].tobytes(), "big")
        return whole >> (-end % 8) & ((1 << count) - 1)

    def bytes(self, count: int) -> NDArray[np.uint8]:
        """The next bytes, wherever they begin."""
        self._check(8 * count)
        start, shift = divmod(self.at, 8)
        self.at += 8 * count
        part = self.packed[start : start + count + (shift > 0)]
        if not shift:
            return part
        return ((part[:-1] << shift) | (part[1:] >> (8 - shift))).astype(np.uint8)

    def _check(self, count: int) -> None:
        if self.at + count > 8 * self.packed.size:
            raise BadShape("its brush breaks off")


def to_brush(region: Region) -> list[int]:
    """A region as Label Studio's brush writes it; `from_brush` says how, and is the way back."""
    parts = [f"{4 * region.size:032b}{7:05b}", *(f"{bits - 1:04b}" for bits in _SIZES)]
    for position, pixels in enumerate(lengths(region.ravel())):
        values = 4 * int(pixels)
        while values:
            run = min(values, 1 << _SIZES[-1])
            kind = next(k for k, bits in enumerate(_SIZES) if run <= 1 << bits)
            parts.append(f"1{kind:02b}{run - 1:0{_SIZES[kind]}b}{255 * (position % 2):08b}")
            values -= run
    text = "".join(parts)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))
