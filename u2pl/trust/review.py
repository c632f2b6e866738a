"""Which predictions for somebody's images should be looked at first, and why."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from u2pl.data.pictures import read_image
from u2pl.errors import UsageError, UserError
from u2pl.exchange import model_file, trust_facts
from u2pl.exchange.model import Model, Pixels, Pooled
from u2pl.exchange.predictor import REVIEW, Item, overlay
from u2pl.exchange.trust_facts import TrustFacts
from u2pl.files import write_csv
from u2pl.project import Project
from u2pl.runs.stored_evaluation import run_path
from u2pl.trust import sheets
from u2pl.trust.findings import threshold_in_words
from u2pl.trust.looked import look_of
from u2pl.trust.novelty import Novelty
from u2pl.trust.thresholds import ImageThreshold

SHOWN = 20
"""Images on the contact sheet."""


class Reviewed(NamedTuple):
    """What is thought of one prediction."""

    file: Path
    reasons: tuple[str, ...]
    """Why it should be looked at; none where it need not be."""
    expected_miou: float
    """Percent; see `looked.Look`."""
    confidence: float
    """Mean calibrated confidence of its pixels."""
    low_confidence: float
    """Share of its pixels below the threshold for pixels."""
    novelty: float | None
    """Above 1 it is unlike the images with labels; None where too few of these were there to tell."""


@dataclass(frozen=True)
class Review:
    """All predictions, those that should be looked at first."""

    images: tuple[Reviewed, ...]
    words: str
    """What the threshold for images is worth."""

    @property
    def look(self) -> int:
        """How many should be looked at."""
        return sum(bool(each.reasons) for each in self.images)


def facts_for(text: str) -> TrustFacts:
    """What `u2pl check` found of a model, by its file or by its run in the project.

    Raises:
        UserError: there is no such model, or it was not checked.
    """
    if model_file.is_model_file(text):
        found = model_file.read_trust(Path(text))
        if found is None:
            raise UserError(
                f"{text} does not say how far its predictions can be believed. Where it was trained: u2pl check RUN, "
                "then take runs/RUN/RUN.u2pl again."
            )
        return found
    path = run_path(Project.find(), text)
    found = model_file.trust_of_run(path)
    if found is None:
        raise UserError(
            f"Nobody has looked yet at how far {path.name}'s predictions can be believed. Do so first: "
            f"u2pl check {path.name}"
        )
    return found


class Reviewer:
    """Sees each image as it is predicted, and says in the end which to look at.

    Args:
        facts: what `u2pl check` found of the network.

    Raises:
        UserError: the facts are damaged.
    """

    def __init__(self, facts: TrustFacts):
        self.facts = facts
        self.image = ImageThreshold(**facts["image"]) if facts["image"] else None
        self.pixel = facts["pixel"]["threshold"] if facts["pixel"] else None
        usual = facts["novelty"]
        self.usual = usual and Novelty(trust_facts.unpacked(usual), usual["neighbour"], usual["threshold"])
        self._seen: list[Reviewed] = []

    def see(self, item: Item, picture: Pixels, logits: Tensor, features: Pooled) -> None:
        """An image and its prediction, as `predictor.predict` tells of them."""
        look = look_of(item.name, logits, features, self.facts["temperature"], self.pixel)
        if self.usual is not None and self.usual.reference.shape[1] != len(look.middle):
            raise UserError("What u2pl check found is of another network. Make it again: u2pl check RUN")
        novelty = None if self.usual is None else float(self.usual.scores(look.middle[None])[0])
        self._seen.append(
            Reviewed(
                item.path,
                self._reasons(look.expected_miou, novelty),
                look.expected_miou,
                look.confidence,
                look.share_low,
                novelty,
            )
        )

    def _reasons(self, expected_miou: float, novelty: float | None) -> tuple[str, ...]:
        reasons = []
        if novelty is not None and novelty > 1:
            reasons.append(f"unlike the images with labels ({novelty:.2f} times the usual distance)")
        if self.image is not None and self.image.is_telling and expected_miou < self.image.threshold:
            reasons.append(f"expected mIoU {expected_miou:.1f} %, below {self.image.threshold:.1f} %")
        return tuple(reasons)

    def review(self) -> Review:
        """What was seen: unusual images first, then those of low expected mIoU, then the rest, the poorest first."""

        def key(each: Reviewed) -> tuple[bool, bool, float, str]:
            unusual = each.novelty is not None and each.novelty > 1
            return not each.reasons, not unusual, each.expected_miou, str(each.file)

        words = threshold_in_words(self.image, self.facts["validation_images"])
        if self.usual is None:
            words += " Too few images had labels to say which are unlike them."
        return Review(tuple(sorted(self._seen, key=key)), words)

    def write(
        self,
        review: Review,
        model: Model,
        out: Path,
        *,
        window: int | None = None,
        printable: Callable[[Path], str] = str,
    ) -> None:
        """Write review/review.csv, and review/review.png of the first `SHOWN` images.

        Args:
            review: what was made of them.
            model: predicts these again.
            out: folder of the results.
            window: as the images were predicted.
            printable: a path as text.
        """
        table, sheet = (out / name for name in REVIEW)
        write_csv(
            table,
            [
                ("file", "look", "expected_miou", "confidence", "low_confidence", "novelty", "reasons"),
                *(
                    (
                        printable(each.file),
                        "yes" if each.reasons else "no",
                        round(each.expected_miou, 2),
                        round(each.confidence, 4),
                        round(each.low_confidence, 4),
                        None if each.novelty is None else round(each.novelty, 4),
                        "; ".join(each.reasons),
                    )
                    for each in review.images
                ),
            ],
        )
        rows = [self._row(each, model, window, printable) for each in review.images[:SHOWN]]
        sheets.sheet(sheet, ("picture", "prediction", "uncertain pixels"), rows)

    def _row(
        self, each: Reviewed, model: Model, window: int | None, printable: Callable[[Path], str]
    ) -> sheets.Row:
        picture = read_image(each.file)
        logits = model.logits([picture], window)[0].float() / self.facts["temperature"]
        confidence, classes = (part.cpu() for part in logits.softmax(dim=0).max(dim=0))
        predicted = overlay(picture, classes.to(torch.uint8).numpy(), model.description)
        uncertain: np.ndarray = confidence.numpy() < (self.pixel or 0)
        pictures = (picture, predicted, sheets.marked(picture, uncertain))
        return sheets.Row(printable(each.file), "; ".join(each.reasons) or "need not be looked at", pictures)


def check_place(out: Path) -> None:
    """See to it that a review can be written to a folder.

    Raises:
        UsageError: something else lies there.
    """
    folder = out / "review"
    if folder.exists() and (
        not folder.is_dir() or (any(folder.iterdir()) and not (out / REVIEW[0]).is_file())
    ):
        raise UsageError(
            f"{folder} is something that u2pl predict did not write. Name another folder with --out."
        )
