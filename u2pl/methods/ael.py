"""AEL: a student and its moving average, and more of everything for the classes of which the student is least sure.

Hu et al., *Semi-Supervised Semantic Segmentation via Adaptive Equalization Learning*, NeurIPS 2021. A bank of the
student's confidence in each class steers what is pasted into labelled images, which unlabelled images are mixed and
where, and how much each pixel counts.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from u2pl import processes
from u2pl.batches.loader import Batch, Choice, Images, Stream
from u2pl.batches.mixing import class_region, of_classes, proportional_box
from u2pl.errors import UsageError
from u2pl.losses import equalization
from u2pl.methods.base import Classes, Part, Step, StepResult, method, onto
from u2pl.methods.teaching import Pseudo, Scene, StudentTeacher
from u2pl.models import dropout
from u2pl.models.deeplab import upsample
from u2pl.settings import Recipe, Settings
from u2pl.settings.hyper import AELSettings

_NOWHERE = 255
"""Instead of a class, in bytes, where a prediction is of padding."""


@dataclass(frozen=True)
class Taught:
    """What the student is to learn about some images of this process, beside the true labels."""

    target: Tensor
    """(b, H, W) int64, the ignore index where there is no pseudo-label."""
    confidence: Tensor
    """(b, H, W): the teacher's probability of its label."""
    valid: Tensor
    """(b, H, W) bool."""

    def part(self, images: slice) -> "Taught":
        """Of some of the images."""
        return Taught(self.target[images], self.confidence[images], self.valid[images])


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

    def sees_mixed(self, step: Step) -> bool:
        """Not where the passes that give labels move the statistics already."""
        return super().sees_mixed(step) and self.settings.label_mode == "eval"

    @classmethod
    def check(cls, classes: Classes, recipe: Recipe, settings: Any) -> None:
        """Refuse classes that there are not, and sums over a batch that is taken in parts."""
        super().check(classes, recipe, settings)
        wrong = [c for c in settings.paste_except if not 0 <= c < classes.count]
        if wrong:
            raise UsageError(
                f"paste_except names class {wrong[0]}, and there are {classes.count} classes, counted from 0. "
                "Use: --set paste_except=[]"
            )
        if settings.copy_paste and not any(pastable(classes, settings)):
            raise UsageError("paste_except leaves no class to paste. Use: --set copy_paste=false")
        if settings.weights_sum == "batch" and recipe.micro_batch:
            raise UsageError(
                "With weights_sum=batch the weights of all pixels must be known before any counts, but "
                f"micro_batch={recipe.micro_batch} takes them in parts. Use: --set weights_sum=image"
            )

    @property
    def whole(self) -> bool:
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

    def taught_parts(self, batch: Batch, step: Step) -> Iterator[StepResult]:
        """L_s, the consistency loss, and what a method built on this one adds."""
        s, ignore = self.settings, self.classes.ignore_index
        scene, taught, health = self.scene(batch, step)
        more = self.more(scene, step)
        labeled, mixed = scene.batch.labeled, scene.pseudo.image
        images = len(mixed)
        count_G = self.count_labeled(labeled.mask)
        rate_C = equalization.keep_rate(self.confidence_C, s.beta)
        rate_C = rate_C if s.equalization else torch.ones_like(rate_C)
        draw_HW = onto(torch.rand(labeled.mask.shape[1:], generator=step.generator), mixed.device)
        weigh = partial(
            equalization.weights, rate_C=rate_C, draw_HW=draw_HW, gamma=s.gamma if s.reweighting else 0.0
        )
        measured, tallies = self.measured(scene.target, scene.pseudo)
        health |= measured
        kept = dropout.draw(self.student, 2 * processes.size() * images, step.generator)
        seen: list[tuple[Tensor, Tensor]] = []
        for part in self.cut(images, self.recipe.micro_batch):
            student = self.see(
                self.student, kept, part, labeled.image, mixed, represent=self.has_representation
            )
            logits = upsample(student.logits, labeled.mask.shape[1:]).chunk(2)
            mask = labeled.mask[part.mine]
            seen.append(equalization.true_class_probability(logits[0].detach(), mask, ignore))
            consistency = [
                self.consistency(on_images, known.part(part.mine), part, weigh)
                for on_images, known in zip(logits, taught, strict=True)
                if known is not None
            ]
            losses = {
                "supervised": self.mean_loss(logits[0], mask, count_G, part, ignore),
                "unsupervised": s.alpha_w * torch.stack(consistency).sum(),
            }
            yield StepResult(
                losses | more.losses(student, part), health | more.health, tallies | more.tallies
            )
        self.learned(*(processes.gather(torch.cat(parts)) for parts in zip(*seen, strict=True)))

    @torch.no_grad()
    def learned(self, total_BC: Tensor, count_BC: Tensor) -> None:
        """Update the confidence bank by what the student said of the labelled images of all processes."""
        s = self.settings
        self.confidence_C = equalization.update(
            self.confidence_C,
            total_BC,
            count_BC,
            momentum=s.confidence_momentum,
            mean=s.confidence_mean,
            absent=s.absent_class,
        )

    def consistency(self, logits: Tensor, taught: Taught, part: Part, weigh: "partial[Tensor]") -> Tensor:
        """A part's share of the mean over images, or over the groups of the batch, of their weighted losses."""
        s, ignore = self.settings, self.classes.ignore_index
        weight = weigh(taught.confidence, logits.detach().argmax(dim=1), taught.valid)
        loss_B = equalization.weighted_cross_entropy(logits, taught.target, weight, ignore)
        sum_B = weight.sum(dim=(1, 2))
        least = torch.finfo(sum_B.dtype).tiny
        if s.weights_sum == "image":
            return (loss_B / sum_B.clamp(min=least)).sum() / part.of
        groups = self.recipe.replicas
        sum_G = self.over_batch(sum_B).clamp(min=least)
        sum_B = sum_G.repeat_interleave(part.of // groups)[part.first : part.first + part.images]
        return (loss_B / sum_B).sum() / groups

    @torch.no_grad()
    def scene(
        self, batch: Batch, step: Step
    ) -> tuple[Scene, tuple[Taught | None, Taught], dict[str, Tensor | float]]:
        """What the student sees; what it is to learn of the labelled and of the mixed images; health."""
        s, ignore = self.settings, self.classes.ignore_index
        if s.copy_paste:
            batch = batch._replace(labeled=self.pasted(batch, step))
        first, second = batch.unlabeled, batch.extra["partner"]
        assert first is not None
        size = first.mask.shape[1:]
        guess = self.look(first.image, second.image, step=step, represent=False, mode=s.label_mode)
        predicted = self.said(guess.logits, size)
        boxes, adapted = self.regions(predicted.label, first, second, step)
        inside = onto(boxes, first.image.device)

        def mix(maps: Tensor) -> Tensor:
            on_first, on_second = maps.chunk(2)
            return on_second.where(inside if maps.dim() == 3 else inside[:, None], on_first)

        image, truth, valid = (mix(torch.cat(pair)) for pair in zip(first[:3], second[:3], strict=True))
        label, entropy, confidence = map(mix, predicted)
        pseudo = Pseudo(image, label.where(valid, ignore), entropy, valid, truth).everywhere()
        target = pseudo.label.where(processes.gather(confidence) >= s.threshold, ignore)
        nothing = torch.full((len(target), 1, 1), torch.inf, device=target.device)
        teacher = self.look(batch.labeled.image, image, step=step) if self.sees_mixed(step) else None
        scene = self.filtered(Scene(batch, pseudo, target, 0.0, nothing, pseudo.valid, teacher), step)
        of_labeled = None
        if s.labeled_consistency:
            view = teacher or self.look(batch.labeled.image, step=step, represent=False)
            said = self.said(view.logits[: len(image)], size)
            wanted = (said.confidence >= s.threshold) & batch.labeled.valid
            of_labeled = Taught(said.label.where(wanted, ignore), said.confidence, batch.labeled.valid)
        health: dict[str, Tensor | float] = {
            "cutmix/adapted": adapted,
            "confidence/least": self.confidence_C.min(),
            "confidence/most": self.confidence_C.max(),
        }
        mixed = Taught(scene.target[self.mine(len(image))], confidence, valid)
        return scene, (of_labeled, mixed), health

    def filtered(self, scene: Scene, step: Step) -> Scene:
        """AEL calls no pixel unreliable."""
        return scene

    def pasted(self, batch: Batch, step: Step) -> Images:
        """The labelled images with pixels of drawn classes from others, and their labels."""
        s, labeled, other = self.settings, batch.labeled, batch.extra["paste"]
        among_C = torch.tensor(pastable(self.classes, s))
        share_C = equalization.sampling(self.chooser.confidence_C, s.paste_power, among_C)
        images = len(labeled.image)
        shape = processes.size() * images, s.paste_classes
        drawn = share_C.multinomial(shape[0] * shape[1], replacement=True, generator=step.generator)
        class_BN = onto(drawn.view(shape)[self.mine(images)], labeled.mask.device)
        there = of_classes(other.mask, class_BN) & other.valid
        return labeled._replace(
            image=other.image.where(there[:, None], labeled.image),
            mask=other.mask.where(there, labeled.mask),
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
        draws = torch.rand(processes.size() * images, 4, generator=step.generator)[self.mine(images)]
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
