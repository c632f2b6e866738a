"""Pre-annotations whose masks lie packed in memory, and are unpacked one at a time: many large ones would not fit."""

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from u2pl.annotations.write import PreAnnotation

_QUICK = 1
"""Level of compression; masks of few classes come to a hundredth of their size with it."""


class _Item(NamedTuple):
    file: Path
    name: str
    shape: tuple[int, int]
    mask: bytes


class Packed(Sequence[PreAnnotation]):
    """A list of pre-annotations, to append to and to read from."""

    def __init__(self) -> None:
        """An empty list."""
        self._items: list[_Item] = []

    def append(self, file: Path, name: str, mask: NDArray[np.uint8]) -> None:
        """Add one, as `PreAnnotation` has it."""
        height, width = mask.shape
        packed = zlib.compress(mask.tobytes(), _QUICK)
        self._items.append(_Item(file, name, (height, width), packed))

    def __len__(self) -> int:
        """How many there are."""
        return len(self._items)

    @overload
    def __getitem__(self, at: int) -> PreAnnotation: ...

    @overload
    def __getitem__(self, at: slice) -> list[PreAnnotation]: ...

    def __getitem__(self, at: int | slice) -> PreAnnotation | list[PreAnnotation]:
        """One of them, or several, unpacked."""
        if isinstance(at, slice):
            return [self[k] for k in range(*at.indices(len(self)))]
        file, name, shape, packed = self._items[at]
        return PreAnnotation(
            file, name, np.frombuffer(zlib.decompress(packed), dtype=np.uint8).reshape(shape)
        )
