"""Sliding-window inference: logits of whole images from windows that overlap, averaged."""

from itertools import islice, product

import torch
from torch import Tensor

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
