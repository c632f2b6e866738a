"""AEL: a student and its moving average, and more of everything for the classes of which the student is least sure.

Hu et al., *Semi-Supervised Semantic Segmentation via Adaptive Equalization Learning*, NeurIPS 2021. A bank of the
student's confidence in each class steers what is pasted into labelled images, which unlabelled images are mixed and
where, and how much each pixel counts.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from u2pl import processes
from u2pl.batches.loader import Batch, Choice, Images, Stream
from u2pl.batches.mixing import class_region, of_classes, paste, proportional_box
from u2pl.errors import UsageError
from u2pl.losses import equalization
from u2pl.methods.base import Classes, Step, Targets, onto
from u2pl.methods.registry import method
from u2pl.methods.student_teacher import PartitionTargets, StudentTeacher, Unlabeled
from u2pl.models.deeplab import Output
from u2pl.settings import Recipe, Settings
from u2pl.settings.hyper import AELSettings
from u2pl.steps.forward import Forward
from u2pl.steps.micro_batch import MicroBatch

_NOWHERE = 255
"""Instead of a class, in bytes, where a prediction is of padding."""


@dataclass(frozen=True)
class PseudoLabels:
    """The teacher's labels of some images of this process, and how sure it is of them."""

    label: Tensor
    """(b, H, W) int64, the ignore index where there is no pseudo-label."""
    confidence: Tensor
    """(b, H, W): the teacher's probability of its label."""
    valid: Tensor
    """(b, H, W) bool."""

    def of(self, micro: MicroBatch) -> "PseudoLabels":
        """Those of a micro-batch."""
        return PseudoLabels(self.label[micro.own], self.confidence[micro.own], self.valid[micro.own])


@dataclass(frozen=True, kw_only=True)
class AELTargets(PartitionTargets):
    """Pseudo-labels, and how the pixels that have them are weighted."""

    of_labeled: PseudoLabels | None
    """Of the labelled images, where these have a consistency loss too."""
    confidence: Tensor
    """(b, H, W): the teacher's probability of its label of the mixed ones."""
    weigh: Callable[..., Tensor] | None = None
    """Weights of pixels, given confidences, the student's likeliest classes and which pixels are valid."""
    seen: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    """Of each micro-batch so far, what the student said of the true classes of the labelled images."""


@method("ael")
class AEL(StudentTeacher):
    """L_s + alpha_w L_cons."""

    settings_class: ClassVar[type[Settings]] = AELSettings
    settings: AELSettings
    confidence_C: Tensor

    def __init__(self, classes: Classes, recipe: Recipe, settings: AELSettings):
        super().__init__(classes, recipe, settings)
        random = settings.confidence_start == "random"
        start_C = torch.rand(classes.count) if random else torch.zeros(classes.count)
        self.register_buffer("confidence_C", start_C)
        self.chooser = Chooser(start_C)

    @classmethod
    def check(cls, classes: Classes, recipe: Recipe, settings: Any) -> None:
        """Refuse classes that there are not, and sums over a batch that is taken in parts."""
        super().check(classes, recipe, settings)
        classes.check("paste_except", settings.paste_except, "[]")
        if settings.copy_paste and not any(pastable(classes, settings)):
            raise UsageError("paste_except leaves no class to paste. Use: --set copy_paste=false")
        if settings.weights_sum == "batch" and recipe.micro_batch:
            raise UsageError(
                "With weights_sum=batch the weights of all pixels must be known before any counts, but "
                f"micro_batch={recipe.micro_batch} takes them in parts. Use: --set weights_sum=image"
            )

    @property
    def takes_batch_whole(self) -> bool:
        """Where the weights of all pixels of a batch sum to 1."""
        return self.settings.weights_sum == "batch"

    def streams(self) -> Mapping[str, Stream]:
        """Labelled images to paste from, and unlabelled ones to mix with the others."""
        s = self.settings
        paste = Stream(labeled=True, scale=s.paste_scale, share=s.paste_share)
        return {
            **({"paste": paste} if s.copy_paste else {}),
            "partner": Stream(labeled=False, chosen=True),
        }

    def choose(self, images: int, rng: np.random.Generator) -> list[Choice]:
        """For each image of the batch one in which a class that it draws was seen; without adaptive CutMix any."""
        return self.chooser.choose(images, self.recipe.batch, rng, adaptive=self.settings.adaptive_cutmix)

    def targets(self, batch: Batch, step: Step) -> AELTargets:
        """The teacher's labels of mixed images, and the weights of their pixels."""
        return self.weighted(self.pseudo_labeled(batch, step), step)

    def losses(self, student: Output, targets: AELTargets) -> dict[str, Tensor]:
        """L_s and alpha_w L_cons."""
        on_labeled, on_unlabeled = self.upsampled(student, targets.label.size)
        label = targets.label
        targets.seen.append(
            equalization.true_class_probability(on_labeled.detach(), label.map, label.ignore_index)
        )
        mixed = PseudoLabels(targets.pseudo_label, targets.confidence, targets.unlabeled.valid)
        consistency = [
            self.consistency(logits, known, targets)
            for logits, known in ((on_labeled, targets.of_labeled), (on_unlabeled, mixed))
            if known is not None
        ]
        return {
            "supervised": self.supervised(student, targets),
            "unsupervised": self.settings.alpha_w * torch.stack(consistency).sum(),
        }

    def after_losses(self, targets: Targets) -> None:
        """The confidence bank learns what the student said of the labelled images of all processes."""
        super().after_losses(targets)
        if not isinstance(targets, AELTargets):
            return
        s, seen = self.settings, zip(*targets.seen, strict=True)
        total_BC, count_BC = (processes.gather(torch.cat(micro_batches)) for micro_batches in seen)
        self.confidence_C = equalization.update(
            self.confidence_C,
            total_BC,
            count_BC,
            momentum=s.confidence_momentum,
            mean=s.confidence_mean,
            absent=s.absent_class,
        )

    def consistency(self, logits: Tensor, known: PseudoLabels, targets: AELTargets) -> Tensor:
        """A micro-batch's share of the mean over images, or over groups of the batch, of their weighted losses."""
        assert targets.weigh is not None and targets.label.micro is not None
        micro = targets.label.micro
        weight = targets.weigh(known.confidence, logits.detach().argmax(dim=1), known.valid)
        loss_B = equalization.weighted_cross_entropy(logits, known.label, weight, targets.label.ignore_index)
        sum_B = weight.sum(dim=(1, 2))
        least = torch.finfo(sum_B.dtype).tiny
        if self.settings.weights_sum == "image":
            return (loss_B / sum_B.clamp(min=least)).sum() / micro.of
        groups = self.recipe.replicas
        sum_G = self.whole_batch.sum(sum_B).clamp(min=least)
        sum_B = sum_G.repeat_interleave(micro.of // groups)[micro.first : micro.first + micro.images]
        return (loss_B / sum_B).sum() / groups

    def pseudo_labeled(self, batch: Batch, step: Step) -> AELTargets:
        """What the student sees, and what it is to learn of it but for the weights."""
        s, ignore = self.settings, self.classes.ignore_index
        labeled = self.pasted(batch, step) if s.copy_paste else batch.labeled
        unlabeled, confidence, adapted = self.mixed(batch, step)
        teacher = None
        if self.teacher_sees_both(step):
            teacher = self.teacher_forward(labeled.image, unlabeled.image, step=step)
        pseudo_label = unlabeled.label.where(confidence >= s.threshold, ignore)
        images = labeled.image, unlabeled.image
        found = AELTargets(
            forwards=(Forward(self.student, images, {"represent": self.has_representation}),),
            label=self.labels(labeled.mask),
            labeled=labeled,
            unlabeled=unlabeled,
            pseudo_label=pseudo_label,
            alpha_t=0.0,
            gamma_t=torch.full((len(pseudo_label), 1, 1), torch.inf, device=pseudo_label.device),
            usable=unlabeled.valid,
            teacher=teacher,
            of_labeled=None,
            confidence=confidence,
            diagnostics={
                "cutmix/adapted": adapted,
                "confidence/least": self.confidence_C.min(),
                "confidence/most": self.confidence_C.max(),
            },
        )
        found = self.filtered(found, step)
        if s.labeled_consistency:
            output = teacher or self.teacher_forward(labeled.image, step=step, represent=False)
            label, _, sure = self.predictions(output.logits[: len(labeled.image)], labeled.mask.shape[1:])
            wanted = (sure >= s.threshold) & labeled.valid
            found = replace(found, of_labeled=PseudoLabels(label.where(wanted, ignore), sure, labeled.valid))
        found.diagnostics.update(self.diagnose(found.pseudo_label, unlabeled))
        found.class_counts.update(self.count_reliable(found.pseudo_label, unlabeled))
        return found

    def teacher_sees_both(self, step: Step) -> bool:
        """Not where the forwards that give labels move the statistics already."""
        return super().teacher_sees_both(step) and self.settings.label_mode == "eval"

    def filtered(self, targets: AELTargets, step: Step) -> AELTargets:
        """AEL calls no pixel unreliable."""
        return targets

    def weighted(self, targets: AELTargets, step: Step) -> AELTargets:
        """With the weights of pixels: fewer pixels of well learned classes count, and each as the teacher is sure."""
        s, mask = self.settings, targets.label.map
        rate_C = equalization.keep_rate(self.confidence_C, s.beta)
        rate_C = rate_C if s.equalization else torch.ones_like(rate_C)
        draw_HW = onto(torch.rand(mask.shape[1:], generator=step.generator), mask.device)
        gamma = s.gamma if s.reweighting else 0.0
        return replace(
            targets, weigh=partial(equalization.weights, rate_C=rate_C, draw_HW=draw_HW, gamma=gamma)
        )

    def mixed(self, batch: Batch, step: Step) -> tuple[Unlabeled, Tensor, Tensor]:
        """Unlabelled images with regions of others, the teacher's confidence in its labels of them (b, H, W), and the
        share of regions that follow a class.
        """
        first, second, ignore = batch.unlabeled, batch.extra["partner"], self.classes.ignore_index
        assert first is not None
        output = self.teacher_forward(
            first.image, second.image, step=step, represent=False, mode=self.settings.label_mode
        )
        predicted = self.predictions(output.logits, first.mask.shape[1:])
        boxes, adapted = self.regions(predicted.label, first, second, step)
        inside = onto(boxes, first.image.device)

        def mix(maps: Tensor) -> Tensor:
            on_first, on_second = maps.chunk(2)
            return paste(inside, on_second, on_first)

        image, truth, valid = (mix(torch.cat(pair)) for pair in zip(first[:3], second[:3], strict=True))
        label, entropy, confidence = map(mix, predicted)
        return Unlabeled(image, label.where(valid, ignore), entropy, valid, truth), confidence, adapted

    def pasted(self, batch: Batch, step: Step) -> Images:
        """The labelled images with pixels of drawn classes from others, and their labels."""
        s, labeled, other = self.settings, batch.labeled, batch.extra["paste"]
        among_C = torch.tensor(pastable(self.classes, s))
        share_C = equalization.sampling(self.chooser.confidence_C, s.paste_power, among_C)
        images = len(labeled.image)
        shape = processes.size() * images, s.paste_classes
        drawn = share_C.multinomial(shape[0] * shape[1], replacement=True, generator=step.generator)
        class_BN = onto(drawn.view(shape)[self.whole_batch.own(images)], labeled.mask.device)
        there = of_classes(other.mask, class_BN) & other.valid
        return labeled._replace(
            image=paste(there, other.image, labeled.image),
            mask=paste(there, other.mask, labeled.mask),
            valid=labeled.valid | there,
        )

    def regions(self, label: Tensor, first: Images, second: Images, step: Step) -> tuple[Tensor, Tensor]:
        """What is cut out of each image's partner, (b, H, W) bool on the CPU, and the share of boxes around a class.

        The box is that of a piece of the class that the partner was chosen by; where there is none, it is random and
        has half the area. What each image shows is noted for the choices to come.

        Args:
            label: the teacher's of the images, then of their partners, (2b, H, W).
            first: the images.
            second: their partners.
            step: where training stands.
        """
        s, (height, width) = self.settings, label.shape[1:]
        area, images, count = height * width, len(first.image), self.classes.count
        shown = label.where(torch.cat([first.valid, second.valid]), _NOWHERE).to(torch.uint8)
        covers = (
            torch.stack([(shown == c).sum(dim=(1, 2)) for c in range(count)], dim=1) >= s.cover_area * area
        )
        partners = shown[images:].cpu().numpy()  # waits for the device
        draws = torch.rand(processes.size() * images, 4, generator=step.generator)[
            self.whole_batch.own(images)
        ]
        inside, adapted = torch.zeros(images, height, width, dtype=torch.bool), 0
        for k, (pick, aspect, *place) in enumerate(draws.tolist()):
            box = None
            if s.adaptive_cutmix:
                box = class_region(partners[k], int(second.note[k]), s.region_area * area, pick)
            adapted += box is not None
            inside[k][box or proportional_box(0.5, height, width, aspect, place)] = True
        for numbers, cover in zip((first.number, second.number), covers.cpu().chunk(2), strict=True):
            self.chooser.note(processes.gather(numbers), processes.gather(cover))
        self.chooser.confidence_C = self.confidence_C.to("cpu", copy=True)
        return inside, processes.total(torch.tensor(adapted)) / len(draws) / processes.size()


class Chooser(nn.Module):
    """Names unlabelled images by classes; a module, so that checkpoints carry it.

    It stays on the CPU, so that a choice need not wait for the device: its confidences are those of the step before.
    """

    confidence_C: Tensor
    covered_CN: Tensor
    """bool; whether a class covered enough of an image when the teacher last saw it. Grows as images come."""

    def __init__(self, confidence_C: Tensor):
        super().__init__()
        self.register_buffer("confidence_C", confidence_C.clone())
        self.register_buffer("covered_CN", torch.zeros(len(confidence_C), 0, dtype=torch.bool))

    def choose(self, images: int, count: int, rng: np.random.Generator, *, adaptive: bool) -> list[Choice]:
        """As many as `count`, of so many images: one that a drawn class covers, or any where it covers none."""
        share_C = equalization.sampling(self.confidence_C.double()).numpy()
        choices = []
        for _ in range(count):
            wanted = int(rng.choice(len(share_C), p=share_C))
            having = self.covered_CN[wanted].nonzero()[:, 0].numpy() if adaptive else ()
            number = rng.choice(having) if len(having) else rng.integers(images)
            choices.append(Choice(int(number), wanted))
        return choices

    def note(self, number_B: Tensor, cover_BC: Tensor) -> None:
        """Remember which classes cover enough of some images."""
        missing = int(number_B.max()) + 1 - self.covered_CN.shape[1]
        if missing > 0:
            self.covered_CN = pad(self.covered_CN, (0, missing))
        # One by one: of an image that comes twice the later view counts.
        for number, cover_C in zip(number_B.tolist(), cover_BC, strict=True):
            self.covered_CN[:, number] = cover_C

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        return self

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *arguments: Any) -> None:
        self.covered_CN = torch.zeros_like(state_dict[prefix + "covered_CN"], device="cpu")
        super()._load_from_state_dict(state_dict, prefix, *arguments)


def pastable(classes: Classes, settings: AELSettings) -> list[bool]:
    """Of each class whether it may be pasted."""
    never = {*settings.paste_except, *([0] if classes.background else [])}
    return [c not in never for c in range(classes.count)]
