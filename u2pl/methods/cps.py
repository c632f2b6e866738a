"""CPS: two students that differ in their first weights alone, each taught by the other (cross pseudo supervision).

Chen et al., *Semi-Supervised Semantic Segmentation with Cross Pseudo Supervision*, CVPR 2021.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from u2pl import processes
from u2pl.batches.loader import Batch, Images, Stream
from u2pl.batches.mixing import paste, toggled_boxes
from u2pl.methods.base import Classes, Method, Step, Targets, onto
from u2pl.methods.registry import method
from u2pl.models.deeplab import DeepLabV3Plus, Output, upsample
from u2pl.settings import Recipe, Settings
from u2pl.settings.hyper import CPSSettings
from u2pl.steps.forward import Forward
from u2pl.steps.whole_batch import Labels


@dataclass(frozen=True, kw_only=True)
class CPSTargets(Targets):
    """What the students see, and with CutMix what each says of it to the other."""

    labeled_valid: Tensor
    """(b, H, W) bool, of the labelled images."""
    valid: Tensor
    """(b, H, W) bool, of the unlabelled ones."""
    truth: Tensor
    """(b, H, W) int64, likewise, to measure with."""
    first_says: Labels
    """Labels of the unlabelled images. Without CutMix the students' labels come from the outputs that are trained, and
    only over how many pixels their mean is stands here."""
    second_says: Labels


@method("cps")
class CPS(Method):
    """L_s of both students + lambda L_cps."""

    settings_class: ClassVar[type[Settings]] = CPSSettings
    settings: CPSSettings
    trained: ClassVar[int] = 2

    def __init__(self, classes: Classes, recipe: Recipe, settings: CPSSettings):
        super().__init__(classes, recipe, settings)
        self.second = self.second_network()

    @property
    def students(self) -> tuple[DeepLabV3Plus, DeepLabV3Plus]:
        """Both."""
        return self.student, self.second

    def streams(self) -> Mapping[str, Stream]:
        """With CutMix, a second sequence of unlabelled images."""
        return {"partner": Stream(labeled=False)} if self.settings.cutmix else {}

    def targets(self, batch: Batch, step: Step) -> CPSTargets:
        """The same images for both; with CutMix mixed ones, and each student's labels of them for the other."""
        labeled, unlabeled = batch.labeled, batch.unlabeled
        assert unlabeled is not None
        if self.settings.cutmix:
            unlabeled, says = self.mixed(unlabeled, batch.extra["partner"], step)
            count_G = self.whole_batch.count(unlabeled.valid)
        else:
            says = [torch.full_like(unlabeled.mask, self.classes.ignore_index) for _ in self.students]
            count_G = self.whole_batch.count(torch.cat([labeled.valid, unlabeled.valid], dim=1))
        streams, options = (labeled.image, unlabeled.image), {"represent": False}
        return CPSTargets(
            forwards=tuple(Forward(network, streams, options) for network in self.students),
            label=self.labels(labeled.mask),
            labeled_valid=labeled.valid,
            valid=unlabeled.valid,
            truth=unlabeled.mask,
            first_says=self.labels(says[0], count_G),
            second_says=self.labels(says[1], count_G),
        )

    def losses(self, first: Output, second: Output, targets: CPSTargets) -> dict[str, Tensor]:
        """Each student's loss on the true labels, and on what the other one says."""
        s, size = self.settings, targets.label.size
        outputs = first, second
        logits = [upsample(output.logits, size) for output in outputs]
        says = self.says(logits, targets)
        supervised, cross = [], []
        for network, output, (of_labeled, of_unlabeled) in zip(
            self.students, outputs, reversed(says), strict=True
        ):
            on_labeled, on_unlabeled = output.logits.chunk(2)
            supervised.append(self.supervised(output, targets, network))
            if of_labeled is not None:
                cross.append(of_labeled.cross_entropy(on_labeled))
            cross.append(of_unlabeled.cross_entropy(on_unlabeled))
        first_map, second_map = (of_unlabeled.map for _, of_unlabeled in says)
        ignore = self.classes.ignore_index
        targets.shares.add_students(first_map, second_map, targets.truth, targets.valid, ignore)
        weight = s.lambda_mixed if s.cutmix else s.lambda_plain
        return {"supervised": torch.stack(supervised).sum(), "cross": weight * torch.stack(cross).sum()}

    def says(self, logits: list[Tensor], targets: CPSTargets) -> list[tuple[Labels | None, Labels]]:
        """Each student's labels of the labelled images, where these are taught on, and of the unlabelled ones."""
        known = targets.first_says, targets.second_says
        if self.settings.cutmix:
            return [(None, labels) for labels in known]
        valid = torch.cat([targets.labeled_valid, targets.valid])
        maps = [own.detach().argmax(dim=1).where(valid, self.classes.ignore_index).chunk(2) for own in logits]
        return [
            (replace(labels, map=of_labeled), replace(labels, map=of_unlabeled))
            for labels, (of_labeled, of_unlabeled) in zip(known, maps, strict=True)
        ]

    def mixed(self, first: Images, second: Images, step: Step) -> tuple[Images, list[Tensor]]:
        """Two unlabelled images in one, and the labels that each student gives to its pixels, (b, H, W).

        The labels are those of the plain images, predicted in training mode like everything in CPS; padding is ignored.
        """
        images, height, width = first.mask.shape
        boxes = toggled_boxes(processes.size() * images, height, width, step.generator)
        inside = onto(boxes[self.whole_batch.own(images)], first.image.device)
        mixed = first._replace(
            image=paste(inside, second.image, first.image),
            mask=paste(inside, second.mask, first.mask),
            valid=paste(inside, second.valid, first.valid),
        )
        labels = []
        for network in self.students:
            logits = self.forward_without_gradient(network, first.image, second.image, step=step).logits
            at_once = 2 * self.recipe.micro_batch or len(logits)
            predicted = [upsample(some, (height, width)).argmax(dim=1) for some in logits.split(at_once)]
            on_first, on_second = torch.cat(predicted).chunk(2)
            label = paste(inside, on_second, on_first)
            labels.append(label.where(mixed.valid, self.classes.ignore_index))
        return mixed, labels
