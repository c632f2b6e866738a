"""What all methods with a student and a teacher share: the teacher labels images, and follows the student."""

from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from u2pl import processes
from u2pl.batches.loader import Batch, Images
from u2pl.errors import UsageError
from u2pl.losses import partition
from u2pl.methods.base import Classes, Method, Step, Targets
from u2pl.models import ema
from u2pl.models.deeplab import DeepLabV3Plus, Output
from u2pl.settings import Recipe
from u2pl.settings.hyper import TeacherSettings
from u2pl.steps.micro_batch import MicroBatch


class Unlabeled(NamedTuple):
    """Unlabelled images of this process, before or after mixing, and what is known of their pixels."""

    image: Tensor
    """(b, 3, H, W)."""
    label: Tensor
    """(b, H, W) int64: the teacher's likeliest class; the ignore index in the padding."""
    entropy: Tensor
    """(b, H, W), nats (Eq. 5)."""
    valid: Tensor
    """(b, H, W) bool: not padding."""
    truth: Tensor
    """(b, H, W) int64, to measure with."""

    def of(self, micro: MicroBatch) -> "Unlabeled":
        """Those of a micro-batch."""
        return Unlabeled(*(maps[micro.own] for maps in self))


@dataclass(frozen=True, kw_only=True)
class PartitionTargets(Targets):
    """Pseudo-labels, and the partition of the unlabelled pixels that they come from (Sec. 3.2)."""

    labeled: Images
    """As the student sees them."""
    unlabeled: Unlabeled
    """Likewise."""
    pseudo_label: Tensor
    """(b, H, W) int64: `unlabeled.label` where reliable, else the ignore index (Eq. 6)."""
    alpha_t: float
    """Share of unreliable pixels (Eq. 7)."""
    gamma_t: Tensor
    """(b, 1, 1): entropy from which a pixel is unreliable (Eq. 6), that of each image's group."""
    usable: Tensor
    """(b, H, W) bool: unlabelled pixels that may take part in the contrastive loss."""
    teacher: Output | None
    """The teacher's output of the labelled images, then of the unlabelled ones; None where no setting asks for it."""
    contrast: Any = None
    """What a contrastive loss compares (`u2pl.ContrastTargets`)."""


class StudentTeacher(Method):
    """A student, and its moving average."""

    settings: TeacherSettings

    def __init__(self, classes: Classes, recipe: Recipe, settings: TeacherSettings):
        super().__init__(classes, recipe, settings)
        self.teacher = ema.teacher_of(self.student if settings.warm_teacher != "own" else self.network())
        if settings.teacher_statistics == "average":
            ema.keep_statistics(self.teacher)

    @classmethod
    def check(cls, classes: Classes, recipe: Recipe, settings: Any) -> None:
        """Refuse a teacher whose batch norm never learns, too."""
        super().check(classes, recipe, settings)
        if settings.teacher_statistics == "passes" and settings.teacher_mode == "eval":
            raise UsageError(
                "With teacher_statistics=passes the teacher's batch norm learns in its passes, but with "
                "teacher_mode=eval these change nothing. Use: --set teacher_mode=train"
            )

    # ---- the teacher's forward ---------------------------------------------------------------------------

    def teacher_forward(
        self, *streams: Tensor, step: Step, represent: bool = True, mode: str | None = None
    ) -> Output:
        """The teacher's output of streams of this process's images, stream after stream.

        Args:
            streams: as many images in each.
            step: where training stands.
            represent: whether representations are wanted, where there are any.
            mode: of the teacher; None: `teacher_mode`.
        """
        self.teacher.train((mode or self.settings.teacher_mode) == "train")
        output = self.forward_without_gradient(self.teacher, *streams, step=step, represent=represent)
        self.teacher.eval()
        return output

    def predictions(self, logits: Tensor, size: tuple[int, ...]) -> partition.Prediction:
        """Prediction of each pixel of images of a size, from low-resolution logits.

        Of no more images at once than in a forward, since at full resolution logits take much memory.
        """
        parts = logits.split(2 * self.recipe.micro_batch or len(logits))
        predicted = [partition.predict(some, size) for some in parts]
        if len(predicted) == 1:
            return predicted[0]
        return partition.Prediction(*map(torch.cat, zip(*predicted, strict=True)))

    def pseudo_labels(self, batch: Batch, step: Step) -> Unlabeled:
        """The teacher's labels of the plain unlabelled images, and their entropies (Eqs. 5 and 6)."""
        assert batch.unlabeled is not None
        image, truth, valid = batch.unlabeled[:3]
        output = self.teacher_forward(image, step=step, represent=False, mode="eval")
        label, entropy, _ = self.predictions(output.logits, image.shape[2:])
        return Unlabeled(image, label.where(valid, self.classes.ignore_index), entropy, valid, truth)

    def teacher_sees_both(self, step: Step) -> bool:
        """Whether the teacher sees what the student sees, besides the plain images that it labels."""
        return self.settings.teacher_statistics == "passes"

    # ---- the partition -----------------------------------------------------------------------------------

    def alpha_t(self, step: Step) -> float:
        """Share of unreliable pixels (Eq. 7)."""
        s: Any = self.settings
        return partition.alpha_t(s.alpha0, step.epoch, step.epochs) if s.dpa else s.alpha0

    def threshold(self, unlabeled: Unlabeled, share: float) -> Tensor:
        """The entropy below which a share of each group's pixels lies, (b, 1, 1): gamma_t for 1 - alpha_t (Eq. 6)."""
        return self.whole_batch.percentile(unlabeled.entropy, unlabeled.valid, share)

    def reliable(self, unlabeled: Unlabeled, gamma_t: Tensor) -> Tensor:
        """Pseudo-labels: the teacher's labels where the entropy is below gamma_t (Eq. 6)."""
        ignore = self.classes.ignore_index
        return partition.pseudo_label(unlabeled.label, unlabeled.entropy, gamma_t, ignore)

    def diagnose(self, pseudo_label: Tensor, unlabeled: Unlabeled) -> dict[str, Tensor | float]:
        """How many pixels have a pseudo-label, and how many of these are right (NaN where no truth is known)."""
        share, accuracy = reliability(pseudo_label, unlabeled, self.classes.ignore_index)
        return {"reliable/share": share, "reliable/accuracy": accuracy}

    def count_reliable(self, pseudo_label: Tensor, unlabeled: Unlabeled) -> dict[str, Tensor]:
        """The same of each class, where masks of unlabelled images may be opened."""
        if not self.recipe.unlabeled_truth:
            return {}
        return reliability_by_class(pseudo_label, unlabeled, self.classes)

    # ---- the teacher follows -----------------------------------------------------------------------------

    def start_step(self, batch: Batch, step: Step) -> Targets:
        """Before the first step after the warm start a teacher with weights of its own takes the student's."""
        s = self.settings
        if step.index == s.warm_start_epochs * step.epoch_steps and (
            s.warm_teacher == "own" or s.first_epoch == "share"
        ):
            self.follow(0)
        return super().start_step(batch, step)

    def supervised_targets(self, batch: Batch, step: Step) -> Targets:
        """In the warm start the statistics of the teacher's batch norm may be those of its own passes, too."""
        if self.settings.teacher_statistics == "passes":
            self.teacher_forward(batch.labeled.image, step=step, represent=False)
        return super().supervised_targets(batch, step)

    def after_update(self, step: Step) -> None:
        """The teacher follows: min(1 - 1/(n+1), ema_decay) in step n after the warm start, in which it is a copy."""
        s = self.settings
        warm_steps = s.warm_start_epochs * step.epoch_steps
        n = step.index if s.warm_teacher == "average" else step.index - warm_steps
        if step.index < warm_steps and s.warm_teacher != "average":
            if s.warm_teacher == "copy":
                self.follow(0)
        elif step.epoch == s.warm_start_epochs and s.first_epoch == "share":
            self.follow(0)
        else:
            self.follow(min(1 - 1 / (n + 1), s.ema_decay))

    def follow(self, decay: float) -> None:
        """Average the student into the teacher; with a decay of 0, copy it."""
        ema.update(
            self.teacher, self.student, decay, statistics=self.settings.teacher_statistics == "average"
        )

    def evaluated(self, epoch: int) -> tuple[str, DeepLabV3Plus]:
        """The student during the warm start, the teacher afterwards."""
        if epoch < self.settings.warm_start_epochs:
            return "student", self.student
        return "teacher", self.teacher

    def train(self, mode: bool = True) -> Self:
        """Training mode for the student; the teacher has its own in each pass, evaluation mode between them."""
        super().train(mode)
        self.teacher.eval()
        return self


def reliability(pseudo_label: Tensor, unlabeled: Unlabeled, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Share of the whole batch's pixels with a pseudo-label, and share of those that are right."""
    reliable = pseudo_label != ignore_index
    judged = reliable & (unlabeled.truth != ignore_index)
    right = (pseudo_label == unlabeled.truth) & judged
    labeled, valid, true, known = processes.total(
        torch.stack([mask.sum() for mask in (reliable, unlabeled.valid, right, judged)])
    )
    return labeled / valid, true / known


def reliability_by_class(pseudo_label: Tensor, unlabeled: Unlabeled, classes: Classes) -> dict[str, Tensor]:
    """Of the pixels that truly are of a class, the reliable ones; of these, the ones that are labelled right.

    Args:
        pseudo_label: (b, H, W), the ignore index where unreliable.
        unlabeled: of the same images; where its truth is the ignore index, nothing counts.

    Returns:
        Class counts of the whole batch, (2, C) each.
    """
    truth = unlabeled.truth
    of_class_C = pixels_by_class(truth, unlabeled.valid, classes.count)
    reliable_C = pixels_by_class(truth, pseudo_label != classes.ignore_index, classes.count)
    right_C = pixels_by_class(truth, pseudo_label == truth, classes.count)
    of_class_C, reliable_C, right_C = processes.total(torch.stack([of_class_C, reliable_C, right_C]))
    return {
        "reliable/share": torch.stack([reliable_C, of_class_C]),
        "reliable/accuracy": torch.stack([right_C, reliable_C]),
    }


def pixels_by_class(label: Tensor, mask: Tensor, classes: int) -> Tensor:
    """How many pixels of each class a mask has, (C,) int64; labels that are no class count nowhere."""
    # Class by class: bincount would wait for the device, and one-hot labels take C times the memory.
    return torch.stack([(mask & (label == c)).sum() for c in range(classes)])
