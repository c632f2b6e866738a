"""The whole batch, of which this process has some images: sums, thresholds and neighbours over all of them.

Released code that runs on several devices computes thresholds, centres and losses on each device's images alone.
recipe.replicas makes as many equal groups of the batch, on however many processes; what is computed here is computed
for each group.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Self

import torch
from torch import Tensor

from u2pl import processes
from u2pl.losses.cross_entropy import cross_entropy
from u2pl.losses.partition import percentile
from u2pl.steps.micro_batch import MicroBatch


@dataclass(frozen=True)
class WholeBatch:
    """Sums, thresholds and neighbours over the images of all processes."""

    replicas: int
    """Groups of the batch."""

    def each(self, function: Callable[..., Tensor], *maps: Tensor) -> Tensor:
        """`function` of each group's images, stacked, (replicas, ...).

        Args:
            function: takes as many tensors as there are maps.
            maps: of this process's images, which come first among their dimensions.
        """
        groups = zip(*(processes.gather(tensor).chunk(self.replicas) for tensor in maps), strict=True)
        return torch.stack([function(*group) for group in groups])

    def sum(self, value_B: Tensor) -> Tensor:
        """Sums over each group of what each of this process's images has, (replicas,)."""
        return processes.gather(value_B).view(self.replicas, -1).sum(dim=1)

    def count(self, mask_BHW: Tensor) -> Tensor:
        """How many pixels of a mask, bool, each group has, (replicas,), at least 1."""
        return self.sum(mask_BHW.sum(dim=(1, 2))).clamp(min=1)

    def percentile(self, values: Tensor, valid: Tensor, share: float) -> Tensor:
        """The value below which a share of the valid pixels of each image's group lies, (b, 1, 1).

        Args:
            values: (b, H, W) floats.
            valid: (b, H, W) bool.
            share: from 0 to 1.
        """
        value_G = self.each(partial(percentile, share=share), values, valid)
        return self.of_images(value_G, len(values))[:, None, None]

    def of_images(self, value_G: Tensor, images: int) -> Tensor:
        """The value of its group for each of this process's so many images, (images,)."""
        value_B = value_G.repeat_interleave(processes.size() * images // self.replicas)
        return value_B[self.own(images)]

    def shares(self, mask_BHW: Tensor) -> Tensor:
        """What a pixel of each image counts in the mean over groups of the mean over a mask's pixels, (b,).

        Sums over the mask's pixels, each image's times its share, add up to that mean over all processes.
        """
        return self.of_images(1 / (self.replicas * self.count(mask_BHW)), len(mask_BHW))

    def following(self, maps: Tensor) -> Tensor:
        """Of each image of this process what the next one of its group has, of the last one what the first has."""
        groups, size = self.replicas, processes.size()
        if groups >= size:
            return maps.unflatten(0, (groups // size, -1)).roll(-1, dims=1).flatten(0, 1)
        together = size // groups
        start = processes.rank() // together * together
        neighbor = start + (processes.rank() - start + 1) % together
        return torch.cat([maps[1:], processes.gather(maps[:1])[neighbor : neighbor + 1]])

    @staticmethod
    def own(images: int) -> slice:
        """Which of the whole batch's images are this process's, given how many it has."""
        return slice(processes.rank() * images, (processes.rank() + 1) * images)


@dataclass(frozen=True)
class Labels:
    """Labels of this process's images or of a micro-batch of them, and what their mean cross-entropy is divided by."""

    map: Tensor
    """(b, H, W) int64, or the ignore index."""
    ignore_index: int
    count_G: Tensor
    """How many pixels each group of the whole batch has that a mean is over."""
    micro: MicroBatch | None = None
    """The one whose images these are; None: all of this process's."""

    @property
    def size(self) -> tuple[int, ...]:
        """Height and width."""
        return tuple(self.map.shape[1:])

    @property
    def known(self) -> Tensor:
        """Which pixels have a label, (b, H, W) bool."""
        return self.map != self.ignore_index

    @property
    def group_B(self) -> Tensor:
        """Number of each image's group, int64 on the labels' device."""
        images, size = len(self.map), processes.size()
        first, of = (
            (processes.rank() * images, size * images)
            if self.micro is None
            else (self.micro.first, self.micro.of)
        )
        return (first + torch.arange(images, device=self.map.device)) * len(self.count_G) // of

    def of(self, micro: MicroBatch) -> Self:
        """Those of a micro-batch."""
        return replace(self, map=self.map[micro.own], micro=micro)

    def cross_entropy(self, logits: Tensor, weight_G: Sequence[Tensor] | None = None) -> Tensor:
        """A micro-batch's share of the mean over groups of their mean cross-entropy (Eqs. 2 and 3).

        Args:
            logits: (b, C, H, W), of the micro-batch's images.
            weight_G: of each group's mean.
        """
        assert self.micro is not None
        first, images, groups = self.micro.first, self.micro.images, len(self.count_G)
        each = self.micro.of // groups
        losses = []
        for group in range(first // each, (first + images - 1) // each + 1):
            own = slice(max(group * each - first, 0), max((group + 1) * each - first, 0))
            loss = cross_entropy(logits[own], self.map[own], self.ignore_index, self.count_G[group])
            losses.append(loss if weight_G is None else weight_G[group] * loss)
        return torch.stack(losses).sum() / groups
