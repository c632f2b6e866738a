"""The paper's weak augmentation (App. A): random scale, flip and crop. Nothing else, no colour jitter."""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad

MEAN = np.array([123.675, 116.28, 103.53], dtype=np.float32)
STD = np.array([58.395, 57.12, 57.375], dtype=np.float32)
"""Of ImageNet's pictures, RGB, for values from 0 to 255."""


def normalise(image_HW3: NDArray[np.uint8]) -> Tensor:
    """The picture as the network takes it: float32 (3, H, W), ImageNet's mean 0 and deviation 1."""
    return _to_tensor((image_HW3.astype(np.float32) - MEAN) / STD)


def resize_image(image_HW3: NDArray[np.uint8], factor: float) -> NDArray[np.uint8]:
    """The picture in floor(factor x its size), bilinear, averaged where that shrinks it."""
    return image_HW3 if factor == 1 else _resized(image_HW3, factor, Image.Resampling.BILINEAR)


def resize_mask(mask_HW: NDArray[np.uint8], factor: float) -> NDArray[np.uint8]:
    """The mask in floor(factor x its size), nearest neighbour."""
    return mask_HW if factor == 1 else _resized(mask_HW, factor, Image.Resampling.NEAREST)


def _resized(pixels: NDArray[np.uint8], factor: float, how: Image.Resampling) -> NDArray[np.uint8]:
    height, width = (max(1, int(factor * length)) for length in pixels.shape[:2])
    return np.array(Image.fromarray(pixels).resize((width, height), how))


def center_crop(pixels: Tensor, crop: int, fill: float) -> Tensor:
    """The crop x crop window at the centre of (..., H, W), with `fill` on both sides where that is smaller.

    Of an odd number of pixels too many or too few, the one more is at the right or at the bottom.
    """
    height, width = pixels.shape[-2:]
    # Rounded towards 0: a negative number of padding pixels cuts that many off.
    top, left = int((crop - height) / 2), int((crop - width) / 2)
    return pad(pixels, (left, crop - width - left, top, crop - height - top), value=fill)


def random_scale(rng: np.random.Generator, low: float, high: float) -> float:
    """A scale from `low` to `high`: half of the draws below 1, half above (released code)."""
    if low < 1 < high:
        low, high = (low, 1) if rng.random() < 0.5 else (1, high)
    return rng.uniform(low, high)


class View(NamedTuple):
    """An augmented image."""

    image: Tensor
    """float32 (3, crop, crop), normalised."""
    mask: Tensor
    """int64 (crop, crop)."""
    inside: Tensor
    """bool (crop, crop), False on padding."""


def augment(
    image_HW3: NDArray[np.uint8],
    mask_HW: NDArray[np.uint8] | None,
    *,
    crop: int,
    scale: tuple[float, float],
    ignore_index: int,
    padding_label: int,
    rng: np.random.Generator,
) -> View:
    """One augmented view.

    Scaled (bilinear, mask nearest), flipped with probability 1/2, padded symmetrically with the mean
    colour and `padding_label` where smaller than the crop, cropped at a uniform place. Without
    a mask the picture is `ignore_index` everywhere. Only the pixels inside the crop are computed.
    """
    factor, flip, place = random_scale(rng, *scale), rng.random() < 0.5, rng.random(2)
    rows, columns = (
        _Window.at(place[axis], length=length, scaled=max(1, int(factor * length)), crop=crop)
        for axis, length in enumerate(image_HW3.shape[:2])
    )
    if flip:
        columns = columns.mirrored()
    view = np.zeros((crop, crop, 3), dtype=np.float32)
    view[rows.inside, columns.inside] = (columns.blend(rows.blend(image_HW3, axis=0), axis=1) - MEAN) / STD
    target = np.full((crop, crop), padding_label, dtype=np.int64)
    target[rows.inside, columns.inside] = (
        ignore_index if mask_HW is None else mask_HW[np.ix_(rows.nearest, columns.nearest)]
    )
    inside = np.zeros((crop, crop), dtype=bool)
    inside[rows.inside, columns.inside] = True
    return View(_to_tensor(view), torch.from_numpy(target), torch.from_numpy(inside))


@dataclass(frozen=True)
class _Window:
    """Along one axis, the pixels of the scaled picture that the crop shows."""

    length: int
    """Pixels before scaling."""
    scaled: int
    """Pixels after it."""
    positions: NDArray[np.int64]
    """Of the shown pixels in the scaled picture, in the crop's order."""
    inside: slice
    """Where in the crop they lie; around it is padding."""

    @classmethod
    def at(cls, place: float, *, length: int, scaled: int, crop: int) -> "_Window":
        """The window at `place`, from 0 (first possible one) to just below 1 (last)."""
        before = max(0, crop - scaled) // 2
        start = int(place * (max(0, scaled - crop) + 1))
        shown = min(crop, scaled)
        return cls(length, scaled, np.arange(start, start + shown), slice(before, before + shown))

    def mirrored(self) -> "_Window":
        return replace(self, positions=self.scaled - 1 - self.positions)

    @property
    def nearest(self) -> NDArray[np.int64]:
        """The unscaled pixel of each shown one, as F.interpolate's `nearest` takes it (released code)."""
        return self.positions * self.length // self.scaled

    def blend(self, pixels: NDArray[Any], axis: int) -> NDArray[np.float32]:
        """The shown pixels, interpolated between unscaled ones (align_corners=False)."""
        centre = np.clip((self.positions + 0.5) * (self.length / self.scaled) - 0.5, 0, self.length - 1)
        low = centre.astype(np.int64)
        weight = np.expand_dims((centre - low).astype(np.float32), tuple(a for a in range(3) if a != axis))
        below = pixels.take(low, axis).astype(np.float32)
        above = pixels.take(np.minimum(low + 1, self.length - 1), axis)
        return below + (above - below) * weight


def _to_tensor(pixels_HW3: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels_HW3.transpose(2, 0, 1)))
