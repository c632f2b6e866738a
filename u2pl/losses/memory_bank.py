"""Category-wise memory bank: the newest negatives of each class, oldest out first (Q_c, Algorithm 1)."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

NONE, NOT_KNOWN, TRUE, FALSE = range(4)
"""What is known of a pixel as a negative of a class: it is none; nothing; it is of another class; of this very one."""

_ROWS_AT_ONCE = 2**10
"""On a CPU they stay in the cache on their way into the store."""


class MemoryBank(nn.Module):
    """One ring a class, of rows of a common store: a pixel that is a negative of many classes is stored once.

    A module so that the checkpoint carries it: resumed with an empty bank, a run would differ from one
    that was never stopped. Allocates (sum(capacities) + 1) x D floats once, of which a CPU gives memory to those rows
    alone that were ever used.

    Args:
        capacities: negatives kept of each class.
        features: D.
        judged: whether what is known of each negative is kept too; no loss reads that.
    """

    storage: Tensor
    """(sum(capacities) + 1, D), in no order; the last row is spare, and zero."""
    length: Tensor
    """(sum(capacities) + 1,) the rows' Euclidean lengths."""
    row: Tensor
    """(sum(capacities) + 1,) int64: the rings one after the other, and a spare place; each holds a row of `storage`."""
    uses: Tensor
    """(sum(capacities) + 1,) int32: how many places of rings hold each row; of the spare one it says nothing."""
    capacity_C: Tensor
    offset_C: Tensor
    """Where in `row` the classes' rings begin."""
    pushed_C: Tensor
    judgement: Tensor
    """(sum(capacities) + 1,) uint8, of each place in `row`; there if `judged`."""

    def __init__(self, capacities: Sequence[int], features: int, *, judged: bool = False):
        super().__init__()
        capacity = torch.tensor(capacities, dtype=torch.int64)
        places = int(capacity.sum())
        self.register_buffer("storage", torch.zeros(places + 1, features))
        self.register_buffer("length", torch.zeros(places + 1))
        self.register_buffer("row", torch.full((places + 1,), places))
        self.register_buffer("uses", torch.zeros(places + 1, dtype=torch.int32))
        self.register_buffer("capacity_C", capacity, persistent=False)
        self.register_buffer("offset_C", capacity.cumsum(0) - capacity, persistent=False)
        self.register_buffer("pushed_C", torch.zeros_like(capacity))
        self._capacities = tuple(capacities)
        self.judged = judged
        if judged:
            self.register_buffer("judgement", torch.zeros(places + 1, dtype=torch.uint8))

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *others: Any) -> None:
        """As usual, but for banks that an earlier version saved.

        Its rows are in the order of the rings, each of one place; and of what none was judged of, nothing is known.
        """
        if self.judged:
            state_dict.setdefault(f"{prefix}judgement", torch.full_like(self.judgement, NOT_KNOWN))
        if f"{prefix}storage" in state_dict and f"{prefix}row" not in state_dict:
            spare = len(self.row) - 1
            row, pushed_C = torch.full_like(self.row, spare), state_dict[f"{prefix}pushed_C"].tolist()
            for pushed, first, capacity in zip(
                pushed_C, self.offset_C.tolist(), self._capacities, strict=True
            ):
                held = slice(first, first + min(pushed, capacity))
                row[held] = torch.arange(held.start, held.stop, device=row.device)
            state_dict[f"{prefix}row"] = row
            state_dict[f"{prefix}uses"] = row.bincount(minlength=spare + 1).int()
            state_dict[f"{prefix}length"] = torch.linalg.vector_norm(state_dict[f"{prefix}storage"], dim=1)
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
        pixels, spare = mask_CP.shape[1], len(self.storage) - 1
        if pixels == 0:
            return
        come, count_C = zip(*self._come(mask_CP), strict=True)
        stays_P = torch.zeros(pixels + 1, dtype=torch.bool, device=mask_CP.device)  # the last is nobody
        for place, pixel in come:
            self.uses.index_add_(0, self.row[place], torch.full_like(place, -1, dtype=torch.int32))
            stays_P.index_fill_(0, pixel, True)
        pixel, row = self._placed(stays_P[:-1])
        row_P = torch.full((pixels + 1,), spare, device=mask_CP.device).index_copy_(0, pixel, row)
        at_once = _ROWS_AT_ONCE if self._reads(mask_CP) else pixels
        for from_K, to_K in zip(pixel.split(at_once), row.split(at_once), strict=True):
            coming = representation_PD.index_select(0, from_K.clamp(max=pixels - 1)).to(self.storage.dtype)
            self.storage.index_copy_(0, to_K, coming)
            self.length.index_copy_(0, to_K, torch.linalg.vector_norm(coming, dim=1))
        self.storage[spare].zero_()
        self.length[spare].zero_()
        for c, (place, pixel) in enumerate(come):
            held = row_P[pixel]
            self.row.index_copy_(0, place, held)
            self.uses.index_add_(0, held, torch.ones_like(place, dtype=torch.int32))
            if judgement_CP is not None:
                known = judgement_CP[c].index_select(0, pixel.clamp(max=pixels - 1))
                self.judgement.index_copy_(0, place, known)
        self.pushed_C += torch.stack(count_C)

    @staticmethod
    def _reads(mask: Tensor) -> bool:
        """Whether to ask how many there are, before anything else is done."""
        return mask.device.type == "cpu"

    def _come(self, mask_CP: Tensor) -> Iterator[tuple[tuple[Tensor, Tensor], Tensor]]:
        """Of each class the places in `row` that are taken anew, by which pixels, the newest; and how many come in all.

        To read from a GPU how many they are would mean to wait until all its work is done: there as many as could ever
        come are looked for, and what is too many is of the spare place, by nobody (P).
        """
        spare, pixels = len(self.row) - 1, mask_CP.shape[1]
        for c, capacity in enumerate(self._capacities):
            if self._reads(mask_CP):
                pixel = mask_CP[c].nonzero()[:, 0]
                number = torch.arange(len(pixel))[-capacity:]
                place = self.offset_C[c] + (self.pushed_C[c] + number) % capacity
                yield (place, pixel[-capacity:]), torch.tensor(len(pixel))
                continue
            # The k-th pixel of the class stands where the count of its pixels reaches k.
            seen_P = mask_CP[c].cumsum(0, dtype=torch.int32)
            number = seen_P[-1] + torch.arange(1 - min(pixels, capacity), 1, device=mask_CP.device)
            is_one = number > 0
            pixel = torch.searchsorted(seen_P, number.int()).where(is_one, pixels)
            place = self.offset_C[c] + (self.pushed_C[c] + number - 1) % capacity
            yield (place.where(is_one, spare), pixel), seen_P[-1].long()

    def _placed(self, stays_P: Tensor) -> tuple[Tensor, Tensor]:
        """The pixels that come to stay, and for each a row that no ring holds; see `_come` for what is too many.

        There are enough: a row that is held takes a place in a ring, as a pixel that comes does.
        """
        free_K = self.uses[:-1] == 0
        if self._reads(stays_P):
            pixel = stays_P.nonzero()[:, 0]
            return pixel, free_K.nonzero()[: len(pixel), 0]
        number = torch.arange(1, min(len(stays_P), len(free_K)) + 1, device=stays_P.device, dtype=torch.int32)
        seen_P, seen_K = (mask.cumsum(0, dtype=torch.int32) for mask in (stays_P, free_K))
        is_one = number <= seen_P[-1]
        pixel = torch.searchsorted(seen_P, number).where(is_one, len(stays_P))
        return pixel, torch.searchsorted(seen_K, number).where(is_one, len(free_K))

    @torch.no_grad()
    def sample(self, anchors: int, negatives: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw negatives for each anchor of each class uniformly, with replacement.

        Returns:
            (C, anchors, negatives) int64 rows of `storage`; of a class whose ring is empty the spare one.
        """
        filled_C11 = self.filled_C[:, None, None]
        shape = (len(self.capacity_C), anchors, negatives)
        draw = torch.rand(shape, device=self.storage.device, generator=generator)
        number = (draw * filled_C11).long().minimum(filled_C11 - 1).clamp(min=0)
        return self.row[number + self.offset_C[:, None, None]]
