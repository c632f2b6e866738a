"""Test-time augmentation: class probabilities averaged over scales and mirror images."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from u2pl.errors import UsageError
from u2pl.models.deeplab import upsample


@dataclass(frozen=True)
class TTA:
    """Test-time augmentation: an image is predicted at every scale and, with `flip`, mirrored at each of them too."""

    scales: tuple[float, ...] = (1.0,)
    """Each once, in ascending order."""
    flip: bool = False

    @classmethod
    def parse(cls, scales: str, flip: bool) -> "TTA":
        """The augmentation that `scales` ("0.5,1,1.5", in any order) and `flip` ask for.

        Raises:
            UsageError: a scale is no number from 0.1 to 4, or stands there twice.
        """
        values = []
        for text in scales.split(","):
            try:
                values.append(float(text))
            except ValueError:
                values.append(0)
            if not 0.1 <= values[-1] <= 4:
                raise UsageError(
                    f"A scale is a number from 0.1 to 4, not {text.strip()!r}. Example: --scales 0.5,0.75,1,1.25"
                )
            if values[-1] in values[:-1]:
                raise UsageError(f"The scale {values[-1]:g} stands twice in {scales!r}. Name each once.")
        return cls(tuple(sorted(values)), flip)

    @property
    def passes(self) -> int:
        """Passes of an image through the network, if it has no windows."""
        return len(self.scales) * (1 + self.flip)

    @property
    def text(self) -> str:
        """As part of a protocol: "single scale", "scales 0.5 1 with flip"."""
        numbers = " ".join(map(_number, self.scales))
        scales = f"scale{'s' * (len(self.scales) > 1)} {numbers}" if self.scales != (1.0,) else "single scale"
        return f"{scales} with flip" if self.flip else scales


NO_TTA = TTA()
"""The picture as it is, nothing averaged."""


def _number(value: float) -> str:
    """Every digit, without a final .0: two scales never read the same."""
    return str(value).removesuffix(".0")


@torch.no_grad()
def mean_probabilities(
    logits_of: Callable[[Tensor], Tensor], image_B3HW: Tensor, tta: TTA, size: tuple[int, ...]
) -> Tensor:
    """Class probabilities (B, C, *size), the mean over scales and mirror images.

    Averaged are softmax probabilities, after the logits of each pass were mirrored back and brought to `size`.
    (Windows, one step before, average logits.) A scaled picture has floor(scale x its size) pixels, interpolated
    bilinearly without averaging where it shrinks, as training scales.

    Args:
        logits_of: logits (B, C, h, w) of pictures (B, 3, H, W).
        image_B3HW: pictures, normalised.
        tta: scales, and whether to mirror.
        size: height and width of what comes back.
    """
    total: Tensor | None = None
    for scale in tta.scales:
        scaled = _scaled(image_B3HW, scale)
        for mirrored in (False, True)[: 1 + tta.flip]:
            logits = logits_of(scaled.flip(3)).flip(3) if mirrored else logits_of(scaled)
            probabilities = upsample(logits, size).softmax(dim=1)
            total = probabilities if total is None else total.add_(probabilities)
    assert total is not None  # there is a scale
    return total.div_(tta.passes)


def _scaled(image_B3HW: Tensor, scale: float) -> Tensor:
    if scale == 1:
        return image_B3HW
    height, width = (max(1, int(scale * length)) for length in image_B3HW.shape[2:])
    return interpolate(image_B3HW, size=(height, width), mode="bilinear", align_corners=False)
