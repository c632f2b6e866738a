"""MT: a student learns the pseudo-labels of its moving average, where their entropy is low.

The mean teacher of the paper's tables: hard pseudo-labels filtered by entropy (Eqs. 3 to 8), without
strong augmentation and without the contrastive loss.
"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from torch import Tensor

from u2pl import processes
from u2pl.batches.loader import Batch
from u2pl.losses import partition
from u2pl.losses.cross_entropy import lambda_u
from u2pl.methods.base import Step
from u2pl.methods.registry import method
from u2pl.methods.student_teacher import (
    PartitionTargets,
    StudentTeacher,
    Unlabeled,
)
from u2pl.models.deeplab import Output
from u2pl.settings import Settings
from u2pl.settings.hyper import MeanTeacherSettings
from u2pl.steps.forward import Forward


@dataclass(frozen=True, kw_only=True)
class MeanTeacherTargets(PartitionTargets):
    """Pseudo-labels, and how much they weigh."""

    lambda_u: tuple[Tensor, ...]
    """Weight of the unsupervised loss (Eq. 8), one for each group of the batch."""


@method("mt")
class MeanTeacher(StudentTeacher):
    """L_s + lambda_u L_u (Eq. 1 without its last term)."""

    settings_class: ClassVar[type[Settings]] = MeanTeacherSettings
    settings: MeanTeacherSettings

    def targets(self, batch: Batch, step: Step) -> MeanTeacherTargets:
        """The teacher's label of each unlabelled pixel, where the entropy of its prediction is low."""
        unlabeled = self.augmented(self.pseudo_labels(batch, step), step)  # Eq. 5
        teacher = None
        if self.teacher_sees_both(step):
            teacher = self.teacher_forward(batch.labeled.image, unlabeled.image, step=step)
        unlabeled = self.with_entropy(unlabeled, teacher)

        alpha_t = self.alpha_t(step)  # Eq. 7
        gamma_t = self.threshold(unlabeled, 1 - alpha_t)
        label = partition.pseudo_label(
            unlabeled.label, unlabeled.entropy, gamma_t, self.classes.ignore_index
        )  # Eq. 6
        return self.partitioned(batch, unlabeled, teacher, alpha_t, gamma_t, label)

    def losses(self, student: Output, targets: MeanTeacherTargets) -> dict[str, Tensor]:
        """L_s (Eq. 2) and lambda_u L_u (Eqs. 3 and 8)."""
        on_labeled, on_unlabeled = self.upsampled(student, targets.label.size)
        return {
            "supervised": targets.label.cross_entropy(on_labeled),
            "unsupervised": targets.pseudo_label.cross_entropy(on_unlabeled, targets.lambda_u),
        }

    def augmented(self, unlabeled: Unlabeled, step: Step) -> Unlabeled:
        """What the student sees: MT has no strong augmentation."""
        return unlabeled

    def teacher_sees_both(self, step: Step) -> bool:
        """Too where the entropies are those of the student's images."""
        return super().teacher_sees_both(step) or self.settings.entropy_pass == "mixed"

    def with_entropy(self, unlabeled: Unlabeled, teacher: Output | None) -> Unlabeled:
        """The images with the entropies that count: those of the labels' own forward, or of the student's images."""
        if self.settings.entropy_pass == "plain":
            return unlabeled
        assert teacher is not None
        logits = teacher.logits[len(unlabeled.image) :]
        return unlabeled._replace(entropy=self.predictions(logits, unlabeled.label.shape[1:]).entropy)

    def partitioned(
        self,
        batch: Batch,
        unlabeled: Unlabeled,
        teacher: Output | None,
        alpha_t: float,
        gamma_t: Tensor,
        pseudo_label: Tensor,
    ) -> MeanTeacherTargets:
        """The targets of a partition, with the weight that it gives the unsupervised loss (Eq. 8)."""
        weigh = partial(lambda_u, eta=self.settings.eta, ignore_index=self.classes.ignore_index)
        weight_G = self.whole_batch.each(weigh, pseudo_label, unlabeled.valid)
        images = batch.labeled.image, unlabeled.image
        return MeanTeacherTargets(
            forwards=(Forward(self.student, images, {"represent": self.has_representation}),),
            label=self.labels(batch.labeled.mask),
            labeled=batch.labeled,
            unlabeled=unlabeled,
            pseudo_label=self.labels(pseudo_label),
            alpha_t=alpha_t,
            gamma_t=gamma_t,
            usable=unlabeled.valid,
            teacher=teacher,
            lambda_u=weight_G.unbind(),
            diagnostics={
                "alpha_t": alpha_t,
                "gamma_t": processes.gather(gamma_t).mean(),
                "lambda_u": weight_G.mean(),
                **self.diagnose(pseudo_label, unlabeled),
            },
            class_counts=self.count_reliable(pseudo_label, unlabeled),
        )
