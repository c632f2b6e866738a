"""Maps at a higher resolution, bilinear with corners aligned, a few rows at a time: never all of them at once."""

from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import interpolate

_PIXELS_AT_ONCE = 2**14
"""Their values, of some twenty classes, stay in a CPU's cache."""


def enlarge(map_BChw: Tensor, size: tuple[int, ...]) -> Tensor:
    """All of the large maps at once, for a GPU, which has no use for parts; a copy also where the size is the same."""
    return interpolate(map_BChw, size, mode="bilinear", align_corners=True)


class Enlarged:
    """One image's map, (C, h, w), at another size.

    Iterated over, it gives slices of rows. `rows` computes them; what gradient they have, `add_gradient` takes back to
    the small map.
    """

    def __init__(self, map_Chw: Tensor, size: tuple[int, ...]):
        (self._height, self._width), (h, w) = size, map_Chw.shape[1:]
        # None where there is nothing to interpolate.
        self._down_hH = None if h == self._height else _weights(h, self._height, map_Chw.dtype)
        self._across_wW = None if w == self._width else _weights(w, self._width, map_Chw.dtype)
        self._wide_ChW = map_Chw if self._across_wW is None else map_Chw.contiguous() @ self._across_wW
        self._gradient_ChW: Tensor | None = None

    def __iter__(self) -> Iterator[slice]:
        at_once = max(1, _PIXELS_AT_ONCE // self._width)
        for first in range(0, self._height, at_once):
            yield slice(first, min(first + at_once, self._height))

    def rows(self, part: slice) -> Tensor:
        """Some rows of the large map, (C, rows, W), which may be changed."""
        if self._down_hH is None:
            return self._wide_ChW[:, part].clone(memory_format=torch.contiguous_format)
        near = self._near(part)
        return self._down_hH[near, part].T @ self._wide_ChW[:, near]

    def add_gradient(self, part: slice, gradient_CrW: Tensor) -> None:
        """Add the gradient of some rows of the large map."""
        if self._gradient_ChW is None:
            self._gradient_ChW = torch.zeros_like(self._wide_ChW)
        if self._down_hH is None:
            self._gradient_ChW[:, part] += gradient_CrW
        else:
            near = self._near(part)
            self._gradient_ChW[:, near] += self._down_hH[near, part] @ gradient_CrW

    @property
    def gradient(self) -> Tensor:
        """Of the small map, (C, h, w), from all that was added."""
        assert self._gradient_ChW is not None
        return self._gradient_ChW if self._across_wW is None else self._gradient_ChW @ self._across_wW.T

    def _near(self, part: slice) -> slice:
        """The rows of the small map that some of the large one are made of, with one or two to spare."""
        h = self._wide_ChW.shape[1]
        first, last = (row * (h - 1) // max(self._height - 1, 1) for row in (part.start, part.stop - 1))
        return slice(max(first - 1, 0), min(last + 3, h))


@lru_cache(maxsize=16)
def _weights(old: int, new: int, dtype: torch.dtype) -> Tensor:
    """What each of `new` points has of each of `old` ones, (old, new)."""
    return interpolate(torch.eye(old, dtype=dtype)[None], size=new, mode="linear", align_corners=True)[0]
