"""Batches to compute losses of, random ones and awkward ones; benchmarks/exactness.py uses them too."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

IGNORE = 255
LABELS = ("all", "absent", "one", "ignored")
"""All classes and some ignored pixels; a class that nobody has; one class alone; nothing but ignored pixels."""
LOGITS = ("random", "ties", "equal", "sure")
"""Any; few values, so that most pixels have ties; all the same; one class certain, the others impossible."""
FEATURES = ("random", "zeros", "same")
"""Any; some of the vectors are 0; all the same."""


@dataclass(frozen=True)
class Scene:
    """As many labelled images as unlabelled ones, and what the networks say of them; float64."""

    label: Tensor
    """(B, H, W) int64, of the labelled images."""
    valid: Tensor
    """(B, H, W) bool, of the unlabelled images: no padding."""
    logits: Tensor
    """(2 B, C, H, W), the teacher's; labelled images first."""
    teacher: Tensor
    """(2 B, D, H, W)."""
    student: Tensor
    """(2 B, D, H, W)."""

    @property
    def classes(self) -> int:
        return self.logits.shape[1]

    @property
    def prob_CP(self) -> Tensor:
        return self.logits.softmax(dim=1).transpose(0, 1).flatten(1)

    @property
    def labeled_P(self) -> Tensor:
        """Which pixels are a labelled image's."""
        return torch.arange(2 * self.label.numel()) < self.label.numel()

    @property
    def plain_label_P(self) -> Tensor:
        """Labels of the labelled images and, as if all were reliable, the likeliest classes of the others."""
        return torch.cat([self.label, self.logits[len(self.label) :].argmax(dim=1)]).flatten()

    def to(self, dtype: torch.dtype) -> "Scene":
        """In another precision."""
        return replace(
            self,
            logits=self.logits.to(dtype),
            teacher=self.teacher.to(dtype),
            student=self.student.to(dtype),
        )


def make(
    seed: int,
    classes: int,
    labels: str = "all",
    logits: str = "random",
    features: str = "random",
    padded: float = 0.0,
    images: int = 1,
    size: tuple[int, int] = (3, 5),
) -> Scene:
    """A scene; `padded` is about the share of the unlabelled images' pixels that are padding."""
    generator = torch.Generator().manual_seed(seed)

    def randn(channels: int) -> Tensor:
        return torch.randn(2 * images, channels, *size, generator=generator, dtype=torch.float64)

    values = {
        "all": [*range(classes), IGNORE],
        "absent": [*range(classes - 1), IGNORE],
        "one": [classes - 1],
        "ignored": [IGNORE],
    }[labels]
    label = torch.tensor(values)[torch.randint(len(values), (images, *size), generator=generator)]
    scores = randn(classes)
    teacher, student = randn(4), randn(4)
    if features == "same":
        teacher = torch.ones_like(teacher)
    elif features == "zeros":
        teacher, student = (
            map_BDHW.masked_fill(torch.rand(2 * images, 1, *size, generator=generator) < 0.3, 0)
            for map_BDHW in (teacher, student)
        )
    scores = {
        "random": 3 * scores,
        "ties": scores.sign() + scores.gt(1),
        "equal": torch.zeros_like(scores),
        "sure": 1e4 * (scores == scores.amax(dim=1, keepdim=True)).double(),
    }[logits]
    if logits != "equal" and labels == "absent":  # the teacher does not name that class either
        scores[:, -1] = -10
    valid = torch.rand(images, *size, generator=generator) >= padded
    return Scene(label, valid, scores, teacher, student)


def pixels(map_BCHW: Tensor) -> list[list[float]]:
    """One list of numbers a pixel, image after image, row after row."""
    return map_BCHW.detach().permute(0, 2, 3, 1).flatten(0, 2).tolist()
