"""CPS: two students that differ in their first weights alone, each taught by the other (cross pseudo supervision).

Chen et al., *Semi-Supervised Semantic Segmentation with Cross Pseudo Supervision*, CVPR 2021.
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from u2pl import processes
from u2pl.batches.loader import Batch, Images, Stream
from u2pl.batches.mixing import toggled_boxes
from u2pl.errors import UsageError
from u2pl.methods.base import Classes, Method, Step, StepResult, check_warm_start, method, onto
from u2pl.models import dropout
from u2pl.models.deeplab import DeepLabV3Plus, upsample
from u2pl.settings import Recipe, Settings
from u2pl.settings.hyper import CPSSettings


@method("cps")
class CPS(Method):
    """L_s of both students + lambda L_cps."""

    settings_class: ClassVar[type[Settings]] = CPSSettings
    settings: CPSSettings
    trained: ClassVar[int] = 2

    def __init__(self, classes: Classes, recipe: Recipe, settings: CPSSettings):
        super().__init__(classes, recipe, settings)
        self.student = DeepLabV3Plus(classes.count, recipe, representation=False)
        self.second = DeepLabV3Plus(classes.count, recipe, representation=False)
        if all(
            torch.equal(*pair)
            for pair in zip(self.student.parameters(), self.second.parameters(), strict=True)
        ):
            raise UsageError(
                f"CPS needs two students that differ, and weights={recipe.weights} makes them the same. "
                "Start from weights of a backbone, whose heads are random: --weights imagenet"
            )

    @classmethod
    def check(cls, classes: Classes, recipe: Recipe, settings: CPSSettings) -> None:
        """Refuse a warm start that never ends."""
        check_warm_start(settings.warm_start_epochs, recipe)

    def streams(self) -> Mapping[str, Stream]:
        """With CutMix, a second sequence of unlabelled images."""
        return {"partner": Stream(labeled=False)} if self.settings.cutmix else {}

    def parts(self, batch: Batch, step: Step) -> Iterator[StepResult]:
        """Each student's loss on the true labels, and on what the other one predicts."""
        s, ignore = self.settings, self.classes.ignore_index
        if step.epoch < s.warm_start_epochs:
            for network in self.students:
                yield from self.supervised_parts(network, batch, step)
            return
        unlabeled, taught = self.mixed(batch, step) if s.cutmix else (batch.unlabeled, None)
        assert unlabeled is not None
        weight = s.lambda_mixed if s.cutmix else s.lambda_plain
        labeled_G = self.count_labeled(batch.labeled.mask)
        # The pixels on which the students teach each other.
        valid = [unlabeled.valid] if s.cutmix else [batch.labeled.valid, unlabeled.valid]
        taught_G = self.count_pixels(torch.cat(valid, dim=1))
        images = len(unlabeled.image)
        keeps = [
            dropout.draw(network, 2 * processes.size() * images, step.generator) for network in self.students
        ]
        found = Agreement()
        for part in self.cut(images, self.recipe.micro_batch):
            labeled, mixed = batch.labeled.part(part.mine), unlabeled.part(part.mine)
            size = mixed.mask.shape[1:]
            logits = [
                upsample(self.see(network, kept, part, batch.labeled.image, unlabeled.image).logits, size)
                for network, kept in zip(self.students, keeps, strict=True)
            ]
            if taught is None:
                known = torch.cat([labeled.valid, mixed.valid])
                labels = [own.detach().argmax(dim=1).where(known, ignore) for own in logits]
                targets: list[tuple[Tensor | None, Tensor]] = [
                    (label[: part.images], label[part.images :]) for label in labels
                ]
            else:
                targets = [(None, label[part.mine]) for label in taught]
            supervised, cross = [], []
            for own, others in zip(logits, reversed(targets), strict=True):
                on_labeled, on_unlabeled = own.chunk(2)
                supervised.append(self.mean_loss(on_labeled, labeled.mask, labeled_G, part, ignore))
                cross += [
                    self.mean_loss(seen, target, taught_G, part, ignore)
                    for seen, target in zip((on_labeled, on_unlabeled), others, strict=True)
                    if target is not None
                ]
            found.add(targets[0][1], targets[1][1], mixed, ignore)
            losses = {"supervised": torch.stack(supervised).sum(), "cross": weight * torch.stack(cross).sum()}
            yield StepResult(losses, found.health() if part.last else {})

    @property
    def students(self) -> tuple[DeepLabV3Plus, DeepLabV3Plus]:
        """Both."""
        return self.student, self.second

    @torch.no_grad()
    def mixed(self, batch: Batch, step: Step) -> tuple[Images, list[Tensor]]:
        """Two unlabelled images in one, and the labels that each student gives to its pixels, (B, H, W).

        The labels are those of the plain images, predicted in training mode like everything in CPS; padding is ignored.
        """
        first, second = batch.unlabeled, batch.extra["partner"]
        assert first is not None
        images, height, width = first.mask.shape
        boxes = toggled_boxes(processes.size() * images, height, width, step.generator)
        inside = onto(boxes[self.mine(images)], first.image.device)
        mixed = first._replace(
            image=second.image.where(inside[:, None], first.image),
            mask=second.mask.where(inside, first.mask),
            valid=second.valid.where(inside, first.valid),
        )
        labels = []
        for network in self.students:
            logits = self.view(network, first.image, second.image, step=step).logits
            at_once = 2 * self.recipe.micro_batch or len(logits)
            predicted = [upsample(some, (height, width)).argmax(dim=1) for some in logits.split(at_once)]
            on_first, on_second = torch.cat(predicted).chunk(2)
            label = on_second.where(inside, on_first)
            labels.append(label.where(mixed.valid, self.classes.ignore_index))
        return mixed, labels

    def evaluated(self, epoch: int) -> tuple[str, DeepLabV3Plus]:
        """The first student."""
        return "student", self.student

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Both students'."""
        return [
            group
            for network in self.students
            for group in network.parameter_groups(self.recipe.lr, self.recipe.head_lr_multiplier)
        ]


class Agreement:
    """How far the students agree on unlabelled pixels, and how often the first is right, over a step."""

    def __init__(self) -> None:
        self.counts: Tensor | int = 0

    def add(self, first: Tensor, second: Tensor, images: Images, ignore_index: int) -> None:
        """Count a part's pixels, given both students' labels of them."""
        judged = images.valid & (images.mask != ignore_index)
        masks = (first == second) & images.valid, images.valid, (first == images.mask) & judged, judged
        self.counts = self.counts + torch.stack([mask.sum() for mask in masks])

    def health(self) -> dict[str, Tensor | float]:
        """Shares over all processes; NaN where nothing was counted."""
        assert isinstance(self.counts, Tensor)
        same, valid, right, judged = processes.total(self.counts)
        return {"students/agree": same / valid, "students/accuracy": right / judged}
