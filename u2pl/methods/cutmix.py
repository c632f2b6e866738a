"""CutMix: MT whose student sees unlabelled images mixed by boxes.

"The only difference between MT and CutMix is that the latter applies CutMix to unlabelled images" (App. A).
"""

from typing import ClassVar

import torch
from torch import Tensor

from u2pl import processes
from u2pl.batches.mixing import half_area_boxes, paste_neighbor
from u2pl.methods.base import Step, method, onto
from u2pl.methods.mt import MeanTeacher
from u2pl.methods.teaching import Pseudo
from u2pl.settings import Settings
from u2pl.settings.hyper import CutMixSettings


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
        boxes = half_area_boxes(count, height, width, step.generator)
        inside, groups = onto(boxes, pseudo.label.device), self.recipe.replicas
        own = inside[self.mine(len(pseudo.image)), None]
        image = torch.where(own, following(pseudo.image, groups), pseudo.image)
        return Pseudo(image, *(paste_neighbor(inside, maps, groups) for maps in pseudo[1:]))


def following(image: Tensor, groups: int) -> Tensor:
    """Of each image of this process the next one of its group, of the last one the first; (b, 3, H, W) both ways.

    Args:
        image: this process's.
        groups: of all images; a group is some of one process's images, or those of some processes.
    """
    size = processes.size()
    if groups >= size:
        return image.unflatten(0, (groups // size, -1)).roll(-1, dims=1).flatten(0, 1)
    together = size // groups
    start = processes.rank() // together * together
    neighbor = start + (processes.rank() - start + 1) % together
    return torch.cat([image[1:], processes.gather(image[:1])[neighbor : neighbor + 1]])
