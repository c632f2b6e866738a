"""What the steps of an epoch said: the newest values, their means, shares of each class, and whether all is finite."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from u2pl.training.step import StepResult


class EpochLog:
    """Losses and diagnostics of the steps since the last epoch's end; they stay on the device until they are asked for.

    Args:
        device: on which the losses are.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self._values: dict[str, list[Tensor]] = defaultdict(list)
        self.class_counts: dict[str, Tensor] = {}
        """Sums over the steps of what `Targets.class_counts` holds."""

    def add(self, result: StepResult) -> None:
        """Take in a step."""
        loss = torch.stack(list(result.losses.values())).sum()
        record = {"loss": loss, **{f"loss/{k}": v for k, v in result.losses.items()}, **result.diagnostics}
        for name, value in record.items():
            self._values[name].append(torch.as_tensor(value).detach())
        for name, counts in result.class_counts.items():
            known = self.class_counts.get(name)
            self.class_counts[name] = counts if known is None else known + counts

    def newest(self) -> dict[str, float]:
        """Of the last step; waits for the device."""
        return {name: float(values[-1]) for name, values in self._values.items()}

    def first_not_finite(self) -> tuple[int, list[str]] | None:
        """How many steps back, at least 1, the first loss is that is not finite, and which terms ever were not."""
        losses = self._values.get("loss")
        if not losses:
            return None
        bad = (~torch.isfinite(self._stack(losses))).nonzero()
        if len(bad) == 0:
            return None
        terms = [
            k
            for k, v in self._values.items()
            if k.startswith("loss/") and not bool(torch.isfinite(self._stack(v)).all())
        ]
        return len(losses) - int(bad[0]), terms

    def means(self, classes: Sequence[str]) -> dict[str, float]:
        """Means over the steps, and shares of each class and of all together; NaN where nothing was counted."""
        means = {f"train/{k}": float(self._stack(v).float().nanmean()) for k, v in self._values.items()}
        for name, count_2C in self.class_counts.items():
            part_C, whole_C = count_2C.double()
            by_class = zip(classes, (part_C / whole_C).tolist(), strict=True)
            means |= {f"train/{name}/{word}": value for word, value in by_class}
            means[f"train/all_classes/{name}"] = float(part_C.sum() / whole_C.sum())
        return means

    def clear(self) -> None:
        """Begin a new epoch."""
        self._values.clear()
        self.class_counts.clear()

    def values(self) -> dict[str, Tensor]:
        """Everything but the class counts, for a checkpoint."""
        return {name: self._stack(values) for name, values in self._values.items()}

    def load(self, values: Mapping[str, Tensor], class_counts: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint."""
        for name, each in values.items():
            self._values[name] = list(each)
        self.class_counts = {name: each.to(self.device) for name, each in class_counts.items()}

    def _stack(self, values: list[Tensor]) -> Tensor:
        """In one tensor; some lie on the CPU: plain numbers, and what a checkpoint brought back."""
        return torch.stack([value.to(self.device) for value in values])
