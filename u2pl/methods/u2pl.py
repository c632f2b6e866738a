"""U²PL: pixels too uncertain for a pseudo-label are negatives of the classes that they surely are not (Algorithm 1)."""

import logging
from dataclasses import dataclass, replace
from itertools import starmap
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from u2pl import processes
from u2pl.batches.loader import Batch
from u2pl.errors import UsageError
from u2pl.losses import contrastive
from u2pl.losses.memory_bank import FALSE, NONE, NOT_KNOWN, TRUE, MemoryBank
from u2pl.methods.base import Classes, Step
from u2pl.methods.cutmix import CutMix
from u2pl.methods.mt import MeanTeacherTargets
from u2pl.methods.registry import method
from u2pl.methods.student_teacher import PartitionTargets
from u2pl.models.deeplab import Output, rows
from u2pl.settings import Recipe, Settings
from u2pl.settings.hyper import ContrastSettings, U2PLSettings
from u2pl.steps.micro_batch import MicroBatch
from u2pl.steps.pixels import Pixels, aligned, floored
from u2pl.steps.whole_batch import WholeBatch

_log = logging.getLogger(__name__)

P = TypeVar("P", bound=PartitionTargets)


@method("u2pl")
class U2PL(CutMix):
    """L = L_s + lambda_u L_u + lambda_c L_c (Eq. 1)."""

    settings_class: ClassVar[type[Settings]] = U2PLSettings
    settings: U2PLSettings
    has_representation = True

    def __init__(self, classes: Classes, recipe: Recipe, settings: U2PLSettings):
        super().__init__(classes, recipe, settings)
        self.contrast = Contrast(classes, recipe, settings)
        self.bank = self.contrast.bank

    def targets(self, batch: Batch, step: Step) -> MeanTeacherTargets:
        """Which unlabelled pixels are pseudo-labels, and which pixels are anchors, centres and negatives."""
        # The teacher labels the plain images; CutMix mixes them with all that is known of their pixels (App. A).
        unlabeled = self.augmented(self.pseudo_labels(batch, step), step)
        teacher = None
        if self.teacher_sees_both(step):
            teacher = self.teacher_forward(batch.labeled.image, unlabeled.image, step=step)
        unlabeled = self.with_entropy(unlabeled, teacher)  # Eq. 5

        # Sec. 3.2: the alpha_t of highest entropy are unreliable, the others have pseudo-labels.
        alpha_t = self.alpha_t(step)  # Eq. 7
        gamma_t = self.threshold(unlabeled, 1 - alpha_t)
        pseudo_label = self.reliable(unlabeled, gamma_t)  # Eq. 6
        lambda_u = self.lambda_u(pseudo_label, unlabeled)  # Eq. 8
        found = self.collected(batch, unlabeled, teacher, alpha_t, gamma_t, pseudo_label, lambda_u)

        # Sec. 3.3: Eqs. 9 to 16, below.
        return self.contrast.added(found, step) if self.settings.lambda_c > 0 else found

    def losses(self, student: Output, targets: MeanTeacherTargets) -> dict[str, Tensor]:
        """L_s, lambda_u L_u and lambda_c L_c."""
        _, on_unlabeled = student.logits.chunk(2)
        return {
            "supervised": self.supervised(student, targets),  # Eq. 2
            "unsupervised": targets.unsupervised.cross_entropy(on_unlabeled, targets.lambda_u),  # Eq. 3
            **self.contrast.losses(student, targets),  # Eq. 4
        }

    def teacher_sees_both(self, step: Step) -> bool:
        """Too where its representations are compared."""
        return super().teacher_sees_both(step) or self.settings.lambda_c > 0

    @classmethod
    def check(cls, classes: Classes, recipe: Recipe, settings: Any) -> None:
        """Refuse ranks that leave no unlabelled negatives, too."""
        super().check(classes, recipe, settings)
        Contrast.check(classes, settings)


# ---- Sec. 3.3 ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """What the loss of one group of the batch compares: drawn for all processes alike, before the student looks."""

    anchor_CM: Tensor
    """Pixels of the group."""
    center_CD: Tensor
    """z_c^+ (Eq. 12)."""
    negative_KD: Tensor
    """A table of representations: the memory bank, or the negatives of the step."""
    length_K: Tensor | None
    """Of its rows, where they are known."""
    index_CMN: Tensor
    """Rows of it, N for each anchor."""
    use_C: Tensor
    """Classes that add to the loss."""
    divisor: int | Tensor


@dataclass(frozen=True)
class ContrastTargets:
    """What L_c compares, and what is to be known of it."""

    pixels: Pixels
    comparisons: list[Comparison]
    """One for each group of the batch."""
    diagnostics: dict[str, Tensor | float]
    class_counts: dict[str, Tensor]


@dataclass(frozen=True)
class Anchors:
    """The pixels of which the student is asked for representations: the anchors, group after group."""

    targets: ContrastTargets

    def of(self, micro: MicroBatch) -> Tensor:
        """Their rows in the maps of a micro-batch, in bounds where they are not there, (groups C M,) int64."""
        pixels, comparisons = self.targets.pixels, self.targets.comparisons
        found = [pixels.rows(group, c.anchor_CM, micro)[0] for group, c in enumerate(comparisons)]
        return torch.stack(found).flatten()


class Contrast:
    """L_c: anchors are drawn to the centre of their class, and away from its negatives.

    Anchors are the student's representations and carry the gradient; centres and negatives are the teacher's.
    """

    def __init__(self, classes: Classes, recipe: Recipe, settings: ContrastSettings):
        self.classes, self.recipe, self.settings = classes, recipe, settings
        self.whole_batch = WholeBatch(recipe.replicas)
        capacities = [settings.queue] * classes.count
        if classes.background or settings.large_queue == "class0":
            capacities[0] = settings.queue_background
        used = settings.memory_bank and settings.lambda_c > 0
        self.bank = (
            MemoryBank(capacities, recipe.representation, judged=recipe.unlabeled_truth) if used else None
        )
        for sentence in concerns(settings):
            _log.warning(sentence)

    def added(self, known: P, step: Step) -> P:
        """The targets of a batch with what L_c compares, and its diagnostics.

        The anchors are drawn before the student looks, so it is asked for representations of no other pixels.
        """
        found = self.targets(known, step)
        (forward,) = known.forwards
        return replace(
            known,
            forwards=(replace(forward, options={**forward.options, "represent": Anchors(found)}),),
            contrast=found,
            diagnostics=known.diagnostics | found.diagnostics,
            class_counts=known.class_counts | found.class_counts,
        )

    def targets(self, known: PartitionTargets, step: Step) -> ContrastTargets:
        """Anchors, centres and negatives of a batch (Eqs. 9 to 16, Algorithm 1)."""
        s, teacher = self.settings, known.teacher
        assert teacher is not None and teacher.representation is not None
        mask, size = known.label.map, teacher.logits.shape[2:]
        pixels = Pixels(len(mask), self.recipe.replicas, size.numel())
        pick = aligned if s.label_points == "aligned" else floored

        def points(on_labeled: Tensor, on_unlabeled: Tensor) -> Tensor:
            return torch.cat([pick(on_labeled, size), pick(on_unlabeled, size)]).flatten()

        z_PD = rows(teacher.representation)
        known_PX = (
            points(mask, self.anchor_labels(known)),
            points(mask, known.unlabeled.label),
            points(torch.ones_like(mask, dtype=torch.bool), torch.zeros_like(known.usable)),
            points(torch.zeros_like(mask, dtype=torch.bool), self.negative_pixels(known)),
        )
        by_parts = starmap(self.candidates, contrastive.parts(rows(teacher.logits), *known_PX))
        region_CP, anchor_CP, negative_CP = (torch.cat(m, dim=1) for m in zip(*by_parts, strict=True))

        # Q_c: the negatives of the whole batch go to the memory bank, from which each anchor gets N.
        judged = self.bank is not None and self.bank.judged
        found_CP = negative_CP
        if judged:
            truth = points(mask, known.unlabeled.truth)
            found_CP = judgement(negative_CP, truth, self.classes.ignore_index)
        z_KD, found_CK, place_K = pixels.all_rows(z_PD, found_CP)
        negative_CK = found_CK > NONE
        if self.bank is not None:
            self.bank.push(z_KD, negative_CK, found_CK if judged else None)
        generator = device_generator(step.generator, z_PD.device)
        centered_CP = anchor_CP if s.center == "anchors" else region_CP
        comparisons = []
        for group, anchor_of_group_CP in enumerate(pixels.all_masks(anchor_CP).chunk(pixels.groups, dim=1)):
            center_CD, _ = contrastive.centers(  # Eq. 12
                pixels.own(group, z_PD, 0), pixels.own(group, centered_CP, 1), processes.total
            )
            present_C = processes.total(pixels.own(group, region_CP, 1).sum(dim=1)) > 0
            if self.bank is not None:
                table: tuple[Tensor, Tensor | None] = self.bank.storage, self.bank.length
                drawn, filled_C = self.bank.sample(s.M, s.N, generator), self.bank.filled_C > 0
            else:
                own = slice(None) if pixels.groups == 1 else pixels.of_group(group, place_K)
                rows_KD, mask_CK = z_KD[own], negative_CK[:, own]
                if len(rows_KD) == 0:  # of several processes, none has a negative: a row that is nobody's
                    rows_KD, mask_CK = z_PD[:1], torch.zeros_like(negative_CP[:, :1])
                drawn = contrastive.sample(mask_CK, s.M * s.N, generator).unflatten(1, (s.M, s.N))
                table, filled_C = (rows_KD, None), mask_CK.any(dim=1)
            comparisons.append(
                self.compare(anchor_of_group_CP, present_C, center_CD, table, drawn, filled_C, generator)
            )
        truth_P = points(torch.full_like(mask, self.classes.ignore_index), known.unlabeled.truth)
        found = self.diagnose(comparisons, anchor_CP, negative_CP, truth_P)
        return ContrastTargets(pixels, comparisons, *found)

    def candidates(
        self, logits_PC: Tensor, anchor_P: Tensor, label_P: Tensor, labeled_P: Tensor, chosen_P: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Each class's pixels, which of them may be anchors, and its negatives; (C, P) bool each.

        Args:
            logits_PC: the teacher's.
            anchor_P: true labels of labelled images; of unlabelled ones, pseudo-labels of pixels that may be anchors.
            label_P: true labels, and all that the teacher takes unlabelled pixels for.
            labeled_P: bool; pixels of labelled images.
            chosen_P: bool; unlabelled pixels that may become negatives.
        """
        s, classes = self.settings, self.classes.count
        prob_CP = logits_PC.t().contiguous().softmax(dim=0)

        # A_c (Eq. 11): pixels of class c by label (Eq. 9) or pseudo-label (Eq. 10), if the teacher is sure of it.
        region_CP = contrastive.label_mask(anchor_P, classes)
        anchor_CP = contrastive.anchor_mask(anchor_P, prob_CP, s.delta_p)

        # n_ij(c) (Eqs. 13 and 16): of the labelled pixels those easily taken for c (Eq. 14), of the unreliable ones
        # those for which c is unlikely, but not among the unlikeliest (Eq. 15).
        r_l, r_h = (s.r_l, s.r_h) if s.prt else (1, classes)
        rank_CP = contrastive.coarse_ranks(prob_CP, r_l, r_h)
        negative_CP = contrastive.unlabeled_negative_mask(chosen_P, rank_CP, r_l, r_h)
        if s.negative_label == "same":
            negative_CP = negative_CP & contrastive.label_mask(label_P, classes)
        if s.labeled_negatives:
            negative_CP = negative_CP | contrastive.labeled_negative_mask(label_P, rank_CP, r_l) & labeled_P
        return region_CP, anchor_CP, negative_CP

    def losses(self, student: Output, targets: PartitionTargets) -> dict[str, Tensor]:
        """lambda_c L_c (Eq. 4), or L_b (Eq. A1), of a micro-batch; nothing in steps that do not have it."""
        if targets.contrast is None:
            return {}
        assert targets.label.micro is not None
        return {
            "contrastive": self.settings.lambda_c * self.loss(student, targets.contrast, targets.label.micro)
        }

    def loss(self, student: Output, targets: ContrastTargets, micro: MicroBatch) -> Tensor:
        """The mean over groups of L_c or L_b, as far as anchors lie in a micro-batch."""
        s = self.settings
        assert student.representation is not None
        anchor_AD = student.representation.chunk(len(targets.comparisons))
        compare = contrastive.info_nce if s.contrast == "L_c" else contrastive.binary
        losses = []
        for group, c in enumerate(targets.comparisons):
            _, here_CM = targets.pixels.rows(group, c.anchor_CM, micro)
            anchor_CMD = anchor_AD[group].unflatten(0, here_CM.shape)
            loss_C = compare(anchor_CMD, c.center_CD, c.negative_KD, c.index_CMN, s.tau, here_CM, c.length_K)
            losses.append(contrastive.mean_over_classes(loss_C, c.use_C, c.divisor))
        return torch.stack(losses).mean()

    def anchor_labels(self, known: PartitionTargets) -> Tensor:
        """Pseudo-labels of the unlabelled pixels that may be anchors, (b, H, W) (Eq. 10)."""
        ignore, unlabeled = self.classes.ignore_index, known.unlabeled
        if self.settings.anchors == "reliable":
            # A pseudo-label need not be below this threshold: a method may filter its labels by another one.
            return known.pseudo_label.where(unlabeled.entropy < known.gamma_t, ignore)
        return unlabeled.label.where((unlabeled.entropy <= self.lowest(known)) & known.usable, ignore)

    def negative_pixels(self, known: PartitionTargets) -> Tensor:
        """The unlabelled pixels that may become negatives, (b, H, W) bool (Eq. 15 and Table 4)."""
        s, entropy = self.settings, known.unlabeled.entropy
        if s.negatives == "all":
            return known.usable
        if s.negatives == "reliable":
            low = self.lowest(known)
            return known.usable & (entropy <= low if s.at_threshold else entropy < low)
        high = known.gamma_t
        return known.usable & (entropy >= high if s.at_threshold else entropy > high)

    def lowest(self, known: PartitionTargets) -> Tensor:
        """The entropy below which alpha_t of the pixels lie, (b, 1, 1)."""
        return self.whole_batch.percentile(known.unlabeled.entropy, known.unlabeled.valid, known.alpha_t)

    def compare(
        self,
        anchor_CP: Tensor,
        present_C: Tensor,
        center_CD: Tensor,
        table: tuple[Tensor, Tensor | None],
        index_CMN: Tensor,
        filled_C: Tensor,
        generator: torch.Generator,
    ) -> Comparison:
        """What the loss of one group compares.

        Args:
            anchor_CP: candidate anchors among the group's pixels.
            present_C: bool; the classes in it.
            center_CD: their centres.
            table: of negatives (K, D), and the lengths of its rows where they are known.
            index_CMN: rows of it.
            filled_C: bool; the classes that have negatives.
            generator: of the anchors.
        """
        s, classes = self.settings, self.classes.count
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
        return Comparison(anchor_CM, center_CD, *table, index_CMN, use_C, divisor)

    def diagnose(
        self, comparisons: list[Comparison], anchor_CP: Tensor, negative_CP: Tensor, truth_P: Tensor
    ) -> tuple[dict[str, Tensor | float], dict[str, Tensor]]:
        """How many anchors and classes there are, how many negatives are false, how full the bank is."""
        anchors_C = processes.total(anchor_CP.sum(dim=1))
        false_2C = processes.total(false_negatives(negative_CP, truth_P, self.classes.ignore_index))
        false, known = false_2C.sum(dim=1)
        diagnostics: dict[str, Tensor | float] = {
            "contrast/anchors": anchors_C.sum(),
            "contrast/anchor_classes": (anchors_C > 0).sum(),
            "contrast/classes": torch.stack([c.use_C for c in comparisons]).sum(dim=1).float().mean(),
            "negatives/false": false / known,
        }
        # Counts by class: of a step, not of so many pixels.
        counts = {"contrast/anchors": torch.stack([anchors_C, torch.ones_like(anchors_C)])}
        if self.recipe.unlabeled_truth:
            counts["negatives/false"] = false_2C
        if self.bank is not None:
            diagnostics["bank/filled"] = self.bank.filled_C.sum() / self.bank.capacity_C.sum()
            if self.bank.judged:
                counts["bank/false"] = self.bank.false_2C
                false, known = counts["bank/false"].sum(dim=1)
                diagnostics["bank/false"] = false / known
        return diagnostics, counts

    @staticmethod
    def check(classes: Classes, settings: ContrastSettings) -> None:
        """Refuse ranks that leave no unlabelled negatives.

        Raises:
            UsageError: they do.
        """
        ranked = settings.prt and settings.lambda_c > 0
        if ranked and (settings.r_l >= classes.count or settings.r_h <= settings.r_l):
            raise UsageError(
                f"With {classes.count} classes, r_l = {settings.r_l} and r_h = {settings.r_h} no unreliable pixel "
                f"can be a negative (Eq. 15). Use: --set r_l=1 --set r_h={max(classes.count, 2)}"
            )


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


def judgement(negative_CP: Tensor, truth_P: Tensor, ignore_index: int) -> Tensor:
    """What the truth says of each class's negatives, (C, P) uint8, as a memory bank keeps it."""
    known_CP, false_CP = known_and_false(negative_CP, truth_P, ignore_index)
    word_CP = torch.full_like(negative_CP, NONE, dtype=torch.uint8)
    for mask_CP, word in ((negative_CP, NOT_KNOWN), (known_CP, TRUE), (false_CP, FALSE)):
        word_CP.masked_fill_(mask_CP, word)
    return word_CP


def false_negatives(negative_CP: Tensor, truth_P: Tensor, ignore_index: int) -> Tensor:
    """Of each class's negatives, how many are of that very class, and of how many the class is known, (2, C) int64."""
    known_CP, false_CP = known_and_false(negative_CP, truth_P, ignore_index)
    return torch.stack([false_CP.sum(dim=1), known_CP.sum(dim=1)])


def known_and_false(negative_CP: Tensor, truth_P: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Each class's negatives whose own class is known, and those of them that are of this very class, (C, P) bool."""
    known_CP = negative_CP & (truth_P != ignore_index)
    return known_CP, known_CP & contrastive.label_mask(truth_P, len(negative_CP))


def device_generator(generator: torch.Generator, device: torch.device) -> torch.Generator:
    """A generator on `device` seeded from one on the CPU, so that draws there need no host round trip."""
    if device.type == generator.device.type:
        return generator
    seed = int(torch.randint(2**62, (), generator=generator))
    return torch.Generator(device).manual_seed(seed)
