"""Mixes unlabelled images: CutMix with boxes of half the area."""

import torch
from torch import Tensor


def half_area_boxes(count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Random boxes that cover about half of the image each (the sampler of the released code).

    The width is uniform between half of the image and one pixel less than all, the height follows from the area.

    Args:
        generator: a CPU generator.

    Returns:
        (count, height, width) bool, True inside the box.
    """
    inside = torch.zeros(count, height, width, dtype=torch.bool)
    for mask in inside:
        w = int(torch.randint(width // 2 + 1, width, (), generator=generator))
        h = min(round(height * width / 2 / w), height)
        x = int(torch.randint(0, width - w + 1, (), generator=generator))
        y = int(torch.randint(0, height - h + 1, (), generator=generator))
        mask[y : y + h, x : x + w] = True
    return inside


def paste_neighbor(inside_BHW: Tensor, batch: Tensor, groups: int = 1) -> Tensor:
    """Replace each image's pixels inside its box by those of the next image of its group, the last's by the first's.

    Args:
        inside_BHW: bool, from `half_area_boxes`.
        batch: (B, H, W) or (B, channels, H, W): images, labels or entropies, mixed with the same boxes.
        groups: equal parts of the batch, none of which sees another's images.
    """
    inside = inside_BHW if batch.dim() == 3 else inside_BHW[:, None]
    neighbor = batch.unflatten(0, (groups, -1)).roll(-1, dims=1).flatten(0, 1)
    return torch.where(inside, neighbor, batch)
