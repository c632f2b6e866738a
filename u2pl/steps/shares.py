"""Shares of pixels over a step, counted micro-batch by micro-batch, to tell whether training goes well."""

import torch
from torch import Tensor

from u2pl import processes


class Shares:
    """How many of some pixels are such as one asks for, over all micro-batches and processes of a step."""

    def __init__(self) -> None:
        self.counts: dict[str, Tensor] = {}

    def add(self, name: str, such: Tensor, among: Tensor) -> None:
        """Count a micro-batch's pixels.

        Args:
            name: of the share.
            such: bool, counted where `among` is True.
            among: bool, of the same shape.
        """
        found = torch.stack([(such & among).sum(), among.sum()])
        self.counts[name] = self.counts.get(name, 0) + found

    def add_students(
        self, first: Tensor, second: Tensor, truth: Tensor, valid: Tensor, ignore_index: int
    ) -> None:
        """Count how far two students agree, and how often the first is right.

        Args:
            first: its labels, (b, H, W) int64.
            second: likewise.
            truth: likewise, or the ignore index.
            valid: bool, the pixels that count.
            ignore_index: no class.
        """
        self.add("students/agree", first == second, valid)
        self.add("students/accuracy", first == truth, valid & (truth != ignore_index))

    def diagnostics(self) -> dict[str, Tensor | float]:
        """Share by name; NaN where nothing was counted."""
        if not self.counts:
            return {}
        totals = processes.total(torch.stack(list(self.counts.values())))
        return dict(zip(self.counts, (totals[:, 0] / totals[:, 1]).unbind(), strict=True))
