"""What all methods with a student and a teacher share: the teacher follows the student, and looks at images for it."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from u2pl import processes
from u2pl.batches.loader import Batch
from u2pl.errors import UsageError
from u2pl.losses import partition
from u2pl.methods.base import Classes, Method, Part, Step, StepResult, check_warm_start, over_groups
from u2pl.models import ema
from u2pl.models.deeplab import DeepLabV3Plus, Output, upsample
from u2pl.settings import Recipe
from u2pl.settings.hyper import PartitionSettings, TeacherSettings


def alpha_of(settings: PartitionSettings, step: Step) -> float:
    """alpha_t (Eq. 7)."""
    return partition.alpha_t(settings.alpha0, step.epoch, step.epochs) if settings.dpa else settings.alpha0


class Pseudo(NamedTuple):
    """Unlabelled images, before or after mixing, and what is known of their pixels.

    The images are this process's. The rest is of the whole batch's B images, once `everywhere` has collected it.
    """

    image: Tensor
    """(b, 3, H, W)."""
    label: Tensor
    """(B, H, W) int64: the teacher's likeliest class; the ignore index in the padding."""
    entropy: Tensor
    """(B, H, W), nats (Eq. 5)."""
    valid: Tensor
    """(B, H, W) bool: not padding."""
    truth: Tensor
    """(B, H, W) int64, to measure with."""

    def everywhere(self) -> "Pseudo":
        """The same, with what is known of the images of all processes."""
        return Pseudo(self.image, *map(processes.gather, self[1:]))


@dataclass(frozen=True)
class Scene:
    """All that a step has found out before the student looks, for losses beyond the first two."""

    batch: Batch
    """This process's, as the student sees its labelled images."""
    pseudo: Pseudo
    target: Tensor
    """(B, H, W) int64: `pseudo.label` where reliable, else the ignore index (Eq. 6)."""
    alpha: float
    gamma_B11: Tensor
    """gamma_t of each unlabelled image's group."""
    usable: Tensor
    """(B, H, W) bool: unlabelled pixels that may take part in further losses."""
    teacher: Output | None
    """Of the labelled images, then the mixed unlabelled ones, of this process; None where no setting asks for it."""


@dataclass(frozen=True)
class More:
    """Further losses of a step."""

    losses: Callable[[Output, Part], dict[str, Tensor]] = lambda student, part: {}
    """Of a part, given what the student says of its labelled and then its mixed unlabelled images."""
    health: dict[str, Tensor | float] = field(default_factory=dict)
    tallies: dict[str, Tensor] = field(default_factory=dict)


class StudentTeacher(Method):
    """A student, and its moving average."""

    settings: TeacherSettings
    has_representation: ClassVar[bool] = False

    def __init__(self, classes: Classes, recipe: Recipe, settings: TeacherSettings):
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
    def check(cls, classes: Classes, recipe: Recipe, settings: Any) -> None:
        """Refuse a warm start that never ends, and a teacher whose batch norm never learns."""
        check_warm_start(settings.warm_start_epochs, recipe)
        if settings.teacher_statistics == "passes" and settings.teacher_mode == "eval":
            raise UsageError(
                "With teacher_statistics=passes the teacher's batch norm learns in its passes, but with "
                "teacher_mode=eval these change nothing. Use: --set teacher_mode=train"
            )

    def sees_mixed(self, step: Step) -> bool:
        """Whether the teacher looks at the images that the student sees, besides the ones it labels."""
        return self.settings.teacher_statistics == "passes"

    def parts(self, batch: Batch, step: Step) -> Iterator[StepResult]:
        """Supervised only during the warm start, then with the teacher's labels too."""
        s = self.settings
        if step.epoch < s.warm_start_epochs:
            if s.teacher_statistics == "passes":
                self.look(batch.labeled.image, step=step, represent=False)
            yield from self.supervised_parts(self.student, batch, step)
            return
        if step.index == s.warm_start_epochs * step.epoch_steps and (
            s.warm_teacher == "own" or s.first_epoch == "share"
        ):
            self.follow(0)
        yield from self.taught_parts(batch, step)

    @abstractmethod
    def taught_parts(self, batch: Batch, step: Step) -> Iterator[StepResult]:
        """The losses of a step after the warm start, part by part."""

    def threshold(self, pseudo: Pseudo, share: float) -> Tensor:
        """The entropy below which a share of each group's pixels lies, (B, 1, 1): gamma_t for 1 - alpha_t (Eq. 6)."""
        groups = self.recipe.replicas
        entropies = over_groups(
            groups, partial(partition.percentile, share=share), pseudo.entropy, pseudo.valid
        )
        return entropies.repeat_interleave(len(pseudo.label) // groups)[:, None, None]

    def said(self, logits: Tensor, size: tuple[int, ...]) -> partition.Prediction:
        """What low-resolution logits say of each pixel of images of a size, no more of them at once than in a pass."""
        parts = logits.split(2 * self.recipe.micro_batch or len(logits))
        predicted = [partition.predict(upsample(some, size)) for some in parts]
        if len(predicted) == 1:
            return predicted[0]
        return partition.Prediction(*map(torch.cat, zip(*predicted, strict=True)))

    def look(self, *streams: Tensor, step: Step, represent: bool = True, mode: str | None = None) -> Output:
        """The teacher's `view` of some images.

        Args:
            streams: this process's images, as many in each.
            step: where training stands.
            represent: whether representations are wanted, where there are any.
            mode: of the teacher; None: `teacher_mode`.

        Returns:
            Of the first stream's images, then of the second's.
        """
        self.teacher.train((mode or self.settings.teacher_mode) == "train")
        output = self.view(self.teacher, *streams, step=step, represent=represent and self.has_representation)
        self.teacher.eval()
        return output

    def measured(self, target: Tensor, pseudo: Pseudo) -> tuple[dict[str, Tensor | float], dict[str, Tensor]]:
        """Health and tallies of the pseudo-labels; tallies only where masks of unlabelled images may be opened."""
        share, accuracy = reliability(target, pseudo, self.classes.ignore_index)
        tallies = reliability_by_class(target, pseudo, self.classes) if self.recipe.unlabeled_truth else {}
        return {"reliable/share": share, "reliable/accuracy": accuracy}, tallies

    def more(self, scene: Scene, step: Step) -> More:
        """Further losses, for methods built on this one."""
        return More()

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


def reliability_by_class(target: Tensor, pseudo: Pseudo, classes: Classes) -> dict[str, Tensor]:
    """Of the pixels that truly are of a class, the reliable ones; of these, the ones that are labelled right.

    Args:
        target: (B, H, W) pseudo-labels, the ignore index where unreliable.
        pseudo: of the same images; where its truth is the ignore index, nothing counts.

    Returns:
        Tallies, (2, C) each.
    """
    of_class_C = pixels_by_class(pseudo.truth, pseudo.valid, classes.count)
    reliable_C = pixels_by_class(pseudo.truth, target != classes.ignore_index, classes.count)
    right_C = pixels_by_class(pseudo.truth, target == pseudo.truth, classes.count)
    return {
        "reliable/share": torch.stack([reliable_C, of_class_C]),
        "reliable/accuracy": torch.stack([right_C, reliable_C]),
    }


def pixels_by_class(label: Tensor, mask: Tensor, classes: int) -> Tensor:
    """How many pixels of each class a mask has, (C,) int64; labels that are no class count nowhere."""
    # Class by class: bincount would wait for the device, and one-hot labels take C times the memory.
    return torch.stack([(mask & (label == c)).sum() for c in range(classes)])
