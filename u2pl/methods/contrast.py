"""The contrastive loss with unreliable pixels as negatives (Sec. 3.3, Algorithm 1), for any method with a teacher."""

import logging
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from u2pl import processes
from u2pl.errors import UsageError
from u2pl.losses import contrastive
from u2pl.losses.memory_bank import MemoryBank
from u2pl.methods.base import Classes, Part, Step
from u2pl.methods.pixels import Pixels
from u2pl.methods.teaching import More, Scene, StudentTeacher
from u2pl.models.deeplab import Output
from u2pl.settings import Recipe
from u2pl.settings.hyper import ContrastSettings

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """The sets of Eqs. 9 to 16 among the P pixels of this process, and what the teacher says of these."""

    pixels: Pixels
    teacher_PD: Tensor
    region_CP: Tensor
    """Anchors but for the condition on delta_p."""
    anchor_CP: Tensor
    negative_CP: Tensor
    truth_P: Tensor


@dataclass(frozen=True)
class Draw:
    """What the loss of one group compares: drawn for all processes alike, before the student looks."""

    anchor_CM: Tensor
    """Pixels of the group."""
    positive_CD: Tensor
    table_KD: Tensor
    index_CMN: Tensor
    """Rows of the table."""
    use_C: Tensor
    """Classes that add to the loss."""
    divisor: int | Tensor


class Contrast(StudentTeacher):
    """Adds lambda_c L_c to the losses of the method that comes after it among the bases of a class.

    Such a class has settings that are `ContrastSettings` too.
    """

    settings: Any
    has_representation = True

    def __init__(self, classes: Classes, recipe: Recipe, settings: Any):
        super().__init__(classes, recipe, settings)
        capacities = [settings.queue] * classes.count
        if classes.background or settings.large_queue == "class0":
            capacities[0] = settings.queue_background
        used = settings.memory_bank and settings.lambda_c > 0
        self.bank = MemoryBank(capacities, recipe.representation) if used else None
        for sentence in concerns(settings):
            _log.warning(sentence)

    @classmethod
    def check(cls, classes: Classes, recipe: Recipe, settings: Any) -> None:
        """Refuse ranks that leave no unlabelled negatives."""
        super().check(classes, recipe, settings)
        ranked = settings.prt and settings.lambda_c > 0
        if ranked and (settings.r_l >= classes.count or settings.r_h <= settings.r_l):
            raise UsageError(
                f"With {classes.count} classes, r_l = {settings.r_l} and r_h = {settings.r_h} no unreliable pixel "
                f"can be a negative (Eq. 15). Use: --set r_l=1 --set r_h={max(classes.count, 2)}"
            )

    def contrasts(self, step: Step) -> bool:
        """Whether a step has the loss."""
        return self.settings.lambda_c > 0

    def sees_mixed(self, step: Step) -> bool:
        """The contrastive loss needs the teacher's representations of what the student sees."""
        return super().sees_mixed(step) or self.contrasts(step)

    @torch.no_grad()
    def more(self, scene: Scene, step: Step) -> More:
        """lambda_c L_c: Algorithm 1 over the whole batch at once.

        Anchors are the student's representations and carry the gradient; centres and negatives are the teacher's.
        """
        s: ContrastSettings = self.settings
        if not self.contrasts(step):
            return More()
        found = self.find(scene)
        pixels, teacher_PD = found.pixels, found.teacher_PD
        generator = device_generator(step.generator, teacher_PD.device)
        table_KD, negative_CK, place_K = pixels.all_rows(teacher_PD, found.negative_CP)
        if self.bank is not None:
            self.bank.push(table_KD, negative_CK)
        centered_CP = found.anchor_CP if s.center == "anchors" else found.region_CP
        draws = []
        for group, anchor_CP in enumerate(pixels.all_masks(found.anchor_CP).chunk(pixels.groups, dim=1)):
            positive_CD, _ = contrastive.centers(
                pixels.own(group, teacher_PD, 0), pixels.own(group, centered_CP, 1), processes.total
            )
            present_C = processes.total(pixels.own(group, found.region_CP, 1).sum(dim=1)) > 0
            if self.bank is not None:
                negatives = self.bank.storage, self.bank.sample(s.M, s.N, generator), self.bank.filled_C > 0
            else:
                own = slice(None) if pixels.groups == 1 else pixels.of_group(group, place_K)
                rows_KD, mask_CK = table_KD[own], negative_CK[:, own]
                if len(rows_KD) == 0:  # of several processes, none has a negative: a row that is nobody's
                    rows_KD, mask_CK = teacher_PD[:1], torch.zeros_like(found.negative_CP[:, :1])
                drawn = contrastive.sample(mask_CK, s.M * s.N, generator).unflatten(1, (s.M, s.N))
                negatives = rows_KD, drawn, mask_CK.any(dim=1)
            draws.append(self.draw(anchor_CP, present_C, positive_CD, negatives, generator))
        false_2C = processes.total(
            false_negatives(found.negative_CP, found.truth_P, self.classes.ignore_index)
        )
        false, known = false_2C.sum(dim=1)
        health: dict[str, Tensor | float] = {
            "contrast/classes": torch.stack([draw.use_C for draw in draws]).sum(dim=1).float().mean(),
            "negatives/false": false / known,
        }
        if self.bank is not None:
            health["bank/filled"] = self.bank.filled_C.sum() / self.bank.capacity_C.sum()
        tallies = {"negatives/false": false_2C} if self.recipe.unlabeled_truth else {}
        return More(partial(self.contrast, draws, pixels), health, tallies)

    def find(self, scene: Scene) -> "Found":
        """The sets of Eqs. 9 to 16 among this process's pixels, at the heads' resolution."""
        s, teacher, pseudo = self.settings, scene.teacher, scene.pseudo
        assert teacher is not None and teacher.representation is not None
        mask, size = scene.batch.labeled.mask, teacher.logits.shape[2:]
        pick = aligned if s.label_points == "aligned" else floored
        first = processes.rank() * len(mask)

        def points(on_labeled: Tensor, of_all_unlabeled: Tensor) -> Tensor:
            own = of_all_unlabeled[first : first + len(mask)]
            return torch.cat([pick(on_labeled, size), pick(own, size)]).flatten()

        nowhere = torch.zeros_like(pseudo.valid)
        prob_CP = teacher.logits.softmax(dim=1).transpose(0, 1).flatten(1)
        region_CP = contrastive.label_mask(points(mask, self.anchor_labels(scene)), self.classes.count)

        rank_CP = contrastive.ranks(prob_CP)
        r_l, r_h = (s.r_l, s.r_h) if s.prt else (1, self.classes.count)
        on_labeled_CP = contrastive.labeled_negative_mask(points(mask, pseudo.label), rank_CP, r_l)
        chosen_P = points(torch.zeros_like(mask, dtype=torch.bool), self.chosen(scene))
        on_unlabeled_CP = contrastive.unlabeled_negative_mask(chosen_P, rank_CP, r_l, r_h)
        if s.negative_label == "same":
            on_unlabeled_CP &= contrastive.label_mask(points(mask, pseudo.label), self.classes.count)
        if not s.labeled_negatives:
            on_labeled_CP = torch.zeros_like(on_labeled_CP)
        labeled_P = points(torch.ones_like(mask, dtype=torch.bool), nowhere)
        return Found(
            Pixels(len(mask), self.recipe.replicas, size.numel()),
            rows(teacher.representation),
            region_CP,
            region_CP & (prob_CP > s.delta_p),
            torch.where(labeled_P, on_labeled_CP, on_unlabeled_CP),  # Eq. 13
            points(torch.full_like(mask, self.classes.ignore_index), pseudo.truth),
        )

    def draw(
        self,
        anchor_CP: Tensor,
        present_C: Tensor,
        positive_CD: Tensor,
        negatives: tuple[Tensor, Tensor, Tensor],
        generator: torch.Generator,
    ) -> "Draw":
        """What the loss of one group compares.

        Args:
            anchor_CP: candidate anchors among the group's pixels.
            present_C: bool; the classes in it.
            positive_CD: their centres.
            negatives: table (K, D), rows of it (C, M, N), and which classes have any (C,).
            generator: of the anchors.
        """
        s, classes = self.settings, self.classes.count
        table_KD, index_CMN, filled_C = negatives
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
        return Draw(anchor_CM, positive_CD, table_KD, index_CMN, use_C, divisor)

    def contrast(self, draws: "list[Draw]", pixels: Pixels, student: Output, part: Part) -> dict[str, Tensor]:
        """L_c or L_b, as far as its anchors lie in a part."""
        s: ContrastSettings = self.settings
        assert student.representation is not None
        student_PD = rows(student.representation)
        compare = contrastive.info_nce if s.contrast == "L_c" else contrastive.binary
        losses = []
        for group, draw in enumerate(draws):
            row_CM, here_CM = pixels.rows(group, draw.anchor_CM, part)
            anchor_CMD = student_PD.index_select(0, row_CM.flatten()).unflatten(0, row_CM.shape)
            loss_C = compare(anchor_CMD, draw.positive_CD, draw.table_KD, draw.index_CMN, s.tau, here_CM)
            losses.append(contrastive.mean_over_classes(loss_C, draw.use_C, draw.divisor))
        return {"contrastive": s.lambda_c * torch.stack(losses).mean()}

    def anchor_labels(self, scene: Scene) -> Tensor:
        """Pseudo-labels of the unlabelled pixels that may be anchors, (B, H, W) (Eq. 10)."""
        ignore, entropy = self.classes.ignore_index, scene.pseudo.entropy
        if self.settings.anchors == "reliable":
            # A target need not be below this threshold: a method may filter its labels by another one.
            return scene.target.where(entropy < scene.gamma_B11, ignore)
        lowest = entropy <= self.threshold(scene.pseudo, scene.alpha)
        return scene.pseudo.label.where(lowest & scene.usable, ignore)

    def chosen(self, scene: Scene) -> Tensor:
        """The unlabelled pixels that may become negatives, (B, H, W) bool (Eq. 15 and Table 4)."""
        s, entropy = self.settings, scene.pseudo.entropy
        if s.negatives == "all":
            return scene.usable
        if s.negatives == "reliable":
            low = self.threshold(scene.pseudo, scene.alpha)
            return scene.usable & (entropy <= low if s.at_threshold else entropy < low)
        high = scene.gamma_B11
        return scene.usable & (entropy >= high if s.at_threshold else entropy > high)


def concerns(settings: ContrastSettings) -> list[str]:
    """Sentences about settings that work but leave part of the method without effect."""
    found: list[str] = []
    if settings.lambda_c == 0:
        return found
    if settings.prt and settings.r_l == 0 and settings.labeled_negatives:
        found.append("With r_l = 0 no labelled pixel is a negative (Eq. 14). Use: --set r_l=1 or more.")
    if settings.alpha0 == 0 and settings.negatives != "all":
        found.append(
            "With alpha0 = 0 no unlabelled pixel is a negative (Eq. 15). Use: --set alpha0=0.2, "
            "or --set negatives=all."
        )
    return found


def rows(map_BDHW: Tensor) -> Tensor:
    """(B, D, H, W) as one row a pixel, (B H W, D)."""
    return map_BDHW.permute(0, 2, 3, 1).flatten(0, 2)


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


def false_negatives(negative_CP: Tensor, truth_P: Tensor, ignore_index: int) -> Tensor:
    """Of each class's negatives, how many are of that very class, and of how many the class is known, (2, C) int64."""
    known_CP = negative_CP & (truth_P != ignore_index)
    false_CP = known_CP & contrastive.label_mask(truth_P, len(negative_CP))
    return torch.stack([false_CP.sum(dim=1), known_CP.sum(dim=1)])


def device_generator(generator: torch.Generator, device: torch.device) -> torch.Generator:
    """A generator on `device` seeded from one on the CPU, so that draws there need no host round trip."""
    if device.type == generator.device.type:
        return generator
    seed = int(torch.randint(2**62, (), generator=generator))
    return torch.Generator(device).manual_seed(seed)
