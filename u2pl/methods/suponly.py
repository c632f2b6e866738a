"""SupOnly: the labelled images alone, the baseline of every table."""

from u2pl.methods.base import Method
from u2pl.methods.registry import method
from u2pl.settings.hyper import SupOnlySettings


@method("suponly")
class SupOnly(Method):
    """L_s: cross-entropy on the labelled images (Eq. 2), which is what every method begins with."""

    settings_class = SupOnlySettings
    uses_unlabeled = False
    settings: SupOnlySettings

    @classmethod
    def epoch_follows_labeled(cls, settings: SupOnlySettings) -> bool:
        """As the setting says."""
        return settings.epoch == "labeled"
