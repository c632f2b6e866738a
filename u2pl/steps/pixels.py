"""Where the pixels of a step stand: in the maps of this process, and in one row with those of all processes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from u2pl import processes
from u2pl.steps.micro_batch import MicroBatch


@dataclass(frozen=True)
class Pixels:
    """Two orders of the P pixels of labelled and unlabelled images.

    This process's maps have its labelled images first, then the unlabelled ones. In the row of all pixels, group
    follows group (recipe.replicas), each with its labelled images first.
    """

    images: int
    """Labelled images of this process."""
    groups: int
    area: int
    """Pixels of a map."""

    @property
    def each(self) -> int:
        """Labelled images of a group."""
        return self.images * processes.size() // self.groups

    @property
    def first(self) -> int:
        """Number of this process's first labelled image."""
        return self.images * processes.rank()

    def all_masks(self, mask_CP: Tensor) -> Tensor:
        """Masks of this process's pixels -> masks of the row of all, (C, pixels)."""
        by_image = mask_CP.unflatten(1, (2, self.images, self.area)).permute(2, 1, 0, 3)
        everywhere = processes.gather(by_image).unflatten(0, (self.groups, self.each))
        return everywhere.permute(3, 0, 2, 1, 4).flatten(1)

    def all_rows(self, values_PD: Tensor, mask_CP: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Values of the pixels that are in some class's mask, of all processes in the order of the row of all.

        With one process, where nothing is sent, of all pixels.

        Returns:
            (K, D) values, (C, K) masks, and (K,) places in the row of all.
        """
        place_P = self.places(values_PD.device)
        if processes.size() == 1:
            if self.groups == 1:
                return values_PD, mask_CP, place_P
            order = place_P.argsort()
            return values_PD[order], mask_CP[:, order], place_P[order]
        chosen = mask_CP.any(dim=0).nonzero()[:, 0]
        sent = (values_PD[chosen], mask_CP[:, chosen].T, place_P[chosen])
        values_KD, mask_KC, place_K = map(processes.gather_rows, sent)
        order = place_K.argsort()
        return values_KD[order], mask_KC[order].T, place_K[order]

    def places(self, device: torch.device) -> Tensor:
        """Place of each of this process's pixels in the row of all, (P,) int64."""
        number = self.first + torch.arange(self.images, device=device)
        stream = torch.arange(2, device=device)[:, None]
        image = (number // self.each * 2 + stream) * self.each + number % self.each
        return (image[..., None] * self.area + torch.arange(self.area, device=device)).flatten()

    def own(self, group: int, values: Tensor, dim: int) -> Tensor:
        """Those of this process's pixels that belong to a group; `dim` is the pixels'."""
        low, high = (min(max(end * self.each - self.first, 0), self.images) for end in (group, group + 1))
        if high - low == self.images:
            return values
        by_image = values.unflatten(dim, (2, self.images, self.area))
        return by_image.narrow(dim + 1, low, high - low).flatten(dim, dim + 2)

    def of_group(self, group: int, place_K: Tensor) -> slice:
        """Which of some places, in ascending order, belong to a group."""
        size = 2 * self.each * self.area
        ends = torch.tensor([group * size, (group + 1) * size], device=place_K.device)
        return slice(*torch.searchsorted(place_K, ends).tolist())

    def rows(self, group: int, pixel: Tensor, micro: MicroBatch) -> tuple[Tensor, Tensor]:
        """Rows of some pixels of a group in the maps of a micro-batch, and which of them are there.

        Args:
            group: whose.
            pixel: int64, counted from the group's first.
            micro: whose maps have its labelled images first, then the unlabelled ones.

        Returns:
            Two tensors of the shape of `pixel`: int64 rows, in bounds, and bool.
        """
        image = pixel // self.area
        index = group * self.each + image % self.each - micro.first
        here = (index >= 0) & (index < micro.images)
        row = image // self.each * micro.images + index.clamp(0, micro.images - 1)
        return row * self.area + pixel % self.area, here


def aligned(map_BHW: Tensor, size: torch.Size) -> Tensor:
    """A pixel map at the heads' resolution: the values at the points that features lie on when corners are aligned."""
    y, x = (
        torch.linspace(0, old - 1, new, device=map_BHW.device).round().long()
        for old, new in zip(map_BHW.shape[1:], size, strict=True)
    )
    return map_BHW[:, y[:, None], x]


def floored(map_BHW: Tensor, size: torch.Size) -> Tensor:
    """A pixel map at the heads' resolution as the released code makes it: row k shows pixel floor(k H / h)."""
    y, x = (
        torch.arange(new, device=map_BHW.device) * old // new
        for old, new in zip(map_BHW.shape[1:], size, strict=True)
    )
    return map_BHW[:, y[:, None], x]
