"""Scores a network on a validation set: every image once, whole, by windows or its centre crop, as the recipe says."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby, islice

import torch
from torch import Tensor

from u2pl.data.loader import validation
from u2pl.data.prepared import Split
from u2pl.engine import scores
from u2pl.engine.inference import sliding_logits, stride_of
from u2pl.errors import UserError
from u2pl.models.deeplab import DeepLabV3Plus, upsample
from u2pl.settings import Recipe

_BATCH, _PIXELS = 8, 2**22
"""Most images, and most pixels, that are scored at once."""
_SAMPLES = 3


def protocol(recipe: Recipe) -> str:
    """What `evaluate` does, in the words that stand beside every number."""
    if recipe.evaluation == "whole":
        words = ["whole image", "single scale", "mask resolution"]
    elif recipe.evaluation == "sliding":
        windows = f"sliding window of {recipe.crop}, stride {stride_of(recipe.crop)}"
        words = [windows, "single scale", "mask resolution"]
    else:
        resized = "" if recipe.resize == 1 else f" of the image resized by {recipe.resize:g}"
        padding = "scored as class 0" if recipe.score_padding else "ignored"
        words = [f"centre crop of {recipe.crop}{resized}", "single scale", f"padding {padding}"]
    if recipe.absent_iou == "zero":
        words.append("absent classes as 0")
    return ", ".join(words)


@dataclass
class Evaluation:
    """The scores of one network."""

    confusion: Tensor
    absent_as_zero: bool = False
    """Whether a class that nowhere occurs counts in the mean, as 0."""
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


@torch.no_grad()
def evaluate(
    network: DeepLabV3Plus, split: Split, recipe: Recipe, *, keep_samples: bool = False
) -> Evaluation:
    """Score `network` in evaluation mode on the split's validation images."""
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    classes = len(split.classes)
    result = Evaluation(torch.zeros(classes, classes, dtype=torch.int64), recipe.absent_iou == "zero")
    richest: list[tuple[int, str, Tensor]] = []
    for names, images, masks in _batches(split, recipe):
        images = images.to(device)
        if recipe.evaluation == "sliding":
            logits = sliding_logits(network, images, recipe.crop)
        else:
            logits = network(images, represent=False).logits
        prediction = upsample(logits, masks.shape[1:]).argmax(dim=1).cpu()
        result.confusion += scores.confusion(prediction, masks, classes, split.ignore_index)
        if keep_samples:
            richest += [(len(m.unique()), n, p) for n, m, p in zip(names, masks, prediction, strict=True)]
            richest = sorted(richest, key=lambda item: (-item[0], item[1]))[:_SAMPLES]
    if not result.confusion.any():
        raise UserError(
            f"No validation pixel of {split.dataset!r} has a label. Give masks to its validation images."
        )
    result.samples = {name: prediction for _, name, prediction in richest}
    network.train(was_training)
    return result


def _batches(split: Split, recipe: Recipe) -> Iterator[tuple[list[str], Tensor, Tensor]]:
    """Runs of validation images of one size, a few at a time."""
    for (size, _), run in groupby(validation(split, recipe), key=lambda item: (item[1].shape, item[2].shape)):
        at_once = max(1, min(_BATCH, _PIXELS // (size[-2] * size[-1])))
        while items := list(islice(run, at_once)):
            names, images, masks = zip(*items, strict=True)
            yield list(names), torch.cat(images), torch.stack(masks)
