"""CutMix: MT whose student sees unlabelled images mixed by boxes.

"The only difference between MT and CutMix is that the latter applies CutMix to unlabelled images" (App. A).
"""

from typing import ClassVar

import torch
from pydantic import Field

from u2pl.data.mixing import half_area_boxes, paste_neighbor
from u2pl.methods.base import Step, method
from u2pl.methods.mt import MeanTeacher, MeanTeacherSettings, Pseudo
from u2pl.settings import Settings


class CutMixSettings(MeanTeacherSettings):
    """Hyper-parameters of CutMix."""

    cutmix_probability: float = Field(ge=0, le=1)
    """Probability that a batch is mixed."""


@method("cutmix")
class CutMix(MeanTeacher):
    """MT with mixed images."""

    settings_class: ClassVar[type[Settings]] = CutMixSettings
    settings: CutMixSettings

    def augmented(self, pseudo: Pseudo, step: Step) -> Pseudo:
        """Images and all that goes with them mixed with the same boxes, in the given share of the steps."""
        if torch.rand((), generator=step.generator) >= self.settings.cutmix_probability:
            return pseudo
        count, height, width = pseudo.label.shape
        inside = half_area_boxes(count, height, width, step.generator)
        if pseudo.label.is_cuda:  # from other memory the copy would wait for the device
            inside = inside.pin_memory().to(pseudo.label.device, non_blocking=True)
        return Pseudo(*(paste_neighbor(inside, tensor, self.recipe.replicas) for tensor in pseudo))
