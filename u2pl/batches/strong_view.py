"""The strong view of images: colours distorted at random, and a square cut out. Nothing moves.

PseudoSeg (Zou et al., 2021) distorts brightness, contrast, saturation and hue in random order and cuts out; FixMatch
and UniMatch make some images grey or blurred besides. All is drawn for the batch of all processes, image by image.
"""

from dataclasses import dataclass, fields, replace
from math import ceil
from typing import NamedTuple, Self

import torch
from torch import Tensor

from u2pl.batches.transforms import denormalised, normalise
from u2pl.settings.hyper import StrongViewSettings


class StrongView(NamedTuple):
    """Images as a student sees them."""

    image: Tensor
    """float32 (B, 3, H, W), normalised; the mean colour on padding and where the square was."""
    kept: Tensor
    """bool (B, H, W): neither padding nor cut out."""


@dataclass(frozen=True)
class StrongDraws:
    """What was drawn for one strong view of some images; another view of the same images is another draw."""

    strength: Tensor
    """(B, 4): factors of brightness, contrast and saturation, and the shift of the hue in turns."""
    order: Tensor
    """int64 (B, 4): which of them comes first."""
    jittered: Tensor
    """bool (B,): whether an image gets them at all."""
    gray: Tensor
    """bool (B,)."""
    sigma: Tensor
    """(B,): of the blur, in pixels; 0 where there is none."""
    center: Tensor
    """(B, 2): of the square, from 0 to just below 1, down and across."""
    cutout: float
    """Half of the square's side, as a share of the image's."""

    @classmethod
    def draw(cls, settings: StrongViewSettings, images: int, generator: torch.Generator) -> Self:
        """Of so many images; always as many numbers for each, so that no setting changes what is drawn for another.

        Args:
            settings: of the view.
            images: of the batch of all processes.
            generator: of the step, on the CPU.
        """
        s, drawn = settings, torch.rand(images, 14, generator=generator)
        widest = torch.tensor([s.jitter_brightness, s.jitter_contrast, s.jitter_saturation, s.jitter_hue])
        low, high = s.blur_sigma
        sigma = low + drawn[:, 10] * (high - low)
        return cls(
            strength=torch.tensor([1.0, 1.0, 1.0, 0.0]) + (2 * drawn[:, :4] - 1) * widest,
            order=drawn[:, 4:8].argsort(dim=1),
            jittered=drawn[:, 8] < s.jitter_probability,
            gray=drawn[:, 9] < s.grayscale_probability,
            sigma=sigma.where(drawn[:, 11] < s.blur_probability, 0),
            center=drawn[:, 12:],
            cutout=s.cutout,
        )

    def part(self, images: slice) -> Self:
        """Those of some of the images."""
        own = {f.name: getattr(self, f.name)[images] for f in fields(self) if f.name != "cutout"}
        return replace(self, **own)


def strong_view(image: Tensor, valid: Tensor, draws: StrongDraws) -> StrongView:
    """The strong view of weakly augmented images, on their device; nothing here waits for it.

    Each operation works on colours from 0 to 1 and clips to them. Padding is not distorted: the picture's contrast is
    changed about the mean of its own pixels, and padding is the mean colour afterwards as it was before. A blur alone
    mixes it into the pixels at its edge.

    Args:
        image: float32 (B, 3, H, W), normalised.
        valid: bool (B, H, W), False on padding.
        draws: of these B images, on the CPU.
    """
    height, width = valid.shape[1:]
    half = round(draws.cutout * min(height, width))
    pictures, kept = denormalised(image), valid.clone()
    for b in range(len(image)):
        # In place: a copy of the batch for each image would cost more than the distortion.
        pictures[b] = _distorted(pictures[b], valid[b], draws, b)
        y, x = (
            int(place * side) for place, side in zip(draws.center[b].tolist(), (height, width), strict=True)
        )
        kept[b, max(y - half, 0) : y + half, max(x - half, 0) : x + half] = False
    view = normalise(255 * pictures.permute(0, 2, 3, 1))
    return StrongView(view * kept[:, None], kept)


def _distorted(picture: Tensor, valid: Tensor, draws: StrongDraws, b: int) -> Tensor:
    """One picture, (3, H, W), from 0 to 1."""
    # Inside, since torchvision takes seconds, and `u2pl.models` must have been imported before it.
    from torchvision.transforms.v2 import functional

    if draws.jittered[b]:
        strength = draws.strength[b].tolist()
        for number in draws.order[b].tolist():
            if number == 0:
                picture = functional.adjust_brightness(picture, strength[0])
            elif number == 1:
                picture = _contrast(picture, valid, strength[1])
            elif number == 2:
                picture = functional.adjust_saturation(picture, strength[2])
            else:
                picture = functional.adjust_hue(picture, strength[3]).clamp(0, 1)
    if draws.gray[b]:
        picture = functional.rgb_to_grayscale(picture, num_output_channels=3)
    sigma = draws.sigma[b].item()
    if sigma > 0:
        radius = min(ceil(3 * sigma), *(side - 1 for side in valid.shape))
        picture = functional.gaussian_blur(picture, [2 * radius + 1] * 2, [sigma] * 2)
    return picture


def _contrast(picture: Tensor, valid: Tensor, factor: float) -> Tensor:
    """As torchvision's, but about the mean grey of the pixels that are no padding."""
    from torchvision.transforms.v2 import functional

    gray = functional.rgb_to_grayscale(picture)[0]
    mean = (gray * valid).sum() / valid.sum().clamp(min=1)
    return (factor * picture + (1 - factor) * mean).clamp(0, 1)
