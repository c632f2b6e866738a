"""Category-wise memory bank: the newest negatives of each class, oldest out first (Q_c, Algorithm 1)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class MemoryBank(nn.Module):
    """One ring of representations a class, in one buffer.

    A module so that the checkpoint carries it: resumed with an empty bank, a run would differ from one
    that was never stopped. Allocates sum(capacities) x D floats once.

    Args:
        capacities: negatives kept of each class.
        features: D.
    """

    storage: Tensor
    capacity_C: Tensor
    offset_C: Tensor
    pushed_C: Tensor

    def __init__(self, capacities: Sequence[int], features: int):
        super().__init__()
        capacity = torch.tensor(capacities, dtype=torch.int64)
        self.register_buffer("storage", torch.zeros(int(capacity.sum()), features))
        self.register_buffer("capacity_C", capacity, persistent=False)
        self.register_buffer("offset_C", capacity.cumsum(0) - capacity, persistent=False)
        self.register_buffer("pushed_C", torch.zeros_like(capacity))

    @property
    def filled_C(self) -> Tensor:
        """How many negatives each class holds, (C,) int64."""
        return torch.minimum(self.pushed_C, self.capacity_C)

    @torch.no_grad()
    def push(self, representation_PD: Tensor, mask_PC: Tensor) -> None:
        """Append each class's pixels in order; where more come than fit, the newest stay."""
        rank_PC = mask_PC.cumsum(dim=0) - 1
        total_C = mask_PC.sum(dim=0)
        keep_PC = mask_PC & (rank_PC >= total_C - self.capacity_C)
        slot_PC = self.offset_C + (self.pushed_C + rank_PC) % self.capacity_C
        pixel, cls = keep_PC.nonzero(as_tuple=True)
        self.storage[slot_PC[pixel, cls]] = representation_PD[pixel].to(self.storage.dtype)
        self.pushed_C += total_C

    @torch.no_grad()
    def sample(self, anchors: int, negatives: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw negatives for each anchor of each class uniformly, with replacement.

        Returns:
            (C, anchors, negatives, D); zeros for a class whose ring is empty.
        """
        filled_C11 = self.filled_C[:, None, None]
        shape = (len(self.capacity_C), anchors, negatives)
        draw = torch.rand(shape, device=self.storage.device, generator=generator)
        index = (draw * filled_C11).long().minimum(filled_C11 - 1).clamp(min=0) + self.offset_C[:, None, None]
        return self.storage[index]
