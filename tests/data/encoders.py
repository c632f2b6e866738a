"""Pictures byte by byte, of the kinds that Pillow does not write."""

import struct
import zlib

import numpy as np
from numpy.typing import NDArray


def png(
    pixels: NDArray[np.integer],
    bits: int,
    kind: int,
    *chunks: tuple[bytes, bytes],
    claimed: tuple[int, int] | None = None,
) -> bytes:
    """A PNG of any depth and kind (0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGB and alpha), by the standard."""
    height, width = pixels.shape[:2]
    rows = pixels.reshape(height, -1)
    if bits == 16:
        lines = [row.astype(">u2").tobytes() for row in rows]
    else:
        planes = [(rows >> k & 1).astype(np.uint8) for k in reversed(range(bits))]
        lines = [np.packbits(row).tobytes() for row in np.stack(planes, axis=2).reshape(height, -1)]

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", *(claimed or (width, height)), bits, kind, 0, 0, 0)),
            *(chunk(*one) for one in chunks),
            chunk(b"IDAT", zlib.compress(b"".join(b"\0" + line for line in lines))),
            chunk(b"IEND", b""),
        ]
    )


def bmp(indices: NDArray[np.uint8], bits: int, colors: list[tuple[int, int, int]]) -> bytes:
    """A BMP with a palette, as Windows defines it."""
    planes = [(indices >> k & 1) for k in reversed(range(bits))]
    rows = np.packbits(np.stack(planes, axis=2).reshape(len(indices), -1), axis=1)
    rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4)))[::-1]
    palette = b"".join(bytes((blue, green, red, 0)) for red, green, blue in colors)
    start, (height, width) = 54 + len(palette), indices.shape
    head = struct.pack("<IHHI", start + rows.size, 0, 0, start)
    facts = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, 0, rows.size, 0, 0, len(colors), 0)
    return b"BM" + head + facts + palette + rows.tobytes()


def tiff(pixels: NDArray[np.uint8], bits: int, photometric: int) -> bytes:
    """An uncompressed grey TIFF of one strip."""
    planes = [(pixels >> k & 1) for k in reversed(range(bits))]
    data = np.packbits(np.stack(planes, axis=2).reshape(len(pixels), -1), axis=1).tobytes()
    height, width = pixels.shape
    entries = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: height}
    entries |= {279: len(data)}
    head = struct.pack("<2sHI", b"II", 42, 8 + len(data))
    fields = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(entries.items()))
    return head + data + struct.pack("<H", len(entries)) + fields + struct.pack("<I", 0)


def deep_tiff(pixels: NDArray[np.uint16]) -> bytes:
    """An uncompressed RGB TIFF of 16 bits, which Pillow does not write."""
    data, (height, width, _) = pixels.astype("<u2").tobytes(), pixels.shape
    entries = {256: width, 257: height, 259: 1, 262: 2, 273: 14, 277: 3, 278: height, 279: len(data)}
    fields = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries.items()]
    fields.insert(2, struct.pack("<HHII", 258, 3, 3, 8))  # three shorts, right after the head
    head = struct.pack("<2sHI3H", b"II", 42, 14 + len(data), 16, 16, 16)
    return head + data + struct.pack("<H", len(fields)) + b"".join(fields) + struct.pack("<I", 0)
