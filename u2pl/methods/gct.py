"""GCT: two students, and a detector of flaws that says which of them is to learn from the other (guided collaborative
training).

Ke et al., *Guided Collaborative Training for Pixel-wise Semi-Supervised Learning*, ECCV 2020.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.func import functional_call

from u2pl.batches.loader import Batch
from u2pl.losses import flaws
from u2pl.losses.ramp import sigmoid_ramp
from u2pl.methods.base import Classes, Method, Step, Targets
from u2pl.methods.registry import method
from u2pl.models.deeplab import DeepLabV3Plus, Output, upsample
from u2pl.models.flaw_detector import FlawDetector
from u2pl.settings import Recipe, Settings
from u2pl.settings.hyper import GCTSettings
from u2pl.steps.forward import Forward
from u2pl.steps.micro_batch import MicroBatch
from u2pl.steps.shares import Shares

_ADAM_BETAS = (0.9, 0.99)


@dataclass(frozen=True)
class Both:
    """Maps of this process's labelled images, and of its unlabelled ones."""

    labeled: Tensor
    unlabeled: Tensor

    @classmethod
    def of_all(cls, maps: Tensor) -> "Both":
        """From those of all images, the labelled ones first."""
        return cls(*maps.chunk(2))

    @property
    def all(self) -> Tensor:
        """The labelled images' first."""
        return torch.cat([self.labeled, self.unlabeled])

    def of(self, micro: MicroBatch) -> Tensor:
        """Those of a micro-batch, the labelled images' first."""
        return torch.cat([self.labeled[micro.own], self.unlabeled[micro.own]])


@dataclass(frozen=True)
class Lesson:
    """What a student said before the step, and where it learns; `Both`, or of a micro-batch a tensor."""

    said: Any
    """(2b, C, h, w) logits."""
    learns: Any
    """(2b, 1, H, W) bool: where the other student's prediction has the smaller flaw."""

    def of(self, micro: MicroBatch) -> "Lesson":
        """Those of a micro-batch."""
        return Lesson(self.said.of(micro), self.learns.of(micro))


@dataclass(frozen=True, kw_only=True)
class GCTTargets(Targets):
    """What is compared; maps of all images are `Both`, or of a micro-batch a tensor."""

    images: Any
    """(2b, 3, H, W), as the networks see them."""
    valid: Any
    """(2b, H, W) bool."""
    share: Tensor
    """(b,): what a valid pixel of a labelled image and of the unlabelled one beside it counts in the mean over both."""
    labeled_share: Tensor
    """(b,): what one of a labelled image counts in the detector's mean, over these alone."""
    truth: Tensor
    """(b, H, W) int64, of the unlabelled images, to measure with."""
    first: Lesson
    second: Lesson
    both_bad: Any
    """(2b, 1, H, W) bool."""
    ramp: float


@method("gct")
class GCT(Method):
    """L_s + ramp lambda_dc L_dc + lambda_fc L_fc of each student, and the detector's own loss.

    The original updates the first student, then the second, then the detector. What the second and the detector learn
    from is found before any of them moves, and each loss reaches one network alone, so the three gradients of a single
    backward pass are the same; the optimisers follow each other in that order.
    """

    settings_class: ClassVar[type[Settings]] = GCTSettings
    settings: GCTSettings
    trained: ClassVar[int] = 2

    def __init__(self, classes: Classes, recipe: Recipe, settings: GCTSettings):
        super().__init__(classes, recipe, settings)
        self.second = self.second_network()
        self.detector = FlawDetector(classes.count, fixed_statistics=recipe.batch_norm == "fixed")

    @property
    def students(self) -> tuple[DeepLabV3Plus, DeepLabV3Plus]:
        """Both."""
        return self.student, self.second

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Of the first student, of the second, and Adam for the detector."""
        recipe = self.recipe
        groups = [network.parameter_groups(recipe.lr, recipe.head_lr_multiplier) for network in self.students]
        detector = torch.optim.Adam(
            self.detector.parameters(), lr=self.settings.detector_lr, betas=_ADAM_BETAS
        )
        return [*map(self.sgd, groups), detector]

    def targets(self, batch: Batch, step: Step) -> GCTTargets:
        """What both students say, and what the detector finds wrong with it."""
        s, labeled, unlabeled = self.settings, batch.labeled, batch.unlabeled
        assert unlabeled is not None
        streams = labeled.image, unlabeled.image
        said, found = [], []
        for network in self.students:
            logits = self.forward_without_gradient(network, *streams, step=step).logits
            said.append(Both.of_all(logits))
            detected = self.forward_without_gradient(self.detector, *streams, step=step, logits=said[-1])
            found.append(flaws.handled(detected.logits))
        valid = Both(labeled.valid, unlabeled.valid)
        exchange = flaws.exchange(found[0], found[1], s.xi)
        shares = Shares()
        for name, such in exchange._asdict().items():
            shares.add(f"flaws/{name}", such[:, 0], valid.all)
        return GCTTargets(
            forwards=(
                *(Forward(network, streams, {"represent": False}) for network in self.students),
                *(Forward(self.detector, streams, {"logits": own}) for own in said),
            ),
            label=self.labels(labeled.mask),
            images=Both(*streams),
            valid=valid,
            share=self.whole_batch.shares(torch.cat([labeled.valid, unlabeled.valid], dim=1)),
            labeled_share=self.whole_batch.shares(labeled.valid),
            truth=unlabeled.mask,
            first=Lesson(said[0], Both.of_all(exchange.first_learns)),
            second=Lesson(said[1], Both.of_all(exchange.second_learns)),
            both_bad=Both.of_all(exchange.both_bad),
            ramp=sigmoid_ramp(step.index, s.ramp_epochs * step.epoch_steps),
            shares=shares,
        )

    def losses(
        self, first: Output, second: Output, first_flaws: Output, second_flaws: Output, targets: GCTTargets
    ) -> dict[str, Tensor]:
        """Of both students together, and of the detector."""
        s, size = self.settings, targets.label.size
        lessons = targets.first, targets.second
        before = [upsample(lesson.said, size).softmax(dim=1) for lesson in lessons]
        supervised, consistency, correction, detection = [], [], [], []
        for network, output, detected, lesson, own, other in zip(
            self.students,
            (first, second),
            (first_flaws, second_flaws),
            lessons,
            before,
            before[::-1],
            strict=True,
        ):
            logits = upsample(output.logits, size)
            supervised.append(self.supervised(output, targets, network))
            distance = (logits.softmax(dim=1) - other.where(lesson.learns, own)) ** 2
            consistency.append(self._mean(distance.mean(dim=1), targets))
            flaw = targets.both_bad * self._frozen(output.logits, targets)
            correction.append(self._mean((flaw**2)[:, 0], targets))
            detection.append(self._detection(detected.logits, own, targets))
        self._measure(before, targets)
        return {
            "supervised": torch.stack(supervised).sum(),
            "consistency": targets.ramp * s.lambda_dc * torch.stack(consistency).sum(),
            "correction": s.lambda_fc * torch.stack(correction).sum(),
            "detection": s.lambda_d * torch.stack(detection).mean(),
        }

    def _mean(self, value_BHW: Tensor, targets: GCTTargets) -> Tensor:
        """A micro-batch's share of the mean over the valid pixels of all images."""
        labeled, unlabeled = value_BHW.where(targets.valid, 0).sum(dim=(1, 2)).chunk(2)
        return ((labeled + unlabeled) * targets.share).sum()

    def _frozen(self, logits: Tensor, targets: GCTTargets) -> Tensor:
        """What the detector finds wrong with a prediction that is to be mended; it learns nothing from that."""
        weights = {name: parameter.detach() for name, parameter in self.detector.named_parameters()}
        return functional_call(self.detector, weights, (targets.images,), {"logits": logits}).logits

    def _detection(self, flaw: Tensor, before: Tensor, targets: GCTTargets) -> Tensor:
        """How far the detector's maps of the labelled images are from what is wrong with the predictions."""
        label = targets.label
        images = len(label.map)
        wanted = flaws.target(before[:images], label.map, label.ignore_index)
        flaw = flaw[:images]
        if self.settings.flaw_map == "clamped":
            flaw = flaw + (flaw.clamp(min=0) - flaw).detach()
        error = ((flaw - wanted) ** 2)[:, 0].where(targets.valid[:images], 0)
        return (error.sum(dim=(1, 2)) * targets.labeled_share).sum()

    def _measure(self, before: list[Tensor], targets: GCTTargets) -> None:
        images, ignore = len(targets.truth), self.classes.ignore_index
        first, second = (prob[images:].argmax(dim=1) for prob in before)
        targets.shares.add_students(first, second, targets.truth, targets.valid[images:], ignore)
