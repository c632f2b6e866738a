"""U²PL on AEL (Table 3): AEL's augmentation, sampling and weights; U²PL's partition by entropy and contrastive loss."""

from dataclasses import replace
from typing import Any, ClassVar

from u2pl.errors import UsageError
from u2pl.losses import partition
from u2pl.methods.ael import AEL
from u2pl.methods.base import Classes, Step, method
from u2pl.methods.contrast import Contrast
from u2pl.methods.teaching import More, Scene, alpha_of
from u2pl.settings import Recipe, Settings
from u2pl.settings.hyper import U2PLAELSettings


@method("u2pl-ael")
class U2PLAEL(Contrast, AEL):
    """L_s + alpha_w L_cons + lambda_c L_c."""

    settings_class: ClassVar[type[Settings]] = U2PLAELSettings
    settings: U2PLAELSettings

    @classmethod
    def check(cls, classes: Classes, recipe: Recipe, settings: Any) -> None:
        """Refuse a contrastive loss that never begins."""
        super().check(classes, recipe, settings)
        if settings.lambda_c > 0 and settings.contrast_from >= recipe.epochs:
            raise UsageError(
                f"With contrast_from={settings.contrast_from} none of {recipe.epochs} epochs has a contrastive loss. "
                "Use an earlier one: --set contrast_from=1, or --set lambda_c=0"
            )

    def filtered(self, scene: Scene, step: Step) -> Scene:
        """Without pseudo-labels for unreliable pixels (Eq. 6)."""
        s, ignore, pseudo = self.settings, self.classes.ignore_index, scene.pseudo
        alpha = alpha_of(s, step)
        gamma_B11 = self.threshold(pseudo, 1 - alpha)
        if s.entropy_filter == "highest":
            reliable = partition.pseudo_label(scene.target, pseudo.entropy, gamma_B11, ignore)
            usable = pseudo.valid
        else:
            least_B11 = self.threshold(pseudo, alpha)
            reliable = scene.target.where(pseudo.entropy >= least_B11, ignore)
            usable = reliable != ignore
        if not s.contrast_dpa:
            alpha = s.alpha0
            gamma_B11 = self.threshold(pseudo, 1 - alpha)
        return replace(scene, target=reliable, alpha=alpha, gamma_B11=gamma_B11, usable=usable)

    def contrasts(self, step: Step) -> bool:
        """From the given epoch on."""
        return super().contrasts(step) and step.epoch >= self.settings.contrast_from

    def more(self, scene: Scene, step: Step) -> More:
        """The contrastive loss, and what the partition is."""
        found = super().more(scene, step)
        alpha, gamma = alpha_of(self.settings, step), scene.gamma_B11.mean()
        return replace(found, health={"alpha_t": alpha, "gamma_t": gamma, **found.health})
