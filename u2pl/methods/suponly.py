"""SupOnly: the labelled images alone, the baseline of every table."""

from collections.abc import Iterator
from typing import Any

from u2pl.batches.loader import Batch
from u2pl.methods.base import Classes, Method, Step, StepResult, method
from u2pl.models.deeplab import DeepLabV3Plus
from u2pl.settings import Recipe
from u2pl.settings.hyper import SupOnlySettings


@method("suponly")
class SupOnly(Method):
    """Cross-entropy on the labelled images (Eq. 2)."""

    settings_class = SupOnlySettings
    uses_unlabeled = False
    settings: SupOnlySettings

    def __init__(self, classes: Classes, recipe: Recipe, settings: SupOnlySettings):
        super().__init__(classes, recipe, settings)
        self.student = DeepLabV3Plus(classes.count, recipe, representation=False)

    def parts(self, batch: Batch, step: Step) -> Iterator[StepResult]:
        """L_s (Eq. 2)."""
        return self.supervised_parts(self.student, batch, step)

    def evaluated(self, epoch: int) -> tuple[str, DeepLabV3Plus]:
        """The student."""
        return "student", self.student

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The student's."""
        return self.student.parameter_groups(self.recipe.lr, self.recipe.head_lr_multiplier)

    @classmethod
    def epoch_follows_labeled(cls, settings: SupOnlySettings) -> bool:
        """As the setting says."""
        return settings.epoch == "labeled"
