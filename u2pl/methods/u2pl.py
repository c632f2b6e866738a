"""U²PL: CutMix, and a contrastive loss with unreliable pixels as negatives (Sec. 3.3, Algorithm 1)."""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from u2pl.data.loader import Batch
from u2pl.errors import UsageError
from u2pl.losses import contrastive
from u2pl.losses.memory_bank import MemoryBank
from u2pl.losses.partition import percentile
from u2pl.methods.base import Classes, Step, StepResult, method
from u2pl.methods.cutmix import CutMix, CutMixSettings
from u2pl.methods.mt import MeanTeacherSettings, Pseudo
from u2pl.models.deeplab import Output
from u2pl.settings import Recipe, Settings


class U2PLSettings(CutMixSettings):
    """Hyper-parameters of U²PL (Table A1)."""

    lambda_c: float = Field(ge=0)
    """Weight of the contrastive loss (Eq. 1); 0 leaves CutMix."""
    M: int = Field(ge=1)
    """Anchors of a class."""
    N: int = Field(ge=1)
    """Negatives of an anchor."""
    tau: float = Field(gt=0)
    """Temperature (Eq. 4)."""
    delta_p: float = Field(ge=0, lt=1)
    """Teacher probability of its class that an anchor must exceed (Eqs. 9, 10)."""
    r_l: int = Field(ge=0)
    """Low rank threshold (Eqs. 14, 15)."""
    r_h: int = Field(ge=1)
    """High rank threshold (Eq. 15)."""
    negatives: Literal["unreliable", "reliable", "all"]
    """Unlabelled pixels that become negatives (Table 4): the alpha_t of highest entropy, of lowest, or all."""
    queue: int = Field(ge=1)
    """Negatives kept of a class. Memory: queue x representation x 4 bytes x classes."""
    queue_background: int = Field(ge=1)
    """The same for class 0 where it is a background."""


@method("u2pl")
class U2PL(CutMix):
    """L_s + lambda_u L_u + lambda_c L_c (Eq. 1)."""

    settings_class: ClassVar[type[Settings]] = U2PLSettings
    settings: U2PLSettings
    has_representation = True

    def __init__(self, classes: Classes, recipe: Recipe, settings: U2PLSettings):
        super().__init__(classes, recipe, settings)
        capacities = [settings.queue] * classes.count
        if classes.background:
            capacities[0] = settings.queue_background
        self.bank = MemoryBank(capacities, recipe.representation)

    @classmethod
    def check(cls, classes: Classes, recipe: Recipe, settings: MeanTeacherSettings) -> None:
        """Refuse ranks that leave no unlabelled negatives."""
        super().check(classes, recipe, settings)
        assert isinstance(settings, U2PLSettings)
        if settings.r_l >= classes.count or settings.r_h <= settings.r_l:
            raise UsageError(
                f"With {classes.count} classes, r_l = {settings.r_l} and r_h = {settings.r_h} no unreliable pixel "
                f"can be a negative (Eq. 15). Use: --set u2pl.r_l=1 --set u2pl.r_h={max(classes.count, 2)}"
            )

    def more(
        self, batch: Batch, pseudo: Pseudo, output: Output, gamma: Tensor, alpha: float, step: Step
    ) -> StepResult:
        """lambda_c L_c: Algorithm 1 over the whole batch at once.

        Anchors are the student's representations and carry the gradient; centres and negatives are the teacher's.
        """
        s = self.settings
        assert output.representation is not None
        generator = device_generator(step.generator, gamma.device)
        size = output.logits.shape[2:]
        labels = [at_corners(label, size).flatten() for label in (batch.labeled_mask, pseudo.label)]
        entropy = at_corners(pseudo.entropy, size).flatten()

        with torch.no_grad():
            teacher = self.teacher(torch.cat([batch.labeled_image, pseudo.image]))
            assert teacher.representation is not None
            prob_PC = rows(teacher.logits.softmax(dim=1))
            representation_PD = rows(teacher.representation)
            order_PC = contrastive.class_order(prob_PC)

            anchor_PC = contrastive.anchor_mask(torch.cat(labels), prob_PC, s.delta_p)
            positive_CD, present_C = contrastive.centers(representation_PD, anchor_PC)

            chosen = self.chosen(entropy, gamma, alpha)
            on_labeled, on_unlabeled = order_PC.split([len(labels[0]), len(labels[1])])
            negative_PC = torch.cat(
                [
                    contrastive.labeled_negative_mask(labels[0], on_labeled, s.r_l),
                    contrastive.unlabeled_negative_mask(chosen, on_unlabeled, s.r_l, s.r_h),
                ]
            )
            self.bank.push(representation_PD, negative_PC)
            negative_CMND = self.bank.sample(s.M, s.N, generator)
            index_CM = contrastive.sample(anchor_PC, s.M, generator)

        anchor_CMD = rows(output.representation)[index_CM]
        use_C = present_C & (self.bank.filled_C > 0)
        loss = contrastive.info_nce(anchor_CMD, positive_CD, negative_CMND, use_C, s.tau)
        health: dict[str, Tensor | float] = {
            "contrast/classes": use_C.sum(),
            "bank/filled": self.bank.filled_C.sum() / self.bank.capacity_C.sum(),
        }
        return StepResult({"contrastive": s.lambda_c * loss}, health)

    def chosen(self, entropy: Tensor, gamma: Tensor, alpha: float) -> Tensor:
        """The unlabelled pixels that may become negatives (Eq. 15 and Table 4)."""
        if self.settings.negatives == "unreliable":
            return entropy > gamma
        everything = torch.ones_like(entropy, dtype=torch.bool)
        if self.settings.negatives == "reliable":
            return entropy < percentile(entropy, everything, alpha)
        return everything


def rows(map_BDHW: Tensor) -> Tensor:
    """(B, D, H, W) as one row a pixel, (B H W, D)."""
    return map_BDHW.permute(0, 2, 3, 1).flatten(0, 2)


def at_corners(map_BHW: Tensor, size: torch.Size) -> Tensor:
    """A pixel map at the heads' resolution: the values at the points that features lie on when corners are aligned."""
    y, x = (
        torch.linspace(0, old - 1, new, device=map_BHW.device).round().long()
        for old, new in zip(map_BHW.shape[1:], size, strict=True)
    )
    return map_BHW[:, y[:, None], x]


def device_generator(generator: torch.Generator, device: torch.device) -> torch.Generator:
    """A generator on `device` seeded from one on the CPU, so that draws there need no host round trip."""
    if device.type == generator.device.type:
        return generator
    seed = int(torch.randint(2**62, (), generator=generator))
    return torch.Generator(device).manual_seed(seed)
