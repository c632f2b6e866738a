"""Category-wise memory bank: the newest negatives of each class, oldest out first (Q_c, Algorithm 1)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

NONE, NOT_KNOWN, TRUE, FALSE = range(4)
"""What is known of a pixel as a negative of a class: it is none; nothing; it is of another class; of this very one."""


class MemoryBank(nn.Module):
    """One ring of representations a class, in one buffer.

    A module so that the checkpoint carries it: resumed with an empty bank, a run would differ from one
    that was never stopped. Allocates (sum(capacities) + 1) x D floats once.

    Args:
        capacities: negatives kept of each class.
        features: D.
        judged: whether what is known of each negative is kept too; no loss reads that.
    """

    storage: Tensor
    """(sum(capacities) + 1, D): the rings one after the other, and a spare row that nobody reads."""
    capacity_C: Tensor
    offset_C: Tensor
    pushed_C: Tensor
    judgement: Tensor
    """(sum(capacities) + 1,) uint8, of each row of `storage`; there if `judged`."""

    def __init__(self, capacities: Sequence[int], features: int, *, judged: bool = False):
        super().__init__()
        capacity = torch.tensor(capacities, dtype=torch.int64)
        self.register_buffer("storage", torch.zeros(int(capacity.sum()) + 1, features))
        self.register_buffer("capacity_C", capacity, persistent=False)
        self.register_buffer("offset_C", capacity.cumsum(0) - capacity, persistent=False)
        self.register_buffer("pushed_C", torch.zeros_like(capacity))
        self._capacities = tuple(capacities)
        self.judged = judged
        if judged:
            self.register_buffer("judgement", torch.zeros(len(self.storage), dtype=torch.uint8))

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *others: Any) -> None:
        """As usual, but that of a bank which an earlier version saved nothing is known."""
        if self.judged:
            state_dict.setdefault(f"{prefix}judgement", torch.full_like(self.judgement, NOT_KNOWN))
        super()._load_from_state_dict(state_dict, prefix, *others)

    @property
    def filled_C(self) -> Tensor:
        """How many negatives each class holds, (C,) int64."""
        return torch.minimum(self.pushed_C, self.capacity_C)

    @property
    def false_2C(self) -> Tensor:
        """Of each class, how many of the negatives it holds are false, and of how many that is known, (2, C) int64."""
        by_class = self.judgement[:-1].split(self._capacities)
        return torch.stack(
            [
                torch.stack([(of_class == FALSE).sum() for of_class in by_class]),
                torch.stack([(of_class >= TRUE).sum() for of_class in by_class]),
            ]
        )

    @torch.no_grad()
    def push(self, representation_PD: Tensor, mask_CP: Tensor, judgement_CP: Tensor | None = None) -> None:
        """Append each class's pixels in order; where more come than fit, the newest stay.

        Args:
            representation_PD: floats.
            mask_CP: bool; a pixel may go to several classes.
            judgement_CP: uint8, what is known of them; only if `judged`.
        """
        if len(representation_PD) == 0:
            return
        # Row c counts the pixels of class c up to each place: the k-th one stands where the count reaches k.
        seen_CP = mask_CP.cumsum(dim=1, dtype=torch.int32)
        total_C = seen_CP[:, -1].long()
        spare = len(self.storage) - 1
        for c, places in enumerate(self._places(total_C, mask_CP.shape[1])):
            # The last `places` of the class's pixels; with fewer of them, the first numbers are not positive.
            number = total_C[c] + torch.arange(1 - places, 1, device=total_C.device)
            pixel = torch.searchsorted(seen_CP[c], number.int()).clamp(max=mask_CP.shape[1] - 1)
            slot = self.offset_C[c] + (self.pushed_C[c] + number - 1) % self.capacity_C[c]
            slot = slot.where(number > 0, spare)
            self.storage.index_copy_(0, slot, representation_PD.index_select(0, pixel).to(self.storage.dtype))
            if judgement_CP is not None:
                self.judgement.index_copy_(0, slot, judgement_CP[c].index_select(0, pixel))
        self.pushed_C += total_C

    def _places(self, total_C: Tensor, pixels: int) -> list[int]:
        """How many pixels of each class to look for: at least those that come and stay.

        On a CPU that is known. To read it from a GPU would mean to wait until all its work is done:
        there as many as could ever come are looked for, and what is too many goes to the spare row.
        """
        known = total_C.tolist() if total_C.device.type == "cpu" else [pixels] * len(total_C)
        return [min(count, capacity) for count, capacity in zip(known, self._capacities, strict=True)]

    @torch.no_grad()
    def sample(self, anchors: int, negatives: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw negatives for each anchor of each class uniformly, with replacement.

        Returns:
            (C, anchors, negatives) int64 rows of `storage`; of a class whose ring is empty they are zeros.
        """
        filled_C11 = self.filled_C[:, None, None]
        shape = (len(self.capacity_C), anchors, negatives)
        draw = torch.rand(shape, device=self.storage.device, generator=generator)
        return (draw * filled_C11).long().minimum(filled_C11 - 1).clamp(min=0) + self.offset_C[:, None, None]
