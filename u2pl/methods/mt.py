"""MT: a student learns the pseudo-labels of its moving average, where their entropy is low.

The mean teacher of the paper's tables: hard pseudo-labels filtered by entropy (Eqs. 3 to 8), without
strong augmentation and without the contrastive loss.
"""

from typing import Any, ClassVar, NamedTuple, Self

import torch
from pydantic import Field
from torch import Tensor

from u2pl.data.loader import Batch
from u2pl.errors import UsageError
from u2pl.losses import partition
from u2pl.losses.cross_entropy import cross_entropy, lambda_u
from u2pl.methods.base import Classes, Method, Step, StepResult, method
from u2pl.models import ema
from u2pl.models.deeplab import DeepLabV3Plus, Output, upsample
from u2pl.settings import Recipe, Settings


class MeanTeacherSettings(Settings):
    """Hyper-parameters of MT."""

    warm_start_epochs: int = Field(ge=0)
    """Epochs of supervised training before the teacher's labels are used (App. A)."""
    ema_decay: float = Field(ge=0, lt=1)
    alpha0: float = Field(ge=0, le=1)
    """Share of unreliable pixels in the first epoch (Eq. 7); at 0 only those of highest entropy are left out."""
    dpa: bool
    """Dynamic partition adjustment: alpha_t falls linearly to 0 (Eq. 7); false keeps alpha0."""
    eta: float = Field(ge=0)
    """Base weight of the unsupervised loss (Eq. 8)."""


class Pseudo(NamedTuple):
    """Unlabelled images and what the teacher says about them."""

    image: Tensor
    """(B, 3, H, W)."""
    label: Tensor
    """(B, H, W) int64; the ignore index where unreliable (Eq. 6)."""
    entropy: Tensor
    """(B, H, W), nats (Eq. 5)."""


@method("mt")
class MeanTeacher(Method):
    """L_s + lambda_u L_u (Eq. 1 without its last term)."""

    settings_class: ClassVar[type[Settings]] = MeanTeacherSettings
    settings: MeanTeacherSettings
    has_representation: ClassVar[bool] = False

    def __init__(self, classes: Classes, recipe: Recipe, settings: MeanTeacherSettings):
        super().__init__(classes, recipe, settings)
        self.student = DeepLabV3Plus(classes.count, recipe, representation=self.has_representation)
        self.teacher = ema.teacher_of(self.student)

    @classmethod
    def check(cls, classes: Classes, recipe: Recipe, settings: MeanTeacherSettings) -> None:
        """Refuse a warm start that never ends."""
        if settings.warm_start_epochs >= recipe.epochs:
            raise UsageError(
                f"A warm start of {settings.warm_start_epochs} epochs leaves none of {recipe.epochs} for the "
                f"unlabelled images. Use fewer: --set warm_start_epochs={recipe.epochs // 2}"
            )

    def step(self, batch: Batch, step: Step) -> StepResult:
        """Supervised only during the warm start, then with the teacher's labels too."""
        ignore = self.classes.ignore_index
        if step.epoch < self.settings.warm_start_epochs:
            logits = upsample(
                self.student(batch.labeled_image, represent=False).logits, batch.labeled_mask.shape[1:]
            )
            return StepResult({"supervised": cross_entropy(logits, batch.labeled_mask, ignore)})

        assert batch.unlabeled_image is not None and batch.unlabeled_truth is not None
        # Pseudo-labels of the images as they are, then the same boxes mix images and labels.
        alpha = self.alpha(step)
        pseudo, gamma = self.pseudo_labels(batch.unlabeled_image, alpha)
        share, accuracy = reliability(pseudo.label, batch.unlabeled_truth, ignore)
        pseudo = self.augmented(pseudo, step)

        output = self.student(torch.cat([batch.labeled_image, pseudo.image]))
        logits = upsample(output.logits, pseudo.label.shape[1:])
        on_labeled, on_unlabeled = logits.split([len(batch.labeled_image), len(pseudo.image)])
        weight = lambda_u(pseudo.label, self.settings.eta, ignore)
        losses = {
            "supervised": cross_entropy(on_labeled, batch.labeled_mask, ignore),
            "unsupervised": weight * cross_entropy(on_unlabeled, pseudo.label, ignore),
        }
        health: dict[str, Tensor | float] = {
            "alpha_t": alpha,
            "gamma_t": gamma,
            "lambda_u": weight,
            "reliable/share": share,
            "reliable/accuracy": accuracy,
        }
        more = self.more(batch, pseudo, output, gamma, alpha, step)
        return StepResult(losses | more.losses, health | more.health)

    def alpha(self, step: Step) -> float:
        """alpha_t (Eq. 7)."""
        s = self.settings
        return partition.alpha_t(s.alpha0, step.epoch, step.epochs) if s.dpa else s.alpha0

    @torch.no_grad()
    def pseudo_labels(self, image: Tensor, alpha: float) -> tuple[Pseudo, Tensor]:
        """The teacher's labels (Eqs. 5 and 6), and gamma_t."""
        logits = self.teacher(image, represent=False).logits
        prob = upsample(logits, image.shape[2:]).softmax(dim=1)
        entropy = partition.entropy(prob)
        gamma = partition.gamma_t(entropy, torch.ones_like(entropy, dtype=torch.bool), alpha)
        label = partition.pseudo_label(prob, entropy, gamma, self.classes.ignore_index)
        return Pseudo(image, label, entropy), gamma

    def augmented(self, pseudo: Pseudo, step: Step) -> Pseudo:
        """What the student sees: MT has no strong augmentation."""
        return pseudo

    def more(
        self, batch: Batch, pseudo: Pseudo, output: Output, gamma: Tensor, alpha: float, step: Step
    ) -> StepResult:
        """Further losses, for methods built on this one."""
        return StepResult({})

    def after_update(self, step: Step) -> None:
        """The teacher follows: a copy during the warm start, then min(1 - 1/(n+1), ema_decay) in step n after it."""
        n = max(step.index - self.settings.warm_start_epochs * step.epoch_steps, 0)
        ema.update(self.teacher, self.student, min(1 - 1 / (n + 1), self.settings.ema_decay))

    def evaluated(self, epoch: int) -> tuple[str, DeepLabV3Plus]:
        """The student during the warm start, the teacher afterwards."""
        if epoch < self.settings.warm_start_epochs:
            return "student", self.student
        return "teacher", self.teacher

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The student's."""
        return self.student.parameter_groups(self.recipe.lr, self.recipe.head_lr_multiplier)

    def train(self, mode: bool = True) -> Self:
        """Training mode for the student; the teacher predicts with its stored batch-norm statistics."""
        super().train(mode)
        self.teacher.eval()
        return self


def reliability(label: Tensor, truth: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Share of pixels with a pseudo-label, and the share of those that are right (NaN where no truth is known)."""
    reliable = label != ignore_index
    judged = reliable & (truth != ignore_index)
    return reliable.float().mean(), ((label == truth) & judged).sum() / judged.sum()
