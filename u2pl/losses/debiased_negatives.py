"""Which points an anchor is contrasted with, where no label says of which class they are (PC²Seg, a reconstruction).

P are the points that may be drawn, M the anchors of an image, N the negatives of an anchor, C the classes.
"""

from dataclasses import dataclass
from math import log
from typing import Literal

import torch
from torch import Tensor

from u2pl.losses.partition import entropy

Rule = Literal["debiased_other", "other_image", "uniform", "uncertainty", "debiased"]

_NEAR = 4
"""Points of the same image so close to an anchor are its own neighbourhood."""


@dataclass(frozen=True)
class Places:
    """Where points lie."""

    image: Tensor
    """int64 (...,): number of the image, among all that the points come from."""
    row: Tensor
    """int64 (...,), of the heads' map."""
    column: Tensor
    """int64 (...,), likewise."""


def choose(mask_BHW: Tensor, count: int, seeds: list[int]) -> tuple[Tensor, Tensor]:
    """Points of each image's mask, uniformly and without replacement.

    Args:
        mask_BHW: bool.
        count: of points, n.
        seeds: one for each image.

    Returns:
        (B, n) int64 places in rows of H W points, and (B, n) bool which of them are in the mask: all, or as many as it
        has. Of fewer than n points all come back.
    """
    allowed_BP = mask_BHW.flatten(1)
    keys = [
        torch.rand(allowed_BP.shape[1], device=mask_BHW.device, generator=seeded(seed, mask_BHW.device))
        for seed in seeds
    ]
    key_BP = torch.stack(keys).where(allowed_BP, -1)
    top = key_BP.topk(min(count, key_BP.shape[1]), dim=1)
    return top.indices, top.values >= 0


def weights(
    rule: Rule,
    anchor_MC: Tensor,
    label_PC: Tensor,
    anchor_at: Places,
    at: Places,
    allowed_P: Tensor,
) -> Tensor:
    """How likely each point is drawn for each anchor, (M, P), up to a factor; 0 where it must not be.

    Args:
        rule: `debiased`: 1 - <y_i, y_j>, how likely the two are of different classes if their labels are right;
            `debiased_other`: likewise, of other images alone; `other_image`: those alike; `uniform`: all alike;
            `uncertainty`: 1 - H(y_j) / log C. Of an anchor's own image no point within 4 of it is drawn.
        anchor_MC: soft labels of the anchors, y_i.
        label_PC: soft labels of the points, y_j.
        anchor_at: places of the anchors.
        at: places of the points.
        allowed_P: bool; False on those that none may be contrasted with.
    """
    own_MP = anchor_at.image[:, None] == at.image
    if rule in ("debiased_other", "other_image"):
        excluded_MP = own_MP
    else:
        down_MP = (anchor_at.row[:, None] - at.row).abs()
        across_MP = (anchor_at.column[:, None] - at.column).abs()
        excluded_MP = own_MP & (torch.maximum(down_MP, across_MP) <= _NEAR)
    if rule in ("debiased_other", "debiased"):
        weight_MP = 1 - anchor_MC @ label_PC.T
    elif rule == "uncertainty":
        weight_MP = (1 - entropy(label_PC) / log(label_PC.shape[1])).expand(own_MP.shape)
    else:
        weight_MP = torch.ones_like(own_MP, dtype=label_PC.dtype)
    # Rounding may take a weight below 0.
    return weight_MP.clamp(min=0).where(allowed_P & ~excluded_MP, 0)


def draw(weight_MP: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw points for each anchor with replacement, as likely as their weights say.

    Returns:
        (M, count) int64 points, and (M,) bool which anchors have any; the points of the others mean nothing.
    """
    # Not torch.multinomial, which fails where an anchor has no point, or where a network has diverged.
    cumulative_MP = weight_MP.cumsum(dim=1)
    total_M1 = cumulative_MP[:, -1:]
    place = torch.rand(
        len(weight_MP), count, device=weight_MP.device, generator=seeded(seed, weight_MP.device)
    )
    below = total_M1.nextafter(torch.zeros_like(total_M1))  # what rounds up to the total would be of no point
    index = torch.searchsorted(cumulative_MP, torch.minimum(place * total_M1, below), right=True)
    return index.clamp(max=weight_MP.shape[1] - 1), total_M1[:, 0] > 0


def seeded(seed: int, device: torch.device) -> torch.Generator:
    """A generator on the device that a tensor is drawn on."""
    return torch.Generator(device).manual_seed(seed)
