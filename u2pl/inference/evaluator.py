"""Scores a network on a validation set: every image once, whole, by windows or its centre crop, as the recipe says."""

from collections.abc import Callable, Iterable, Iterator, Sequence
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
_SAMPLES = 3
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
    """Image name -> predicted classes (H, W) of what is scored of it, for the images that show the most classes."""

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
        keep_samples: whether predictions are kept.
        after_round: called after some images, by all processes equally often; what it raises breaks the evaluation off.
        progress: told after the same how many images are scored.

    Raises:
        UserError: no pixel of the whole validation set has a label.
    """
    parts = []
    # All processes have equally many rounds, the last perhaps without an image, so that all agree in `after_round`.
    everything = split.val if names is None else list(names)
    size, rank = (processes.size(), processes.rank()) if names is None else (1, 0)
    progress("scoring images", 0, len(everything))
    for first in range(0, len(everything), size * _ROUND):
        mine = everything[first : first + size * _ROUND][rank::size]
        with enough_memory(_LESS_MEMORY):
            parts.append(_count(network, split, recipe, tta, mine, keep_samples))
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
    richest = _richest(item for each in parts for item in each.richest)
    return Evaluation(
        confusion,
        recipe.absent_iou == "zero",
        {name: found[name] for name in (split.val if names is None else names)},
        {name: prediction for _, name, prediction in richest},
    )


_Sample = tuple[int, str, Tensor]
"""Classes in an image's mask, its name, and its prediction."""


class _Counts(NamedTuple):
    """What one process has found out."""

    confusion: Tensor
    images: dict[str, float]
    richest: list[_Sample]


def _count(
    network: DeepLabV3Plus,
    split: ImageSet,
    recipe: Recipe,
    tta: TTA,
    names: list[str],
    keep_samples: bool,
) -> _Counts:
    device = next(network.parameters()).device
    classes = len(split.classes)
    total = torch.zeros(classes, classes, dtype=torch.int64, device=device)
    scored: list[str] = []
    mious = [torch.zeros(0, dtype=torch.float64, device=device)]
    richest: list[_Sample] = []
    for some, masks, prediction in _predicted(network, split, recipe, tta, names):
        counts = scores.confusions(prediction, _moved(masks, device), classes, split.ignore_index)
        total += counts.sum(0)
        mious.append(scores.iou(counts).nanmean(dim=1))
        scored += some
        if keep_samples:
            new = [(len(m.unique()), n, p) for n, m, p in zip(some, masks, prediction, strict=True)]
            richest = _richest([*richest, *new])
    images = dict(zip(scored, torch.cat(mious).tolist(), strict=True))
    return _Counts(total.cpu(), images, [(count, name, p.cpu()) for count, name, p in richest])


def _richest(samples: Iterable[_Sample]) -> list[_Sample]:
    """Those whose masks have the most classes."""
    return sorted(samples, key=lambda item: (-item[0], item[1]))[:_SAMPLES]


@torch.no_grad()
def predictions(
    network: DeepLabV3Plus, split: ImageSet, recipe: Recipe, names: Sequence[str], tta: TTA = NO_TTA
) -> dict[str, Tensor]:
    """Image name -> predicted classes (H, W) of what `evaluate` scores of it, for the validation images `names`."""
    return {
        name: prediction
        for some, _, batch in _predicted(network, split, recipe, tta, names)
        for name, prediction in zip(some, batch.cpu(), strict=True)
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


def _predicted(
    network: DeepLabV3Plus, split: ImageSet, recipe: Recipe, tta: TTA, names: Sequence[str]
) -> Iterator[tuple[list[str], Tensor, Tensor]]:
    """Of a few images at a time their names, their masks, and on the network's device the predicted classes."""
    for some, masks, scored in class_scores(network, split, recipe, names, tta):
        yield some, masks, scored.argmax(dim=1)


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
