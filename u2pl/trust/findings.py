"""What an examination of a finished run finds: everything a page or a terminal shows of it, and the words for it."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from u2pl.trust.calibration import Calibration
from u2pl.trust.label_quality import Region
from u2pl.trust.near_duplicates import Pair
from u2pl.trust.thresholds import FEW, ImageThreshold, PixelThreshold

LABELED, UNLABELED, VAL = "labelled", "unlabelled", "validation"
"""What lists of a split are called."""

MANY = 0.25
"""Share of the validation images from which near duplicates are no accident."""


class Novel(NamedTuple):
    """A picture unlike those with labels."""

    image: str
    list: str
    novelty: float
    """Distance of its feature to the nearest ones with labels; 1 is what 99 % of usual images stay below."""


class DoubtfulMask(NamedTuple):
    """A mask, and how far the network agrees with it."""

    image: str
    list: str
    """`labelled`, which the network has learned from, or `validation`, which says more."""
    score: float
    """0 to 1, softmin over its pixels of the calibrated probability of the class it gives; a low one is doubtful."""
    disagreeing: float
    """Share of its pixels, of those that have a class, for which another class is likelier than not."""
    regions: tuple[Region, ...]
    """Where, the largest first."""


@dataclass(frozen=True)
class Trust:
    """What `report.examine` found of a finished run."""

    run: str
    folder: Path
    """Where the tables and sheets are: near_duplicates.csv, masks.csv, regions.csv, novel.csv, reliability.csv,
    images.csv, masks.png, check.json."""
    classes: tuple[str, ...]
    labeled: int
    unlabeled: int
    validation: int
    calibration: Calibration | None
    """Temperature, calibration error before and after, bins; None without a validation pixel that has a class."""
    image: ImageThreshold | None
    """Below which expected mIoU a picture should be looked at; None of too few validation images."""
    pixel: PixelThreshold | None
    novelty_threshold: float | None
    """None of too few labelled images: then nothing is said of novelty."""
    novel: tuple[Novel, ...]
    """Unlabelled images above it, the most unlike ones first."""
    near_duplicates: tuple[Pair, ...]
    """Those with validation images, which are leaks, first."""
    masks: tuple[DoubtfulMask, ...]
    """All that were looked at, the most doubtful first."""
    unreadable: tuple[tuple[str, str], ...]
    """Names and reasons."""

    @property
    def leaks(self) -> tuple[Pair, ...]:
        """Near duplicates of validation images among those that are trained on."""
        return tuple(pair for pair in self.near_duplicates if VAL in pair.lists)

    def leaks_in_words(self) -> str:
        """How many validation images are as good as trained on, and whether that may be how pictures are taken."""
        leaked = len({pair.image if pair.lists[0] == VAL else pair.other for pair in self.leaks})
        has = "has" if leaked == 1 else "have"
        words = (
            f"Of {self.validation} validation images {leaked} {has} a near duplicate among those trained on"
        )
        if not leaked:
            return f"{words}."
        if leaked < MANY * self.validation:
            return f"{words}: the score is too good by what they bring."
        return (
            f"{words}. These are so many that pictures of this data set look alike in any case, as from a camera that "
            "stands still: the score holds for such pictures, and says nothing of others."
        )

    def calibration_in_words(self) -> str:
        """How far a probability can be believed."""
        found = self.calibration
        if found is None:
            return "No validation pixel has a class, so nothing is known of how far its probabilities can be believed."
        way = "too sure of itself" if found.temperature > 1 else "less sure than it could be"
        words = (
            f"The network's confidence and its accuracy differ by {100 * found.ece_before:.1f} points on average "
            f"(expected calibration error, {found.images} validation image{'s' if found.images != 1 else ''})"
        )
        if found.ece_after is None:
            return f"{words}; one image alone cannot tell what a temperature would be worth."
        after = f"with logits divided by {found.temperature:.2f} by {100 * found.ece_after:.1f}"
        held = "each half of the images measured with the temperature of the other"
        if found.ece_after >= found.ece_before:
            return f"{words}, {after} ({held}): a temperature improves nothing here."
        return f"{words}, {after} ({held}): it is {way}."

    def threshold_in_words(self) -> str:
        """Which pictures should be looked at, and how sure that is."""
        return threshold_in_words(self.image, self.validation)

    def pixel_in_words(self) -> str:
        """Which pixels should be looked at, and how sure that is."""
        found = self.pixel
        if found is None:
            return "No validation pixel is predicted wrongly, or none has a class: there is no threshold for pixels."
        return (
            f"Pixels with a confidence below {found.threshold:.2f} should be looked at: on validation images they were "
            f"{100 * found.flagged:.0f} % of all pixels and {100 * found.wrong_found:.0f} % of the wrong ones, and "
            f"{100 * found.wrong_of_flagged:.0f} % of them were wrong."
        )


def threshold_in_words(found: ImageThreshold | None, validation: int) -> str:
    """As `Trust.threshold_in_words`.

    Args:
        found: the threshold.
        validation: how many validation images there are.
    """
    if found is None:
        return (
            f"With {validation} validation image{'s' if validation != 1 else ''}, fewer than {FEW}, nobody can tell "
            "from which expected mIoU on a picture is good: the order alone says which to look at first."
        )
    if not found.is_telling:
        return (
            f"The expected mIoU does not tell which pictures are poor: over {found.images} validation images its rank "
            f"correlation with the true mIoU is {found.spearman:.2f}, no more than chance. No picture is named for it."
        )
    return (
        f"Pictures with an expected mIoU below {found.threshold:.1f} % should be looked at: of the poorest fifth of "
        f"the {found.images} validation images (mIoU up to {found.poor_below:.0f} %) {100 * found.found:.0f} % were "
        f"among them, at the price of looking at {100 * found.flagged:.0f} % of all (rank correlation with the true "
        f"mIoU {found.spearman:.2f})."
    )
