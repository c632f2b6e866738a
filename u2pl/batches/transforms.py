"""The paper's weak augmentation (App. A): random scale, flip and crop. Nothing else, no colour jitter.

Pictures stay bytes, pixel after pixel, until they are on the device that trains: four times less to move and to keep.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, pad

from u2pl.models.colors import MEAN, STD


def normalise(image_BHW3: Tensor, rows_BH: Tensor | None = None, columns_BW: Tensor | None = None) -> Tensor:
    """Pictures as the network takes them: float32 (B, 3, H, W), ImageNet's mean 0 and deviation 1, channels last.

    Args:
        image_BHW3: uint8 or float32, from 0 to 255.
        rows_BH: bool; where False is padding, which becomes 0, the mean colour.
        columns_BW: likewise.
    """
    width = image_BHW3.shape[2]
    # Whole rows at a time: an inner loop over three colours would take three times as long on a CPU.
    image = image_BHW3.to(torch.float32, copy=True).flatten(2)
    mean, std = _colors(image.device)
    factor_BW3 = (1 / std).expand(1, width, 3) if columns_BW is None else columns_BW[:, :, None] / std
    factor, offset = (values.flatten(1)[:, None] for values in (factor_BW3, -mean * factor_BW3))
    # In one pass: the time goes into moving the pixels, not into computing.
    torch.addcmul(offset, image, factor, out=image)
    if rows_BH is not None:
        image.mul_(rows_BH[:, :, None].float())
    return image.unflatten(2, (width, 3)).permute(0, 3, 1, 2)


def denormalised(image: Tensor) -> Tensor:
    """The pictures that `normalise` made images of, with colours from 0 to 1.

    Args:
        image: float32 (B, 3, H, W), as of `normalise`; so is what comes back, clipped where it is no picture's.
    """
    mean, std = (values[:, None, None] / 255 for values in _colors(image.device))
    return (image * std + mean).clamp_(0, 1)


@cache
def _colors(device: torch.device) -> tuple[Tensor, Tensor]:
    """MEAN and STD, copied to a device once: each copy of a few numbers would wait for all its work."""
    return torch.tensor(MEAN, device=device), torch.tensor(STD, device=device)


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


class AugmentedImage(NamedTuple):
    """A picture and its mask after augmentation, and where they are padding."""

    image: Tensor
    """uint8 or float32 (crop, crop, 3), from 0 to 255; 0 on padding."""
    mask: Tensor
    """uint8 (crop, crop)."""
    rows: Tensor
    """bool (crop,), False where a row is padding."""
    columns: Tensor
    """bool (crop,), likewise."""


def augment(
    image_HW3: NDArray[np.uint8],
    mask_HW: NDArray[np.uint8] | None,
    *,
    crop: int,
    scale: tuple[float, float],
    interpolation: Literal["uint8", "float32"],
    ignore_index: int,
    padding_label: int,
    rng: np.random.Generator,
) -> AugmentedImage:
    """A picture and its mask, augmented.

    Scaled (bilinear, mask nearest), flipped with probability 1/2, padded symmetrically with `padding_label` where
    smaller than the crop, cropped at a uniform place. Without a mask the picture is `ignore_index` everywhere.

    Args:
        image_HW3: the picture.
        mask_HW: its classes, or None.
        crop: side of what comes back.
        scale: least and greatest factor.
        interpolation: whether interpolated values are rounded to bytes; of the visible ones none then differs by more
            than one from the others.
        ignore_index: class of a picture without a mask.
        padding_label: class of the padding.
        rng: of all that is random.
    """
    factor, flip, place = random_scale(rng, *scale), rng.random() < 0.5, rng.random(2)
    rows, columns = (
        _Window.at(place[axis], length=length, scaled=max(1, int(factor * length)), crop=crop)
        for axis, length in enumerate(image_HW3.shape[:2])
    )
    seen = _bilinear(image_HW3, rows, columns, interpolation)
    image = np.zeros((crop, crop, 3), dtype=seen.dtype)
    image[rows.inside, columns.inside] = cv2.flip(seen, 1) if flip else seen
    mask = np.full((crop, crop), padding_label, dtype=np.uint8)
    if mask_HW is None:
        mask[rows.inside, columns.inside] = ignore_index
    else:
        nearest = columns.nearest[::-1] if flip else columns.nearest
        # Columns are taken as rows, whole ones at a time: byte after byte would take twice as long.
        lines = cv2.transpose(cv2.transpose(mask_HW[rows.needed]).take(nearest, 0))
        mask[rows.inside, columns.inside] = lines.take(rows.nearest - rows.needed.start, 0)
    return AugmentedImage(
        torch.from_numpy(image),
        torch.from_numpy(mask),
        *(_marked(crop, axis.inside) for axis in (rows, columns)),
    )


def _marked(length: int, inside: slice) -> Tensor:
    """True inside, bool (length,)."""
    marks = torch.zeros(length, dtype=torch.bool)
    marks[inside] = True
    return marks


@dataclass(frozen=True)
class _Window:
    """Along one axis, the pixels of the scaled picture that the crop shows."""

    length: int
    """Pixels before scaling."""
    scaled: int
    """Pixels after it."""
    shown: slice
    """Of these, the ones in the crop."""
    inside: slice
    """Where in the crop they lie; around it is padding."""

    @classmethod
    def at(cls, place: float, *, length: int, scaled: int, crop: int) -> "_Window":
        """The window at `place`, from 0 (first possible one) to just below 1 (last)."""
        before = max(0, crop - scaled) // 2
        start = int(place * (max(0, scaled - crop) + 1))
        count = min(crop, scaled)
        return cls(length, scaled, slice(start, start + count), slice(before, before + count))

    @property
    def count(self) -> int:
        return self.shown.stop - self.shown.start

    @property
    def nearest(self) -> NDArray[np.int64]:
        """The unscaled pixel of each shown one.

        F.interpolate's `nearest` (released code) means the same, but takes the pixel before where float32 falls short
        of a whole number.
        """
        return np.arange(self.shown.start, self.shown.stop) * self.length // self.scaled

    @property
    def needed(self) -> slice:
        """The unscaled pixels that the shown ones are made from, with one or two to spare."""
        first, last = (at * self.length // self.scaled for at in (self.shown.start, self.shown.stop))
        return slice(max(0, first - 2), min(self.length, last + 3))


def _bilinear(
    image_HW3: NDArray[np.uint8], rows: _Window, columns: _Window, interpolation: Literal["uint8", "float32"]
) -> NDArray[Any]:
    """The shown part of the scaled picture, uint8 or float32 (rows, columns, 3).

    Interpolated between unscaled pixels (align_corners=False), and not averaged where the picture shrinks, as in the
    released code.
    """
    # Batch axis first: for permute(2, 0, 1)[None] torch would separate the colours, at twice the time.
    pixels = torch.from_numpy(image_HW3[rows.needed])[None].permute(0, 3, 1, 2)
    if interpolation == "float32":
        pixels = pixels.float()
    # torch too does one axis after the other. It can only start at the first pixel of an axis, so each is done whole:
    # all columns of the needed rows, then all rows of the shown columns.
    across = _scaled(pixels, pixels.shape[2], columns.scaled)[..., columns.shown]
    part = torch.zeros((1, rows.length, columns.count, 3), dtype=across.dtype).permute(0, 3, 1, 2)
    part[:, :, rows.needed] = across
    return _scaled(part, rows.scaled, columns.count)[0, :, rows.shown].permute(1, 2, 0).numpy()


def _scaled(pixels: Tensor, height: int, width: int) -> Tensor:
    return interpolate(pixels, size=(height, width), mode="bilinear", align_corners=False)
