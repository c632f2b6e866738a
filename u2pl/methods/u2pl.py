"""U²PL: CutMix, and a contrastive loss with unreliable pixels as negatives (Sec. 3.3, Algorithm 1)."""

import logging
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from u2pl.errors import UsageError
from u2pl.losses import contrastive
from u2pl.losses.memory_bank import MemoryBank
from u2pl.methods.base import Classes, Step, StepResult, method
from u2pl.methods.cutmix import CutMix, CutMixSettings
from u2pl.methods.mt import MeanTeacherSettings, Scene
from u2pl.settings import Recipe, Settings

_log = logging.getLogger(__name__)


class U2PLSettings(CutMixSettings):
    """Hyper-parameters of U²PL (Table A1), components of Table 6, and choices of the released code."""

    lambda_c: float = Field(ge=0)
    """Weight of the contrastive loss (Eq. 1); 0 leaves CutMix, and nothing of what follows matters."""
    contrast: Literal["L_c", "L_b"]
    """InfoNCE (Eq. 4) or the binary loss (Eq. A1)."""
    M: int = Field(ge=1)
    """Anchors of a class."""
    N: int = Field(ge=1)
    """Negatives of an anchor."""
    tau: float = Field(gt=0)
    """Temperature (Eq. 4)."""
    delta_p: float = Field(ge=0, lt=1)
    """Teacher probability of its class that an anchor must exceed (Eqs. 9, 10)."""
    r_l: int = Field(ge=0)
    """Low rank threshold (Eqs. 14, 15)."""
    r_h: int = Field(ge=1)
    """High rank threshold (Eq. 15)."""
    prt: bool
    """Probability rank threshold; without it r_l is 1 and r_h the number of classes (Table 6)."""
    negatives: Literal["unreliable", "reliable", "all"]
    """Unlabelled pixels that become negatives (Table 4): the alpha_t of highest entropy, of lowest, or all."""
    memory_bank: bool
    """Q_c; without it negatives are drawn from the pixels of the step (Table 6)."""
    queue: int = Field(ge=1)
    """Negatives kept of a class. Memory: queue x representation x 4 bytes x classes."""
    queue_background: int = Field(ge=1)
    """The same for the class that `large_queue` names."""
    large_queue: Literal["background", "class0"]
    """Which class `queue_background` is for: class 0 where it is a background, or whatever it is."""
    pairing: Literal["class", "position"]
    """Whose negatives the anchors of class c meet: its own, or those of the c-th class present."""
    labeled_negatives: bool
    """Whether labelled images give negatives (Eq. 14)."""
    negative_label: Literal["any", "same"]
    """Which unlabelled pixels may be negatives of c: all that Eq. 15 names, or of those the ones pseudo-labelled c."""
    at_threshold: bool
    """Whether a pixel whose entropy is exactly the threshold is a negative."""
    anchors: Literal["reliable", "lowest"]
    """Unlabelled pixels that may be anchors: all reliable ones (Eq. 10), or the alpha_t of lowest entropy."""
    center: Literal["anchors", "pixels"]
    """Whose mean is the positive: of a class's anchors (Eq. 12), or also of those pixels that delta_p leaves out."""
    normalizer: Literal["all", "present"]
    """Classes that the sum of Eq. 4 is divided by; with `present` a single class gives 0."""
    label_points: Literal["aligned", "floor"]
    """Which pixel's label and entropy a point of the heads takes: the one where it lies, or a neighbour up and left."""


@method("u2pl")
class U2PL(CutMix):
    """L_s + lambda_u L_u + lambda_c L_c (Eq. 1)."""

    settings_class: ClassVar[type[Settings]] = U2PLSettings
    settings: U2PLSettings
    has_representation = True

    def __init__(self, classes: Classes, recipe: Recipe, settings: U2PLSettings):
        super().__init__(classes, recipe, settings)
        capacities = [settings.queue] * classes.count
        if classes.background or settings.large_queue == "class0":
            capacities[0] = settings.queue_background
        used = settings.memory_bank and settings.lambda_c > 0
        self.bank = MemoryBank(capacities, recipe.representation) if used else None
        for sentence in concerns(settings):
            _log.warning(sentence)

    @classmethod
    def check(cls, classes: Classes, recipe: Recipe, settings: MeanTeacherSettings) -> None:
        """Refuse ranks that leave no unlabelled negatives."""
        super().check(classes, recipe, settings)
        assert isinstance(settings, U2PLSettings)
        ranked = settings.prt and settings.lambda_c > 0
        if ranked and (settings.r_l >= classes.count or settings.r_h <= settings.r_l):
            raise UsageError(
                f"With {classes.count} classes, r_l = {settings.r_l} and r_h = {settings.r_h} no unreliable pixel "
                f"can be a negative (Eq. 15). Use: --set u2pl.r_l=1 --set u2pl.r_h={max(classes.count, 2)}"
            )

    @property
    def sees_mixed(self) -> bool:
        """The contrastive loss needs the teacher's representations of what the student sees."""
        return super().sees_mixed or self.settings.lambda_c > 0

    def more(self, scene: Scene, step: Step) -> StepResult:
        """lambda_c L_c: Algorithm 1 over the whole batch at once.

        Anchors are the student's representations and carry the gradient; centres and negatives are the teacher's.
        """
        s, groups, ignore = self.settings, self.recipe.replicas, self.classes.ignore_index
        if s.lambda_c == 0:
            return StepResult({})
        student, teacher = scene.student.representation, scene.teacher
        assert student is not None and teacher is not None and teacher.representation is not None
        generator = device_generator(step.generator, student.device)
        size = student.shape[2:]
        pick = aligned if s.label_points == "aligned" else floored

        def pixels(on_labeled: Tensor, on_unlabeled: Tensor) -> Tensor:
            maps = torch.cat([pick(on_labeled, size), pick(on_unlabeled, size)])
            return by_group(maps, groups).flatten()

        with torch.no_grad():
            mask, pseudo = scene.batch.labeled_mask, scene.pseudo
            nowhere = torch.zeros_like(mask, dtype=torch.bool)
            labeled_P = pixels(~nowhere, nowhere)
            region_CP = contrastive.label_mask(pixels(mask, self.anchor_labels(scene)), self.classes.count)
            prob_CP = by_group(teacher.logits, groups).softmax(dim=1).transpose(0, 1).flatten(1)
            anchor_CP = region_CP & (prob_CP > s.delta_p)

            rank_CP = contrastive.ranks(prob_CP)
            r_l, r_h = (s.r_l, s.r_h) if s.prt else (1, self.classes.count)
            on_labeled_CP = contrastive.labeled_negative_mask(pixels(mask, mask), rank_CP, r_l)
            chosen_P = pixels(nowhere, self.chosen(scene))
            on_unlabeled_CP = contrastive.unlabeled_negative_mask(chosen_P, rank_CP, r_l, r_h)
            if s.negative_label == "same":
                on_unlabeled_CP &= contrastive.label_mask(pixels(mask, pseudo.label), self.classes.count)
            if not s.labeled_negatives:
                on_labeled_CP = torch.zeros_like(on_labeled_CP)
            negative_CP = torch.where(labeled_P, on_labeled_CP, on_unlabeled_CP)  # Eq. 13

            teacher_PD = rows(by_group(teacher.representation, groups))
            if self.bank is not None:
                self.bank.push(teacher_PD, negative_CP)
            truth_P = pixels(torch.full_like(mask, ignore), pseudo.truth)

        student_PD = rows(by_group(student, groups))
        parts = zip(
            region_CP.chunk(groups, dim=1),
            anchor_CP.chunk(groups, dim=1),
            negative_CP.chunk(groups, dim=1),
            teacher_PD.chunk(groups),
            student_PD.chunk(groups),
            strict=True,
        )
        losses, used = zip(*(self.contrast(*part, generator) for part in parts), strict=True)
        health: dict[str, Tensor | float] = {
            "contrast/classes": torch.stack(used).sum(dim=1).float().mean(),
            "negatives/false": false_share(negative_CP, truth_P, ignore),
        }
        if self.bank is not None:
            health["bank/filled"] = self.bank.filled_C.sum() / self.bank.capacity_C.sum()
        return StepResult({"contrastive": s.lambda_c * torch.stack(losses).mean()}, health)

    def contrast(
        self,
        region_CP: Tensor,
        anchor_CP: Tensor,
        negative_CP: Tensor,
        teacher_PD: Tensor,
        student_PD: Tensor,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor]:
        """L_c or L_b of one group's pixels, and which classes took part, (C,) bool."""
        s, classes = self.settings, self.classes.count
        with torch.no_grad():
            positive_CD, _ = contrastive.centers(
                teacher_PD, anchor_CP if s.center == "anchors" else region_CP
            )
            if self.bank is not None:
                table_KD, filled_C = self.bank.storage, self.bank.filled_C > 0
                index_CMN = self.bank.sample(s.M, s.N, generator)
            else:
                table_KD, filled_C = teacher_PD, negative_CP.any(dim=1)
                index_CMN = contrastive.sample(negative_CP, s.M * s.N, generator).unflatten(1, (s.M, s.N))
            present_C = region_CP.any(dim=1)
            use_C = anchor_CP.any(dim=1)
            if s.pairing == "position":
                met_C = present_C.int().argsort(descending=True, stable=True)
                index_CMN, filled_C = index_CMN[met_C], filled_C[met_C]
                use_C &= torch.arange(classes, device=use_C.device) < present_C.sum()
            use_C &= filled_C
            divisor: int | Tensor = classes
            if s.normalizer == "present":
                divisor = present_C.sum().clamp(min=1)
                use_C &= divisor > 1
            anchor_CM = contrastive.sample(anchor_CP, s.M, generator)
        anchor_CMD = student_PD.index_select(0, anchor_CM.flatten()).unflatten(0, (classes, s.M))
        compare = contrastive.info_nce if s.contrast == "L_c" else contrastive.binary
        loss_C = compare(anchor_CMD, positive_CD, table_KD, index_CMN, s.tau)
        return contrastive.mean_over_classes(loss_C, use_C, divisor), use_C

    def anchor_labels(self, scene: Scene) -> Tensor:
        """Pseudo-labels of the unlabelled pixels that may be anchors, (B, H, W) (Eq. 10)."""
        if self.settings.anchors == "reliable":
            return scene.target
        lowest = scene.pseudo.entropy <= self.threshold(scene.pseudo, scene.alpha)
        return scene.pseudo.label.where(lowest, self.classes.ignore_index)

    def chosen(self, scene: Scene) -> Tensor:
        """The unlabelled pixels that may become negatives, (B, H, W) bool (Eq. 15 and Table 4)."""
        s, entropy = self.settings, scene.pseudo.entropy
        if s.negatives == "all":
            return scene.pseudo.valid
        if s.negatives == "reliable":
            low = self.threshold(scene.pseudo, scene.alpha)
            return scene.pseudo.valid & (entropy <= low if s.at_threshold else entropy < low)
        high = scene.gamma_B11
        return scene.pseudo.valid & (entropy >= high if s.at_threshold else entropy > high)


def concerns(settings: U2PLSettings) -> list[str]:
    """Sentences about settings that work but leave part of the method without effect."""
    found: list[str] = []
    if settings.lambda_c == 0:
        return found
    if settings.prt and settings.r_l == 0 and settings.labeled_negatives:
        found.append("With r_l = 0 no labelled pixel is a negative (Eq. 14). Use: --set u2pl.r_l=1 or more.")
    if settings.alpha0 == 0 and settings.negatives != "all":
        found.append(
            "With alpha0 = 0 no unlabelled pixel is a negative (Eq. 15). Use: --set u2pl.alpha0=0.2, "
            "or --set u2pl.negatives=all."
        )
    return found


def rows(map_BDHW: Tensor) -> Tensor:
    """(B, D, H, W) as one row a pixel, (B H W, D)."""
    return map_BDHW.permute(0, 2, 3, 1).flatten(0, 2)


def by_group(images: Tensor, groups: int) -> Tensor:
    """Labelled images and after them as many unlabelled ones, put in order group by group."""
    if groups == 1:
        return images
    return images.unflatten(0, (2, groups, -1)).transpose(0, 1).flatten(0, 2)


def aligned(map_BHW: Tensor, size: torch.Size) -> Tensor:
    """A pixel map at the heads' resolution: the values at the points that features lie on when corners are aligned."""
    y, x = (
        torch.linspace(0, old - 1, new, device=map_BHW.device).round().long()
        for old, new in zip(map_BHW.shape[1:], size, strict=True)
    )
    return map_BHW[:, y[:, None], x]


def floored(map_BHW: Tensor, size: torch.Size) -> Tensor:
    """A pixel map at the heads' resolution as the released code makes it: row k shows pixel floor(k H / h)."""
    y, x = (
        torch.arange(new, device=map_BHW.device) * old // new
        for old, new in zip(map_BHW.shape[1:], size, strict=True)
    )
    return map_BHW[:, y[:, None], x]


def false_share(negative_CP: Tensor, truth_P: Tensor, ignore_index: int) -> Tensor:
    """Share of the negatives with a known truth that are of the very class (NaN where there is none)."""
    known = negative_CP & (truth_P != ignore_index)
    return (known & contrastive.label_mask(truth_P, len(negative_CP))).sum() / known.sum()


def device_generator(generator: torch.Generator, device: torch.device) -> torch.Generator:
    """A generator on `device` seeded from one on the CPU, so that draws there need no host round trip."""
    if device.type == generator.device.type:
        return generator
    seed = int(torch.randint(2**62, (), generator=generator))
    return torch.Generator(device).manual_seed(seed)
