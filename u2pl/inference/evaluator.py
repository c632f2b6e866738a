"""Scores a network on a validation set: every image once, whole, by windows or its centre crop, as the recipe says."""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import groupby, islice
from typing import NamedTuple

import torch
from torch import Tensor

from u2pl import processes
from u2pl.batches.validation import validation
from u2pl.data.description import Progress
from u2pl.data.image_set import ImageSet
from u2pl.errors import EndedElsewhere, UserError, enough_memory
from u2pl.inference import scores
from u2pl.inference.tta import NO_TTA, TTA, mean_probabilities
from u2pl.inference.windows import sliding_logits, stride_of
from u2pl.models.deeplab import DeepLabV3Plus, upsample
from u2pl.settings import Recipe

_BATCH, _PIXELS = 8, 2**22
"""Most images, and most pixels, that are scored at once."""
_LESS_MEMORY = (
    "Score smaller pieces: --evaluation sliding, which is another protocol, or smaller --scales; in training "
    "--set evaluation=sliding."
)
_SPREAD, _RICHEST = 3, 3
"""Images of which pictures are kept: some that lie evenly spread over the validation list, whatever they show, since a
gallery of rich scenes alone would mislead; and of all others those whose masks have the most classes, where there is
most to see. The network has no say, so that runs on a data set can be compared picture by picture."""
_LEVELS = 51
"""Steps from no entropy to the highest, 2 % each: a PNG of them has three fifths the size of one of 255 steps (some
40 KB for a photograph of 500 x 375), and nobody sees the difference."""
_ROUND = 32
"""Images that a process scores before it is asked whether to go on."""


def protocol(recipe: Recipe, tta: TTA = NO_TTA) -> str:
    """What `evaluate` does, in the words that stand beside every number."""
    if recipe.evaluation == "whole":
        parts = ["whole image", tta.text, "mask resolution"]
    elif recipe.evaluation == "sliding":
        windows = f"sliding window of {recipe.crop}, stride {stride_of(recipe.crop)}"
        parts = [windows, tta.text, "mask resolution"]
    else:
        resized = "" if recipe.resize == 1 else f" of the image resized by {recipe.resize:g}"
        padding = "scored as class 0" if recipe.score_padding else "ignored"
        parts = [f"centre crop of {recipe.crop}{resized}", tta.text, f"padding {padding}"]
    if recipe.absent_iou == "zero":
        parts.append("absent classes as 0")
    return ", ".join(parts)


@dataclass
class Evaluation:
    """The scores of one network."""

    confusion: Tensor
    absent_as_zero: bool = False
    """Whether a class that nowhere occurs counts in the mean, as 0."""
    images: dict[str, float] = field(default_factory=dict)
    """Image name -> its own mIoU, percent, over the classes in its truth or prediction; NaN without labels."""
    samples: dict[str, Tensor] = field(default_factory=dict)
    """Image name -> predicted classes (H, W) of what is scored of it, for the images that are kept (see _SPREAD)."""
    entropies: dict[str, Tensor] = field(default_factory=dict)
    """Of the same images -> entropy (H, W) uint8 of the probabilities behind these classes; see `entropy_bytes`."""

    def iou(self, classes: list[str]) -> dict[str, float | None]:
        """Class -> IoU in percent, None for a class that nowhere occurs."""
        values = scores.iou(self.confusion).tolist()
        return {name: None if value != value else value for name, value in zip(classes, values, strict=True)}

    @property
    def miou(self) -> float:
        """Percent."""
        return scores.miou(self.confusion, absent_as_zero=self.absent_as_zero)

    def worst(self, count: int) -> list[str]:
        """The `count` images of the lowest own mIoU, the lowest first, equal ones by name."""
        scored = [name for name, value in self.images.items() if value == value]
        return sorted(scored, key=lambda name: (self.images[name], name))[:count]


@torch.no_grad()
def evaluate(
    network: DeepLabV3Plus,
    split: ImageSet,
    recipe: Recipe,
    *,
    tta: TTA = NO_TTA,
    names: Sequence[str] | None = None,
    keep_samples: bool = False,
    after_round: Callable[[], None] = lambda: None,
    progress: Progress = lambda what, done, total: None,
) -> Evaluation:
    """Score `network` in evaluation mode on the split's validation images.

    All is counted on the network's device, which is waited for once in a round of images. Several processes each score
    their share of the images, every image once, and all get the result.

    Args:
        network: what is scored.
        split: the data set.
        recipe: how images are scored, and at which size.
        tta: scales and mirror images to average over.
        names: these validation images alone; what they count adds up to what all of them do.
        keep_samples: whether predictions and entropies of a few images are kept.
        after_round: called after some images, by all processes equally often; what it raises breaks the evaluation off.
        progress: told after the same how many images are scored.

    Raises:
        UserError: no pixel of the whole validation set has a label.
    """
    parts: list[_Counts] = []
    # All processes have equally many rounds, the last perhaps without an image, so that all agree in `after_round`.
    everything = split.val if names is None else list(names)
    size, rank = (processes.size(), processes.rank()) if names is None else (1, 0)
    progress("scoring images", 0, len(everything))
    samples = _Samples(_evenly_spread(everything), split.ignore_index) if keep_samples else None
    for first in range(0, len(everything), size * _ROUND):
        mine = everything[first : first + size * _ROUND][rank::size]
        with enough_memory(_LESS_MEMORY):
            parts.append(_count(network, split, recipe, tta, mine, samples))
        after_round()
        progress("scoring images", min(first + size * _ROUND, len(everything)), len(everything))
    if names is None:
        parts = [part for of_one in processes.gather_objects(parts) for part in of_one]
    classes = len(split.classes)
    confusion = sum((each.confusion for each in parts), torch.zeros(classes, classes, dtype=torch.int64))
    if names is None and not confusion.any():
        if processes.rank():
            raise EndedElsewhere
        raise UserError(
            f"No validation pixel of {split.dataset!r} has a label, of those that are scored "
            f"({protocol(recipe, tta)}). Mend its validation masks, or score more of them: evaluation whole."
        )
    found = {name: miou for each in parts for name, miou in each.images.items()}
    kept = [] if samples is None else samples.kept
    if names is None:
        kept = _chosen([sample for of_one in processes.gather_objects(kept) for sample in of_one])
    return Evaluation(
        confusion,
        recipe.absent_iou == "zero",
        {name: found[name] for name in everything},
        {each.name: each.prediction for each in kept},
        {each.name: each.entropy for each in kept},
    )


class _Sample(NamedTuple):
    """An image that is kept."""

    name: str
    classes: int
    """In its mask."""
    spread: bool
    """Whether it is kept whatever it shows."""
    prediction: Tensor
    entropy: Tensor


class _Samples:
    """The images that a process keeps: a few, however many it has seen."""

    def __init__(self, spread: Collection[str], ignore_index: int) -> None:
        self.spread, self.ignore_index = spread, ignore_index
        self.kept: list[_Sample] = []

    def take(
        self, names: Sequence[str], masks: Tensor, scored: Tensor, predictions: Tensor, *, averaged: bool
    ) -> None:
        """Keep those of a few images that belong to what is kept of all images so far.

        Args:
            names: of the images.
            masks: (B, H, W).
            scored: (B, C, H, W): logits, or where they are `averaged` probabilities.
            predictions: (B, H, W).
            averaged: what `scored` is.
        """
        for name, mask, scored_CHW, prediction in zip(names, masks, scored, predictions, strict=True):
            classes, spread = len(mask[mask != self.ignore_index].unique()), name in self.spread
            rivals = [(-each.classes, each.name) for each in self.kept if not each.spread]
            # Of most images nobody asks for the entropy.
            if spread or len(rivals) < _RICHEST or (-classes, name) < max(rivals):
                entropy = entropy_bytes(scored_CHW if averaged else scored_CHW.softmax(dim=0))
                # A part of a batch would keep the whole of it.
                self.kept.append(_Sample(name, classes, spread, prediction.clone(), entropy))
                self.kept = _chosen(self.kept)

    def to_host(self) -> None:
        """Leave nothing on the device."""
        self.kept = [
            each._replace(prediction=each.prediction.cpu(), entropy=each.entropy.cpu()) for each in self.kept
        ]


def _evenly_spread(names: Sequence[str]) -> set[str]:
    """Of a list cut into _SPREAD equal parts the middle name of each."""
    return {names[(2 * part + 1) * len(names) // (2 * _SPREAD)] for part in range(_SPREAD) if names}


def _chosen(samples: Iterable[_Sample]) -> list[_Sample]:
    """Those whose masks have the most classes, after them those that are kept whatever they show."""
    ranked = sorted(samples, key=lambda each: (-each.classes, each.name))
    return [
        *[each for each in ranked if not each.spread][:_RICHEST],
        *[each for each in ranked if each.spread],
    ]


def entropy_bytes(prob_CHW: Tensor) -> Tensor:
    """How unsure class probabilities are, (H, W) uint8: 0 where one class is certain, 255 where all are equally likely.

    That is their entropy (Eq. 5), divided by the logarithm of the number of classes, in steps of 1/_LEVELS.
    """
    classes = len(prob_CHW)
    if classes < 2:
        return prob_CHW.new_zeros(prob_CHW.shape[1:], dtype=torch.uint8)
    share_HW = torch.special.entr(prob_CHW.float()).sum(dim=0).div_(math.log(classes))
    return share_HW.mul_(_LEVELS).round_().mul_(255 // _LEVELS).clamp_(0, 255).to(torch.uint8)


class _Counts(NamedTuple):
    """What one process has found out in a round."""

    confusion: Tensor
    images: dict[str, float]


def _count(
    network: DeepLabV3Plus,
    split: ImageSet,
    recipe: Recipe,
    tta: TTA,
    names: list[str],
    samples: _Samples | None,
) -> _Counts:
    device = next(network.parameters()).device
    classes = len(split.classes)
    total = torch.zeros(classes, classes, dtype=torch.int64, device=device)
    scored: list[str] = []
    mious = [torch.zeros(0, dtype=torch.float64, device=device)]
    for some, masks, scored_BCHW in class_scores(network, split, recipe, names, tta):
        prediction = scored_BCHW.argmax(dim=1)
        counts = scores.confusions(prediction, _moved(masks, device), classes, split.ignore_index)
        total += counts.sum(0)
        mious.append(scores.iou(counts).nanmean(dim=1))
        scored += some
        if samples is not None:
            samples.take(some, masks, scored_BCHW, prediction, averaged=tta != NO_TTA)
    if samples is not None:
        samples.to_host()
    images = dict(zip(scored, torch.cat(mious).tolist(), strict=True))
    return _Counts(total.cpu(), images)


@torch.no_grad()
def predictions(
    network: DeepLabV3Plus, split: ImageSet, recipe: Recipe, names: Sequence[str], tta: TTA = NO_TTA
) -> dict[str, Tensor]:
    """Image name -> predicted classes (H, W) of what `evaluate` scores of it, for the validation images `names`."""
    return {
        name: prediction
        for some, _, scored in class_scores(network, split, recipe, names, tta)
        for name, prediction in zip(some, scored.argmax(dim=1).cpu(), strict=True)
    }


@torch.no_grad()
def class_scores(
    network: DeepLabV3Plus, split: ImageSet, recipe: Recipe, names: Sequence[str], tta: TTA = NO_TTA
) -> Iterator[tuple[list[str], Tensor, Tensor]]:
    """The scores of all classes at each pixel of any images of the split, a few images at a time.

    Returns:
        Names; masks (B, H, W) int64, ignored everywhere where an image has none; and on the network's device logits
        (B, C, H, W), or probabilities where `tta` averages several.
    """
    device = next(network.parameters()).device
    chosen = replace(split, val=list(names))

    def logits_of(images: Tensor) -> Tensor:
        if recipe.evaluation == "sliding":
            return sliding_logits(network, images, recipe.crop)
        return network(images, represent=False).logits

    with _evaluation_mode(network):
        for some, images, masks in _batches(chosen, recipe, tta):
            images, size = _moved(images, device), masks.shape[1:]
            if tta == NO_TTA:
                yield some, masks, upsample(logits_of(images), size)
            else:
                yield some, masks, mean_probabilities(logits_of, images, tta, size)


@contextmanager
def _evaluation_mode(network: DeepLabV3Plus) -> Iterator[None]:
    was_training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)


def _moved(batch: Tensor, device: torch.device) -> Tensor:
    """The batch on the device; from pinned memory, so that nothing waits until it has arrived."""
    return batch if device.type == "cpu" else batch.pin_memory().to(device, non_blocking=True)


def _batches(split: ImageSet, recipe: Recipe, tta: TTA) -> Iterator[tuple[list[str], Tensor, Tensor]]:
    """Runs of validation images of one size, a few at a time."""
    growth = max(1, *tta.scales) ** 2
    for (size, _), run in groupby(validation(split, recipe), key=lambda item: (item[1].shape, item[2].shape)):
        at_once = max(1, min(_BATCH, int(_PIXELS / growth) // (size[-2] * size[-1])))
        while items := list(islice(run, at_once)):
            names, images, masks = zip(*items, strict=True)
            yield list(names), torch.cat(images), torch.stack(masks)
