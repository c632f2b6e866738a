"""U²PL: CutMix, and a contrastive loss with unreliable pixels as negatives (Sec. 3.3, Algorithm 1)."""

from typing import ClassVar

from u2pl.methods.base import method
from u2pl.methods.contrast import Contrast
from u2pl.methods.cutmix import CutMix
from u2pl.settings import Settings
from u2pl.settings.hyper import U2PLSettings


@method("u2pl")
class U2PL(Contrast, CutMix):
    """L_s + lambda_u L_u + lambda_c L_c (Eq. 1)."""

    settings_class: ClassVar[type[Settings]] = U2PLSettings
