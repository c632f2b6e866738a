"""Where two runs differ on validation images: which images show it, and which regions of them (Figs. 4 and A1)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from u2pl.batches.validation import scored_mask
from u2pl.data.description import Progress
from u2pl.errors import UsageError
from u2pl.evidence.figure_runs import LoadedRun, evenly_spaced
from u2pl.inference.evaluator import class_scores, predictions, protocol
from u2pl.runs.results import scored_image

ROWS = 4
_REGIONS = 3
"""Most rectangles of a kind in an image."""
_LEAST = 0.003
"""Share of the image's pixels that a region must have to get one."""


class Box(NamedTuple):
    """A rectangle of pixels."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Row:
    """One validation image."""

    image: str
    change: float
    """Right pixels of the last run less those of the first, in percentage points of the pixels with a label."""
    picture_HW3: NDArray[np.uint8]
    truth_HW: NDArray[np.int64]
    predictions: list[NDArray[np.int64]]
    """(H, W), one a run."""
    gains: list[Box]
    """Where the last run is right and the first is wrong, the largest first."""
    losses: list[Box]
    """Where the first is right and the last is wrong."""


@dataclass(frozen=True)
class Comparison:
    """Some runs on some validation images."""

    dataset: str
    labels: list[str]
    classes: list[str]
    colors: list[tuple[int, int, int]]
    rows: list[Row]
    looked_at: int


def compare(
    runs: Sequence[LoadedRun],
    *,
    images: int | None = None,
    rows: int = ROWS,
    progress: Progress = lambda *_: None,
) -> Comparison:
    """Show runs on the validation images where the last differs most from the first.

    Of `rows` images the last is the one where the last run loses most pixels to the first (or gains least), and the
    others are those where it gains most; of equal ones the first in the list. No two are close together in the list,
    where the frames of a film are: see `most_different`.

    Args:
        runs: at least two runs of one data set.
        images: choose among so many images, evenly spread over the list; None: among all.
        rows: how many to show.
        progress: told how many images are done.

    Raises:
        UsageError: the runs have other validation images, or are scored by different protocols.
    """
    first, last = runs[0], runs[-1]
    for other in runs[1:]:
        if other.split.val != first.split.val:
            raise UsageError(
                f"{first.folder.name} and {other.folder.name} have different validation images. Name runs of one split."
            )
        if protocol(other.recipe) != protocol(first.recipe):
            raise UsageError(
                f"{first.folder.name} is scored by {protocol(first.recipe)}, and {other.folder.name} by "
                f"{protocol(other.recipe)}. Name runs that are scored alike."
            )
    names = evenly_spaced(first.split.val, images)
    total = 2 * len(names)
    right = {}
    for number, run in enumerate((first, last)):

        def tell(done: int, before: int = number * len(names)) -> None:
            progress("comparing on validation images", before + done, total)

        right[number] = right_shares(run, names, tell)
    change = {name: right[1][name] - right[0][name] for name in names}
    shown = most_different(change, rows)
    seen = [predictions(run.network, run.split, run.recipe, shown) for run in runs]
    return Comparison(
        dataset=first.split.dataset,
        labels=[run.label for run in runs],
        classes=first.split.classes,
        colors=first.split.colors,
        rows=[
            _row(last, name, change[name], [prediction[name].numpy() for prediction in seen])
            for name in shown
        ],
        looked_at=len(names),
    )


def right_shares(
    run: LoadedRun, names: Sequence[str], progress: Callable[[int], None] = lambda done: None
) -> dict[str, float]:
    """Of each image the percentage of its pixels with a label that are predicted right; 0 where none has one."""
    shares: dict[str, float] = {}
    for some, masks, logits in class_scores(run.network, run.split, run.recipe, names):
        masks = masks.to(logits.device)
        known = (masks != run.split.ignore_index).flatten(1).sum(dim=1)
        hits = (logits.argmax(dim=1) == masks).flatten(1).sum(dim=1)
        shares |= zip(some, (100 * hits / known.clamp(min=1)).double().tolist(), strict=True)
        progress(len(shares))
    return shares


def most_different(change: dict[str, float], rows: int) -> list[str]:
    """The images of the `rows` - 1 highest changes, the highest first, and that of the lowest; equal ones in order.

    One that lies within a tenth of the list of one chosen before is passed over. The lowest is chosen first.

    Args:
        change: of each image, in the order of the list.
        rows: how many at most.
    """
    place = {name: k for k, name in enumerate(change)}
    apart = max(1, len(change) // 10)
    ranked = sorted(change, key=lambda name: -change[name])
    chosen = ranked[-1:] if rows > 1 else []
    for name in ranked:
        if len(chosen) == rows:
            break
        if all(abs(place[name] - place[other]) >= apart for other in chosen):
            chosen.append(name)
    return sorted(chosen, key=ranked.index)


def regions(differs_HW: NDArray[np.bool_], most: int = _REGIONS, least: float = _LEAST) -> list[Box]:
    """Bounding boxes of the largest connected regions of a mask, the largest first.

    Where two predictions differ along a border, that is a line of a pixel or two and no region: the mask is eroded and
    dilated again before its parts, which touch at sides or corners, are told apart.

    Args:
        differs_HW: the mask.
        most: how many boxes at most.
        least: share of the mask's area that a region must have.
    """
    steps = max(1, min(differs_HW.shape) // 128)
    opened = ndimage.binary_opening(differs_HW, np.ones((3, 3), bool), iterations=steps)
    labels, count = ndimage.label(opened, np.ones((3, 3), int))
    sizes = np.bincount(labels.reshape(-1), minlength=count + 1)[1:]
    chosen = [k for k in np.argsort(-sizes, kind="stable")[:most] if sizes[k] >= least * differs_HW.size]
    places = ndimage.find_objects(labels)
    return [
        Box(rows.start, columns.start, rows.stop - rows.start, columns.stop - columns.start)
        for rows, columns in (places[k] for k in chosen)
    ]


def _row(run: LoadedRun, name: str, change: float, predicted: list[NDArray[np.int64]]) -> Row:
    truth_HW = scored_mask(run.split, run.recipe, name).numpy()
    known = truth_HW != run.split.ignore_index
    first, last = (known & (predicted[k] == truth_HW) for k in (0, -1))
    return Row(
        image=name,
        change=change,
        picture_HW3=scored_image(run.split, run.recipe, name),
        truth_HW=truth_HW,
        predictions=predicted,
        gains=regions(last & ~first),
        losses=regions(known & first & ~last),
    )
