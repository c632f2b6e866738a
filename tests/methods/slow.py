"""What a network said of each pixel, in float64, and a batch of which no image is all picture."""

import numpy as np
import torch
from methods.tiny_method import CLASSES, Pass, make_batch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from u2pl.batches.loader import Batch

IGNORE = CLASSES.ignore_index
Array = NDArray[np.float64]


def padded(images: int = 2) -> Batch:
    """Some of every image is padding without a label, of every stream and image another part."""
    batch = make_batch(images=images)
    for k, stream in enumerate((batch.labeled, batch.unlabeled, *batch.extra.values())):
        for b in range(images):
            valid = stream.valid[b] if k < 2 else stream.valid[b].T
            valid[: 2 + 3 * b + k] = False
        stream.mask[~stream.valid] = IGNORE
    return batch


def full(passed: Pass) -> Tensor:
    """A pass's logits at the resolution of its images."""
    logits = passed.output.logits.detach()
    return functional.interpolate(logits, passed.image.shape[2:], mode="bilinear", align_corners=True)


def softmax(logits_BCHW: Tensor) -> Array:
    """With the classes last."""
    exp = np.exp(np.moveaxis(logits_BCHW.double().numpy(), 1, -1))
    return exp / exp.sum(axis=-1, keepdims=True)


def pixel_losses(logits_BCHW: Tensor, label_BHW: Tensor | NDArray[np.int64]) -> Array:
    """-log p of each pixel's label, 0 where it has none."""
    label = np.asarray(label_BHW)
    known = label != IGNORE
    p = np.take_along_axis(softmax(logits_BCHW), np.where(known, label, 0)[..., None], axis=-1)[..., 0]
    return np.where(known, -np.log(p), 0)


def mean_loss(*pairs: tuple[Tensor, Tensor], groups: int = 1) -> float:
    """The mean over groups of the mean loss of all labelled pixels of some (logits, labels)."""
    means = []
    for g in range(groups):
        some = [(logits.chunk(groups)[g], label.chunk(groups)[g]) for logits, label in pairs]
        total = sum(pixel_losses(*pair).sum() for pair in some)
        means.append(total / sum(int((label != IGNORE).sum()) for _, label in some))
    return float(torch.tensor(means, dtype=torch.float64).mean())
