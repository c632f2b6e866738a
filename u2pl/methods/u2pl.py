"""U²PL: CutMix, and a contrastive loss with unreliable pixels as negatives (Sec. 3.3, Algorithm 1)."""

from typing import ClassVar

from u2pl.methods.base import method
from u2pl.methods.contrast import Contrast, ContrastSettings
from u2pl.methods.cutmix import CutMix, CutMixSettings
from u2pl.settings import Settings


class U2PLSettings(ContrastSettings, CutMixSettings):
    """Hyper-parameters of U²PL."""


@method("u2pl")
class U2PL(Contrast, CutMix):
    """L_s + lambda_u L_u + lambda_c L_c (Eq. 1)."""

    settings_class: ClassVar[type[Settings]] = U2PLSettings
