"""U²PL on AEL (Table 3): AEL's augmentation, sampling and weights; U²PL's partition by entropy and contrastive loss."""

from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor

from u2pl import processes
from u2pl.batches.loader import Batch
from u2pl.errors import UsageError
from u2pl.losses import partition
from u2pl.methods.ael import AEL, AELTargets
from u2pl.methods.base import Classes, Step
from u2pl.methods.registry import method
from u2pl.methods.u2pl import Contrast
from u2pl.models.deeplab import Output
from u2pl.settings import Recipe, Settings
from u2pl.settings.hyper import U2PLAELSettings


@method("u2pl-ael")
class U2PLAEL(AEL):
    """L_s + alpha_w L_cons + lambda_c L_c."""

    settings_class: ClassVar[type[Settings]] = U2PLAELSettings
    settings: U2PLAELSettings
    has_representation = True

    def __init__(self, classes: Classes, recipe: Recipe, settings: U2PLAELSettings):
        super().__init__(classes, recipe, settings)
        self.contrast = Contrast(classes, recipe, settings)
        self.bank = self.contrast.bank

    @classmethod
    def check(cls, classes: Classes, recipe: Recipe, settings: Any) -> None:
        """Refuse a contrastive loss that never begins, too, and ranks that leave no unlabelled negatives."""
        super().check(classes, recipe, settings)
        Contrast.check(classes, settings)
        if settings.lambda_c > 0 and settings.contrast_from >= recipe.epochs:
            raise UsageError(
                f"With contrast_from={settings.contrast_from} none of {recipe.epochs} epochs has a contrastive loss. "
                "Use an earlier one: --set contrast_from=1, or --set lambda_c=0"
            )

    def targets(self, batch: Batch, step: Step) -> AELTargets:
        """AEL's, of which the unreliable pixels are left out (Eq. 6), and U²PL's pixels to compare (Eqs. 9 to 16)."""
        found = self.pseudo_labeled(batch, step)
        if self.contrasts(step):
            found = self.contrast.added(found, step)
        found.diagnostics.update(
            alpha_t=self.alpha_t(step),  # Eq. 7
            gamma_t=processes.gather(found.gamma_t).mean(),
        )
        return self.weighted(found, step)

    def losses(self, student: Output, targets: AELTargets) -> dict[str, Tensor]:
        """L_s, alpha_w L_cons and lambda_c L_c (Eq. 4)."""
        return super().losses(student, targets) | self.contrast.losses(student, targets)

    def filtered(self, targets: AELTargets, step: Step) -> AELTargets:
        """Without pseudo-labels for unreliable pixels (Eq. 6)."""
        s, ignore, unlabeled = self.settings, self.classes.ignore_index, targets.unlabeled
        label, alpha_t = targets.pseudo_label, self.alpha_t(step)
        gamma_t = self.threshold(unlabeled, 1 - alpha_t)
        if s.entropy_filter == "highest":
            reliable = partition.pseudo_label(label, unlabeled.entropy, gamma_t, ignore)
            usable = unlabeled.valid
        else:
            reliable = label.where(unlabeled.entropy >= self.threshold(unlabeled, alpha_t), ignore)
            usable = reliable != ignore
        if not s.contrast_dpa:
            alpha_t = s.alpha0
            gamma_t = self.threshold(unlabeled, 1 - alpha_t)
        return replace(targets, pseudo_label=reliable, alpha_t=alpha_t, gamma_t=gamma_t, usable=usable)

    def contrasts(self, step: Step) -> bool:
        """Whether a step has the contrastive loss: from the given epoch on."""
        return self.settings.lambda_c > 0 and step.epoch >= self.settings.contrast_from

    def teacher_sees_both(self, step: Step) -> bool:
        """Too where its representations are compared."""
        return super().teacher_sees_both(step) or self.contrasts(step)
