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
from u2pl.losses import cross_entropy
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
from u2pl.steps.whole_batch import Labels


@dataclass(frozen=True, kw_only=True)
class MeanTeacherTargets(PartitionTargets):
    """Pseudo-labels, and how much they weigh."""

    unsupervised: Labels
    """`pseudo_label`, for the mean over all pixels of the batch that have one (Eq. 3)."""
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
        pseudo_label = self.reliable(unlabeled, gamma_t)  # Eq. 6
        lambda_u = self.lambda_u(pseudo_label, unlabeled)  # Eq. 8
        return self.collected(batch, unlabeled, teacher, alpha_t, gamma_t, pseudo_label, lambda_u)

    def losses(self, student: Output, targets: MeanTeacherTargets) -> dict[str, Tensor]:
        """L_s and lambda_u L_u."""
        _, on_unlabeled = student.logits.chunk(2)
        return {
            "supervised": self.supervised(student, targets),  # Eq. 2
            "unsupervised": targets.unsupervised.cross_entropy(on_unlabeled, targets.lambda_u),  # Eq. 3
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

    def lambda_u(self, pseudo_label: Tensor, unlabeled: Unlabeled) -> Tensor:
        """Weight of the unsupervised loss in each group of the batch, (replicas,) (Eq. 8)."""
        weigh = partial(cross_entropy.lambda_u, eta=self.settings.eta, ignore_index=self.classes.ignore_index)
        return self.whole_batch.each(weigh, pseudo_label, unlabeled.valid)

    def collected(
        self,
        batch: Batch,
        unlabeled: Unlabeled,
        teacher: Output | None,
        alpha_t: float,
        gamma_t: Tensor,
        pseudo_label: Tensor,
        lambda_u: Tensor,
    ) -> MeanTeacherTargets:
        """The targets, and what is to be known of the partition that they come from."""
        images = batch.labeled.image, unlabeled.image
        return MeanTeacherTargets(
            forwards=(Forward(self.student, images, {"represent": self.has_representation}),),
            label=self.labels(batch.labeled.mask),
            labeled=batch.labeled,
            unlabeled=unlabeled,
            pseudo_label=pseudo_label,
            unsupervised=self.labels(pseudo_label),
            alpha_t=alpha_t,
            gamma_t=gamma_t,
            usable=unlabeled.valid,
            teacher=teacher,
            lambda_u=lambda_u.unbind(),
            diagnostics={
                "alpha_t": alpha_t,
                "gamma_t": processes.gather(gamma_t).mean(),
                "lambda_u": lambda_u.mean(),
                **self.diagnose(pseudo_label, unlabeled),
            },
            class_counts=self.count_reliable(pseudo_label, unlabeled),
        )
