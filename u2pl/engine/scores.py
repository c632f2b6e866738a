"""Confusion matrix and intersection over union (the paper's metric)."""

import torch
from torch import Tensor


def confusion(prediction: Tensor, label: Tensor, classes: int, ignore_index: int) -> Tensor:
    """Counts of pixels by true class (rows) and predicted class (columns), (C, C) int64; ignored ones left out."""
    valid = label != ignore_index
    pairs = label[valid].long() * classes + prediction[valid].long()
    return torch.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def iou(confusion_CC: Tensor) -> Tensor:
    """Intersection over union of each class in percent, (C,) float64, over all pixels of a data set.

    NaN for a class that is neither in the labels nor predicted.
    """
    matrix = confusion_CC.double()
    intersection = matrix.diagonal()
    union = matrix.sum(0) + matrix.sum(1) - intersection
    return 100 * intersection / union


def miou(confusion_CC: Tensor, *, absent_as_zero: bool = False) -> float:
    """Mean over classes of `iou`, percent; classes without a union do not count, or count as 0."""
    values = iou(confusion_CC)
    return float(values.nan_to_num(0).mean() if absent_as_zero else values.nanmean())
