"""What a network says of whole images: in one pass, from overlapping windows, averaged over scales and mirroring."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice, product

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from u2pl.errors import UsageError
from u2pl.models.deeplab import DeepLabV3Plus, upsample

BATCH = 4
"""Windows that go through the network at once, as far as one image has so many."""


def stride_of(window: int) -> int:
    """Pixels from one window to the next: two thirds of it, rounded up (released code)."""
    return -(-2 * window // 3)


def windows(length: int, window: int) -> list[slice]:
    """Along one side, the windows that cover it; the last one ends where the side ends.

    Args:
        length: pixels of the side.
        window: pixels of a window; where the side is shorter, there is one window as long as the side.
    """
    size = min(window, length)
    starts = [*range(0, length - size, stride_of(window)), length - size]
    return [slice(start, start + size) for start in starts]


@torch.no_grad()
def sliding_logits(network: DeepLabV3Plus, image_B3HW: Tensor, window: int) -> Tensor:
    """Logits (B, C, H, W) from windows of `window` x `window`, averaged where they overlap.

    Averaged are logits, not probabilities, as in the released code; each window's are first brought to its own size.
    Takes C x H x W numbers an image, whatever the window.
    """
    batch, _, height, width = image_B3HW.shape
    places = iter(list(product(windows(height, window), windows(width, window))))
    total: Tensor | None = None
    times = image_B3HW.new_zeros(height, width)
    while some := list(islice(places, max(1, BATCH // batch))):
        crops = torch.cat([image_B3HW[:, :, rows, columns] for rows, columns in some])
        logits = upsample(network(crops, represent=False).logits, crops.shape[2:])
        if total is None:
            total = logits.new_zeros(batch, logits.shape[1], height, width)
        for (rows, columns), part in zip(some, logits.split(batch), strict=True):
            total[:, :, rows, columns] += part
            times[rows, columns] += 1
    assert total is not None  # an image has a window
    return total.div_(times)


@dataclass(frozen=True)
class Looks:
    """How often the network looks at each image: once at every scale, and where `flip`, at its mirror image too."""

    scales: tuple[float, ...] = (1.0,)
    """Each once, in ascending order."""
    flip: bool = False

    @classmethod
    def parse(cls, scales: str, flip: bool) -> "Looks":
        """The looks that `scales` ("0.5,1,1.5", in any order) and `flip` ask for.

        Raises:
            UsageError: a scale is no number from 0.1 to 4, or stands there twice.
        """
        values = []
        for word in scales.split(","):
            try:
                values.append(float(word))
            except ValueError:
                values.append(0)
            if not 0.1 <= values[-1] <= 4:
                raise UsageError(
                    f"A scale is a number from 0.1 to 4, not {word.strip()!r}. Example: --scales 0.5,0.75,1,1.25"
                )
            if values[-1] in values[:-1]:
                raise UsageError(f"The scale {values[-1]:g} stands twice in {scales!r}. Name each once.")
        return cls(tuple(sorted(values)), flip)

    @property
    def count(self) -> int:
        """Passes of an image through the network, if it has no windows."""
        return len(self.scales) * (1 + self.flip)

    @property
    def words(self) -> str:
        """As part of a protocol: "single scale", "scales 0.5 1 with flip"."""
        numbers = " ".join(map(_number, self.scales))
        scales = f"scale{'s' * (len(self.scales) > 1)} {numbers}" if self.scales != (1.0,) else "single scale"
        return f"{scales} with flip" if self.flip else scales


ONCE = Looks()
"""The picture as it is, nothing averaged."""


def _number(value: float) -> str:
    """Every digit, without a final .0: two scales never read the same."""
    return str(value).removesuffix(".0")


@torch.no_grad()
def mean_probabilities(
    logits_of: Callable[[Tensor], Tensor], image_B3HW: Tensor, looks: Looks, size: tuple[int, ...]
) -> Tensor:
    """Class probabilities (B, C, *size), the mean of all looks.

    Averaged are softmax probabilities, after each look's logits were mirrored back and brought to `size`. (Windows, one
    step before, average logits.) A scaled picture has floor(scale x its size) pixels, interpolated bilinearly without
    averaging where it shrinks, as training scales.

    Args:
        logits_of: logits (B, C, h, w) of pictures (B, 3, H, W).
        image_B3HW: pictures, normalised.
        looks: scales, and whether to mirror.
        size: height and width of what comes back.
    """
    total: Tensor | None = None
    for scale in looks.scales:
        scaled = _scaled(image_B3HW, scale)
        for mirrored in (False, True)[: 1 + looks.flip]:
            logits = logits_of(scaled.flip(3)).flip(3) if mirrored else logits_of(scaled)
            probabilities = upsample(logits, size).softmax(dim=1)
            total = probabilities if total is None else total.add_(probabilities)
    assert total is not None  # there is a scale
    return total.div_(looks.count)


def _scaled(image_B3HW: Tensor, scale: float) -> Tensor:
    if scale == 1:
        return image_B3HW
    height, width = (max(1, int(scale * length)) for length in image_B3HW.shape[2:])
    return interpolate(image_B3HW, size=(height, width), mode="bilinear", align_corners=False)
