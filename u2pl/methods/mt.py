"""MT: a student learns the pseudo-labels of its moving average, where their entropy is low.

The mean teacher of the paper's tables: hard pseudo-labels filtered by entropy (Eqs. 3 to 8), without
strong augmentation and without the contrastive loss.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple, Self

import torch
from pydantic import Field
from torch import Tensor

from u2pl.data.loader import Batch
from u2pl.errors import UsageError
from u2pl.losses import partition
from u2pl.losses.cross_entropy import cross_entropy, lambda_u
from u2pl.methods.base import Classes, Method, Step, StepResult, method, over_groups
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
    teacher_mode: Literal["eval", "train"]
    """Of the teacher's pass over the images that the student sees; its labels always come from evaluation mode."""
    entropy_pass: Literal["plain", "mixed"]
    """Which pass gives the entropy: the one that gives the labels, or the one over the student's images."""
    teacher_statistics: Literal["average", "passes"]
    """Batch-norm statistics of the teacher: averaged like its weights, or estimated in its passes."""
    warm_teacher: Literal["copy", "average", "own"]
    """In the warm start the teacher is a copy of the student, its average from the first step of training on, or has
    weights of its own that nobody updates."""
    first_epoch: Literal["average", "share"]
    """In the first epoch after the warm start the teacher is an average, or the student itself."""


class Pseudo(NamedTuple):
    """Unlabelled images, before or after mixing, and what is known of their pixels."""

    image: Tensor
    """(B, 3, H, W)."""
    label: Tensor
    """(B, H, W) int64: the teacher's likeliest class; the ignore index in the padding."""
    entropy: Tensor
    """(B, H, W), nats (Eq. 5)."""
    valid: Tensor
    """(B, H, W) bool: not padding."""
    truth: Tensor
    """(B, H, W) int64, to measure with."""


@dataclass(frozen=True)
class Scene:
    """All that a step has found out, for losses beyond the first two."""

    batch: Batch
    pseudo: Pseudo
    target: Tensor
    """(B, H, W) int64: `pseudo.label` where reliable, else the ignore index (Eq. 6)."""
    alpha: float
    gamma_B11: Tensor
    """gamma_t of each unlabelled image's group."""
    student: Output
    """Of the labelled images, then the mixed unlabelled ones."""
    teacher: Output | None
    """The same images; None where no setting asks for that pass."""


@method("mt")
class MeanTeacher(Method):
    """L_s + lambda_u L_u (Eq. 1 without its last term)."""

    settings_class: ClassVar[type[Settings]] = MeanTeacherSettings
    settings: MeanTeacherSettings
    has_representation: ClassVar[bool] = False

    def __init__(self, classes: Classes, recipe: Recipe, settings: MeanTeacherSettings):
        super().__init__(classes, recipe, settings)
        self.student = DeepLabV3Plus(classes.count, recipe, representation=self.has_representation)
        self.teacher = ema.teacher_of(
            self.student
            if settings.warm_teacher != "own"
            else DeepLabV3Plus(classes.count, recipe, representation=self.has_representation)
        )
        if settings.teacher_statistics == "average":
            ema.keep_statistics(self.teacher)

    @classmethod
    def check(cls, classes: Classes, recipe: Recipe, settings: MeanTeacherSettings) -> None:
        """Refuse a warm start that never ends, and a teacher whose batch norm never learns."""
        if settings.warm_start_epochs >= recipe.epochs:
            raise UsageError(
                f"A warm start of {settings.warm_start_epochs} epochs leaves none of {recipe.epochs} for the "
                f"unlabelled images. Use fewer: --set warm_start_epochs={recipe.epochs // 2}"
            )
        if settings.teacher_statistics == "passes" and settings.teacher_mode == "eval":
            raise UsageError(
                "With teacher_statistics=passes the teacher's batch norm learns in its passes, but with "
                "teacher_mode=eval these change nothing. Use: --set teacher_mode=train"
            )

    @property
    def sees_mixed(self) -> bool:
        """Whether the teacher looks at the images that the student sees, besides the plain unlabelled ones."""
        return self.settings.entropy_pass == "mixed" or self.settings.teacher_statistics == "passes"

    def step(self, batch: Batch, step: Step) -> StepResult:
        """Supervised only during the warm start, then with the teacher's labels too."""
        s, ignore, groups = self.settings, self.classes.ignore_index, self.recipe.replicas
        supervised = partial(cross_entropy, ignore_index=ignore)
        if step.epoch < s.warm_start_epochs:
            if s.teacher_statistics == "passes":
                self.look(batch.labeled_image, represent=False)
            logits = self.student(batch.labeled_image, represent=False).logits
            logits = upsample(logits, batch.labeled_mask.shape[1:])
            loss = over_groups(groups, supervised, logits, batch.labeled_mask).mean()
            return StepResult({"supervised": loss})

        if step.index == s.warm_start_epochs * step.epoch_steps and (
            s.warm_teacher == "own" or s.first_epoch == "share"
        ):
            self.follow(0)
        alpha = self.alpha(step)
        # Labels of the images as they are; then the same boxes mix the images and all that goes with them.
        pseudo = self.augmented(self.pseudo_labels(batch), step)
        images = torch.cat([batch.labeled_image, pseudo.image])
        size = pseudo.label.shape[1:]
        teacher = self.look(images) if self.sees_mixed else None
        if s.entropy_pass == "mixed":
            assert teacher is not None
            on_mixed = upsample(teacher.logits[len(batch.labeled_image) :], size)
            pseudo = pseudo._replace(entropy=partition.predict(on_mixed)[1])
        gamma_B11 = self.threshold(pseudo, 1 - alpha)
        target = partition.pseudo_label(pseudo.label, pseudo.entropy, gamma_B11, ignore)

        student = self.student(images, represent=self.has_representation)
        on_labeled, on_unlabeled = upsample(student.logits, size).chunk(2)
        weight = over_groups(groups, partial(lambda_u, eta=s.eta, ignore_index=ignore), target, pseudo.valid)
        losses = {
            "supervised": over_groups(groups, supervised, on_labeled, batch.labeled_mask).mean(),
            "unsupervised": (weight * over_groups(groups, supervised, on_unlabeled, target)).mean(),
        }
        share, accuracy = reliability(target, pseudo, ignore)
        health: dict[str, Tensor | float] = {
            "alpha_t": alpha,
            "gamma_t": gamma_B11.mean(),
            "lambda_u": weight.mean(),
            "reliable/share": share,
            "reliable/accuracy": accuracy,
        }
        more = self.more(Scene(batch, pseudo, target, alpha, gamma_B11, student, teacher), step)
        return StepResult(losses | more.losses, health | more.health)

    def alpha(self, step: Step) -> float:
        """alpha_t (Eq. 7)."""
        s = self.settings
        return partition.alpha_t(s.alpha0, step.epoch, step.epochs) if s.dpa else s.alpha0

    @torch.no_grad()
    def pseudo_labels(self, batch: Batch) -> Pseudo:
        """The teacher's labels of the plain images, and their entropies (Eqs. 5 and 6)."""
        image, truth, valid = batch.unlabeled_image, batch.unlabeled_truth, batch.unlabeled_valid
        assert image is not None and truth is not None and valid is not None
        logits = upsample(self.teacher(image, represent=False).logits, image.shape[2:])
        label, entropy = partition.predict(logits)
        return Pseudo(image, label.where(valid, self.classes.ignore_index), entropy, valid, truth)

    def threshold(self, pseudo: Pseudo, share: float) -> Tensor:
        """The entropy below which a share of each group's pixels lies, (B, 1, 1): gamma_t for 1 - alpha_t (Eq. 6)."""
        groups = self.recipe.replicas
        entropies = over_groups(
            groups, partial(partition.percentile, share=share), pseudo.entropy, pseudo.valid
        )
        return entropies.repeat_interleave(len(pseudo.image) // groups)[:, None, None]

    @torch.no_grad()
    def look(self, image: Tensor, *, represent: bool = True) -> Output:
        """The teacher's view of the images that the student sees."""
        self.teacher.train(self.settings.teacher_mode == "train")
        output: Output = self.teacher(image, represent=represent and self.has_representation)
        self.teacher.eval()
        return output

    def augmented(self, pseudo: Pseudo, step: Step) -> Pseudo:
        """What the student sees: MT has no strong augmentation."""
        return pseudo

    def more(self, scene: Scene, step: Step) -> StepResult:
        """Further losses, for methods built on this one."""
        return StepResult({})

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

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The student's."""
        return self.student.parameter_groups(self.recipe.lr, self.recipe.head_lr_multiplier)

    def train(self, mode: bool = True) -> Self:
        """Training mode for the student; the teacher has its own in each pass, evaluation mode between them."""
        super().train(mode)
        self.teacher.eval()
        return self


def reliability(target: Tensor, pseudo: Pseudo, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Share of pixels with a pseudo-label, and the share of those that are right (NaN where no truth is known)."""
    reliable = target != ignore_index
    judged = reliable & (pseudo.truth != ignore_index)
    return reliable.sum() / pseudo.valid.sum(), ((target == pseudo.truth) & judged).sum() / judged.sum()
