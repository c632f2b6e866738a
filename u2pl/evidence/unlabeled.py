"""Which pixels of the unlabelled images are reliable: counted class by class (Fig. 1), and shown in one image (Fig. 2).

A set of ten thousand images is looked at once and never held: entropies are counted in narrow bins, and the threshold
of Eq. 6 is the edge of one of them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from u2pl.data.description import Progress
from u2pl.data.prepared import Split
from u2pl.errors import UsageError, UserError
from u2pl.evidence.figure_runs import LoadedRun, evenly_spaced
from u2pl.inference import scores
from u2pl.inference.evaluator import class_scores
from u2pl.losses import partition

BINS = 2**18
"""Of entropy; where a network has hardly learnt, and all entropies are alike, each has under 0.1 % of the pixels."""
IMAGES_FOR_ONE = 100
"""How many images `image_reliability` chooses among and takes its threshold from, if nothing else is said."""
_VISIBLE = 0.01
"""Share of an image's pixels from which on a class counts as shown."""


@dataclass(frozen=True)
class ClassReliability:
    """Of each class, how many pixels are reliable and how well it is recognised (Fig. 1)."""

    label: str
    """Of the run."""
    dataset: str
    split: str
    classes: list[str]
    reliable_C: NDArray[np.int64]
    """Pixels with an entropy below the threshold (Eq. 6)."""
    unreliable_C: NDArray[np.int64]
    iou_C: NDArray[np.float64] | None
    """Percent, NaN of a class that nowhere occurs; None where no image has a mask."""
    alpha: float
    gamma: float
    """Nats."""
    reliable_share: float
    """Of all pixels, those of no known class too; 1 - alpha but for the pixels of a bin."""
    images: int

    @property
    def by_truth(self) -> bool:
        """Whether pixels are counted by their true class, and not by the predicted one."""
        return self.iou_C is not None


@dataclass(frozen=True)
class PixelPrediction:
    """What the network predicts for one pixel."""

    row: int
    column: int
    entropy: float
    """Nats."""
    prob_C: NDArray[np.float32]
    truth: int | None
    """None where it is not known."""


@dataclass(frozen=True)
class ImageReliability:
    """One unlabelled image, its entropies and its pseudo-labels (Fig. 2)."""

    label: str
    """Of the run."""
    image: str
    classes: list[str]
    colors: list[tuple[int, int, int]]
    picture_HW3: NDArray[np.uint8]
    entropy_HW: NDArray[np.float32]
    """Nats."""
    label_HW: NDArray[np.int64]
    """The likeliest class, reliable or not."""
    reliable_HW: NDArray[np.bool_]
    alpha: float
    gamma: float
    looked_at: int
    """Images that the threshold is of."""
    reliable: PixelPrediction | None
    unreliable: PixelPrediction | None
    """None where the image has no such pixel."""


@dataclass(frozen=True)
class EntropyHistogram:
    """The entropies of many images, counted by class, and what else is known of them without keeping them."""

    counts_GK: Tensor
    """Pixels by group and bin of entropy, int64: a group for each class, and the last one for unknown ones."""
    edges_K: Tensor
    """Lower edge of each bin, and the upper one of the last, (BINS + 1,)."""
    confusion_CC: Tensor
    shown: dict[str, tuple[int, float]]
    """Image -> how many classes are predicted in at least 1 % of it, and its mean entropy."""

    def threshold(self, alpha: float) -> int:
        """The edge of bins below which a share of 1 - alpha of all pixels lies, as nearly as there is one."""
        below_K = torch.cat([torch.zeros(1, dtype=torch.int64), self.counts_GK.sum(0).cumsum(0)])
        return int((below_K - (1 - alpha) * below_K[-1]).abs().argmin())


def entropy_edges(classes: int, bins: int = BINS) -> Tensor:
    """Edges of bins that cover all entropies of so many classes, (bins + 1,) float32, in nats.

    They lie closer together the lower the entropy, where a trained network has most of its pixels: a bin's width is at
    most 2 sqrt(H log C) / bins.
    """
    edges = math.log(classes) * (torch.arange(bins + 1, dtype=torch.float64) / bins) ** 2
    edges[-1] += 0.01  # rounding takes an entropy a little beyond log C
    return edges.float()


def entropy_histogram(
    run: LoadedRun, names: Sequence[str], by_truth: bool, progress: Progress = lambda *_: None
) -> EntropyHistogram:
    """Count the entropies of images, each of which goes through the network once.

    Args:
        run: whose network predicts.
        names: training images of its split.
        by_truth: group pixels by true class; otherwise by predicted class.
        progress: told how many images are done.
    """
    split = run.split
    classes, device = len(split.classes), next(run.network.parameters()).device
    edges_K = entropy_edges(classes).to(device)
    counts = torch.zeros((classes + 1) * BINS, dtype=torch.int64, device=device)
    confusion_CC = torch.zeros(classes, classes, dtype=torch.int64, device=device)
    shown: dict[str, tuple[int, float]] = {}
    for some, masks, logits in class_scores(run.network, split, run.recipe, names):
        label_BHW, entropy_BHW, _ = partition.predict(logits)
        truth_BHW = masks.to(device)
        confusion_CC += scores.confusions(label_BHW, truth_BHW, classes, split.ignore_index).sum(0)
        group = truth_BHW.where(truth_BHW != split.ignore_index, classes) if by_truth else label_BHW
        places = group * BINS + torch.bucketize(entropy_BHW, edges_K[1:-1], right=True)
        # In place: bincount would fill as many bins anew for every few images.
        counts.scatter_add_(0, places.flatten(), torch.ones_like(places.flatten()))
        area = label_BHW[0].numel()
        found = [torch.bincount(label.flatten(), minlength=classes) >= _VISIBLE * area for label in label_BHW]
        means = entropy_BHW.double().mean(dim=(1, 2)).tolist()
        shown |= {name: (int(each.sum()), mean) for name, each, mean in zip(some, found, means, strict=True)}
        progress("looking at unlabelled images", len(shown), len(names))
    return EntropyHistogram(counts.view(-1, BINS).cpu(), edges_K.cpu(), confusion_CC.cpu(), shown)


def class_reliability(
    run: LoadedRun,
    *,
    alpha: float | None = None,
    images: int | None = None,
    progress: Progress = lambda *_: None,
) -> ClassReliability:
    """Count the reliable and unreliable pixels of each class in the unlabelled images that have masks.

    Where none has one, in all of them, by predicted class. The counts are exact for the threshold that is used; this
    one lies within a bin of the quantile of Eq. 6.

    Args:
        alpha: share of unreliable pixels; the run's own alpha0 if nothing else is said.
        images: look at so many images, evenly spread over the list.
        progress: told how many are done.

    Raises:
        UserError: the split has no unlabelled images, or the run no alpha0 and none is named.
    """
    run, alpha = run.whole(), alpha_of(run, alpha)
    names, by_truth = _unlabeled(run.split)
    found = entropy_histogram(run, evenly_spaced(names, images), by_truth, progress)
    edge = found.threshold(alpha)
    counts_GK = found.counts_GK
    reliable_G, all_G = counts_GK[:, :edge].sum(1), counts_GK.sum(1)
    return ClassReliability(
        label=run.label,
        dataset=run.split.dataset,
        split=run.split.split,
        classes=run.split.classes,
        reliable_C=reliable_G[:-1].numpy(),
        unreliable_C=(all_G - reliable_G)[:-1].numpy(),
        iou_C=scores.iou(found.confusion_CC).numpy() if by_truth else None,
        alpha=alpha,
        gamma=float(found.edges_K[edge]),
        reliable_share=float(reliable_G.sum() / all_G.sum()),
        images=len(found.shown),
    )


def image_reliability(
    run: LoadedRun,
    *,
    image: str | None = None,
    alpha: float | None = None,
    images: int | None = IMAGES_FOR_ONE,
    progress: Progress = lambda *_: None,
) -> ImageReliability:
    """Show what is reliable in one unlabelled image.

    Without a name that is, among the images looked at, the one in which most classes are predicted (in 1 % of it each);
    of several the one of highest mean entropy; of several the first by name. The pixels are typical, not striking: of
    all reliable ones (but of a background, if there are others), and of all unreliable ones, the one of median entropy.

    Args:
        image: an unlabelled image of its split.
        alpha: as in `class_reliability`.
        images: so many images, evenly spread, give the threshold, and the choice; None: all.
        progress: told how many are done.

    Raises:
        UserError: as in `class_reliability`, or there is no such image.
    """
    run, alpha, split = run.whole(), alpha_of(run, alpha), run.split
    names, _ = _unlabeled(split)
    if image is not None and image not in split.unlabeled:
        near = get_close_matches(image, split.unlabeled, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UsageError(
            f"Split {split.split!r} of {split.dataset!r} has no unlabelled image {image!r}.{hint} "
            f"Their names stand in {run.folder / 'unlabeled.txt'}."
        )
    found = entropy_histogram(run, evenly_spaced(names, images), False, progress)
    if image is None:
        image = min(found.shown, key=lambda name: (-found.shown[name][0], -found.shown[name][1], name))
    gamma = found.edges_K[found.threshold(alpha)]
    ((_, masks, logits),) = class_scores(run.network, split, run.recipe, [image])
    label_BHW, entropy_BHW, _ = partition.predict(logits)
    label_HW, entropy_HW = label_BHW[0].cpu(), entropy_BHW[0].cpu()
    prob_CHW = logits[0].softmax(dim=0).cpu().numpy()
    reliable_HW = entropy_HW < gamma

    def median_prediction(mask_HW: Tensor) -> PixelPrediction | None:
        row, column = median_pixel(entropy_HW.numpy(), mask_HW.numpy()) or (-1, -1)
        if row < 0:
            return None
        truth = int(masks[0, row, column])
        return PixelPrediction(
            row,
            column,
            float(entropy_HW[row, column]),
            prob_CHW[:, row, column],
            None if truth == split.ignore_index else truth,
        )

    foreground_HW = reliable_HW & (label_HW != 0) if split.background else reliable_HW
    return ImageReliability(
        label=run.label,
        image=image,
        classes=split.classes,
        colors=split.colors,
        picture_HW3=split.image(image),
        entropy_HW=entropy_HW.numpy(),
        label_HW=label_HW.numpy(),
        reliable_HW=reliable_HW.numpy(),
        alpha=alpha,
        gamma=float(gamma),
        looked_at=len(found.shown),
        reliable=median_prediction(foreground_HW) or median_prediction(reliable_HW),
        unreliable=median_prediction(~reliable_HW),
    )


def median_pixel(value_HW: NDArray[np.float32], mask_HW: NDArray[np.bool_]) -> tuple[int, int] | None:
    """Row and column of the pixel of median value in a mask, the lower one of two; None in an empty mask."""
    places = np.flatnonzero(mask_HW)
    if len(places) == 0:
        return None
    order = np.argsort(value_HW.reshape(-1)[places], kind="stable")
    row, column = divmod(int(places[order[(len(places) - 1) // 2]]), value_HW.shape[1])
    return row, column


def alpha_of(run: LoadedRun, alpha: float | None) -> float:
    """The share of unreliable pixels that is asked for, or the run's own alpha0.

    Raises:
        UsageError: it is no share, or none is named and the run's method has none.
    """
    if alpha is None:
        alpha = run.record["hyper"].get("alpha0")
    if alpha is None:
        raise UsageError(
            f"{run.folder.name} has no alpha0: its method ({run.record['method']}) parts no pixels. "
            "Say how many are to count as unreliable, such as the paper's: --alpha 0.2"
        )
    if not 0 <= alpha <= 1:
        raise UsageError(f"--alpha is a share from 0 to 1, not {alpha:g}. The paper's: --alpha 0.2")
    return alpha


def _unlabeled(split: Split) -> tuple[list[str], bool]:
    """The unlabelled images to look at, and whether they have masks: those that have one, or all if none has."""
    if not split.unlabeled:
        raise UserError(
            f"Split {split.split!r} of {split.dataset!r} has no unlabelled images. Name a run of a split such as 1/8."
        )
    masked = [name for name in split.unlabeled if split.has_mask(name)]
    return masked or split.unlabeled, bool(masked)
