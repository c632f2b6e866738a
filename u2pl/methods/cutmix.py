"""CutMix: MT whose student sees unlabelled images mixed by boxes.

"The only difference between MT and CutMix is that the latter applies CutMix to unlabelled images" (App. A).
"""

from typing import ClassVar

import torch

from u2pl import processes
from u2pl.batches.mixing import half_area_boxes, paste
from u2pl.methods.base import Step, onto
from u2pl.methods.mt import MeanTeacher
from u2pl.methods.registry import method
from u2pl.methods.student_teacher import Unlabeled
from u2pl.settings import Settings
from u2pl.settings.hyper import CutMixSettings


@method("cutmix")
class CutMix(MeanTeacher):
    """MT with mixed images."""

    settings_class: ClassVar[type[Settings]] = CutMixSettings
    settings: CutMixSettings

    def augmented(self, unlabeled: Unlabeled, step: Step) -> Unlabeled:
        """Images and all that goes with them mixed with the same boxes, in the given share of the steps."""
        if torch.rand((), generator=step.generator) >= self.settings.cutmix_probability:
            return unlabeled
        whole, (images, height, width) = self.whole_batch, unlabeled.label.shape
        boxes = half_area_boxes(processes.size() * images, height, width, step.generator)
        inside = onto(boxes[whole.own(images)], unlabeled.label.device)
        return Unlabeled(*(paste(inside, whole.following(maps), maps) for maps in unlabeled))
