"""What a network makes of pictures, a few numbers each: entropy, confidence, classes, and the encoder's feature."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from u2pl.exchange.model import Model, Pixels, Pooled, at_once
from u2pl.exchange.predictor import Item, Progress, batches, readable

PIXELS = 2**20
"""Pixels whose probabilities are held at once."""


class Look(NamedTuple):
    """What a network makes of one picture."""

    name: str
    entropy: float
    """Mean over pixels, in nats: 0 where the network is sure everywhere, ln C where it knows nothing."""
    confidence: float
    """Mean over pixels of the largest probability."""
    share_low: float
    """Share of the pixels whose largest probability is below the threshold; 0 where none was given."""
    shares: NDArray[np.float64]
    """(C,): share of the pixels that each class is predicted for."""
    expected: NDArray[np.float64]
    """(C,): mean predicted probability of each class."""
    feature: NDArray[np.float32]
    """(D,): the encoder's last map, averaged over the picture; not normalised."""
    expected_miou: float
    """Percent, over the predicted classes: the mIoU that the probabilities promise. Of each class the expected pixels
    that are predicted and true, over the expected ones that are either."""
    middle: NDArray[np.float32]
    """(M,): the encoder's last map but one, likewise, which tells unusual pictures from usual ones better."""


def look(
    model: Model,
    pictures: Mapping[str, Path],
    *,
    temperature: float = 1.0,
    threshold: float | None = None,
    progress: Progress = lambda what, done, total: None,
) -> tuple[list[Look], list[tuple[str, str]]]:
    """Look at pictures, each once; neighbours of one size go through the network together.

    Args:
        model: the network.
        pictures: name -> file.
        temperature: what logits are divided by before probabilities are made of them.
        threshold: of the largest probability of a pixel, below which it counts as one of low confidence.
        progress: told how many pictures are done.

    Returns:
        The looks, in the order of `pictures`; and of files that cannot be read the name and the reason.
    """
    skipped: list[tuple[str, str]] = []
    looks = [
        look_of(seen.name, seen.logits, seen.features, temperature, threshold)
        for seen in seen_by(model, pictures, skipped, "looking at images", progress)
    ]
    return looks, skipped


class Seen(NamedTuple):
    """A picture, and what went through the network."""

    name: str
    picture: Pixels
    """(H, W, 3) uint8, RGB."""
    logits: Tensor
    """(C, H, W), on the network's device."""
    features: Pooled
    """(M,) and (D,), as in `Look`."""


def seen_by(
    model: Model,
    pictures: Mapping[str, Path],
    skipped: list[tuple[str, str]],
    what: str,
    progress: Progress = lambda what, done, total: None,
) -> Iterator[Seen]:
    """Pictures one after the other, as `look` sees them.

    Args:
        model: the network.
        pictures: name -> file.
        skipped: takes the name and the reason of those that cannot be read.
        what: is being done, for the progress.
        progress: told how many pictures are done.
    """
    items = [Item(path, name) for name, path in pictures.items()]
    unreadable: list[tuple[Path, str]] = []
    done = 0
    for batch in batches(readable(items, unreadable), at_once):
        logits, features = model.logits_and_features([picture for _, picture in batch])
        for (item, picture), of_one, *pooled in zip(batch, logits, *features, strict=True):
            yield Seen(item.name, picture, of_one, Pooled(*pooled))
        done += len(batch)
        progress(what, done + len(unreadable), len(items))
    if unreadable:  # perhaps the last ones
        progress(what, len(items), len(items))
    reasons = dict(unreadable)
    skipped += [(item.name, reasons[item.path]) for item in items if item.path in reasons]


def look_of(
    name: str, logits_CHW: Tensor, features: Pooled, temperature: float = 1.0, threshold: float | None = None
) -> Look:
    """What the logits of a picture, (C, H, W), and its features, (M,) and (D,), come to; the rest as for `look`."""
    classes = len(logits_CHW)
    entropy = confidence = low = 0.0
    predicted = torch.zeros(classes, dtype=torch.int64, device=logits_CHW.device)
    expected = torch.zeros(classes, dtype=torch.float64, device=logits_CHW.device)
    inside = torch.zeros(classes, dtype=torch.float64, device=logits_CHW.device)
    pixels_CP = logits_CHW.reshape(classes, -1)
    for some_CP in pixels_CP.split(PIXELS, dim=1):
        log_prob = (some_CP.float() / temperature).log_softmax(dim=0)
        prob = log_prob.exp()
        largest, likeliest = prob.max(dim=0)
        entropy -= float((prob * log_prob).sum())
        confidence += float(largest.sum())
        low += 0 if threshold is None else int((largest < threshold).sum())
        predicted += torch.bincount(likeliest, minlength=classes)
        expected += prob.sum(dim=1)
        inside += torch.bincount(likeliest, largest.double(), minlength=classes)
    either = predicted + expected - inside
    iou = (inside / either)[predicted > 0]
    pixels = pixels_CP.shape[1]
    return Look(
        name,
        max(0.0, entropy / pixels),
        confidence / pixels,
        low / pixels,
        (predicted / pixels).double().cpu().numpy(),
        (expected / pixels).cpu().numpy(),
        features.high.float().cpu().numpy(),
        100 * float(iou.mean()),
        features.middle.float().cpu().numpy(),
    )
