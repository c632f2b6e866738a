"""Confusion matrix and intersection over union (the paper's metric).

Nothing here waits for the device that the tensors lie on.
"""

import torch
from torch import Tensor


def confusions(prediction_BHW: Tensor, label_BHW: Tensor, classes: int, ignore_index: int) -> Tensor:
    """Counts of each image's pixels by true class (rows) and predicted class (columns), (B, C, C) int64."""
    if label_BHW.device.type == "cpu":
        both = zip(prediction_BHW, label_BHW, strict=True)
        return torch.stack([_confusion(*maps, classes, ignore_index) for maps in both])
    # One more bin takes the ignored pixels: a GPU that picks the others by a mask waits for their number. So it does in
    # bincount, for the largest value.
    images, bins = len(label_BHW), classes * classes + 1
    pairs = (label_BHW.long() * classes + prediction_BHW).masked_fill(label_BHW == ignore_index, bins - 1)
    places = (pairs.flatten(1) + bins * torch.arange(images, device=pairs.device)[:, None]).flatten()
    counts = places.new_zeros(images * bins).scatter_add_(0, places, torch.ones_like(places))
    return counts.reshape(images, bins)[:, :-1].reshape(images, classes, classes)


def _confusion(prediction_HW: Tensor, label_HW: Tensor, classes: int, ignore_index: int) -> Tensor:
    """Of one image. Ignored pixels have a row of their own, which is left out, since that is quicker than a mask."""
    first, last = min(ignore_index, 0), max(ignore_index, classes - 1)
    bins = (last - first + 1) * classes
    kind = torch.int16 if bins < 2**15 else torch.int32  # the fewer bytes, the sooner
    row_HW = label_HW.to(kind) - first if first else label_HW.to(kind)
    pairs_HW = torch.add(prediction_HW.to(kind), row_HW, alpha=classes)
    counts = pairs_HW.flatten().bincount(minlength=bins).view(-1, classes)
    counts[ignore_index - first] = 0
    return counts[-first : classes - first]


def confusion(prediction: Tensor, label: Tensor, classes: int, ignore_index: int) -> Tensor:
    """Counts of pixels by true class (rows) and predicted class (columns), (C, C) int64; ignored ones left out."""
    return confusions(prediction[None], label[None], classes, ignore_index)[0]


def iou(confusion_CC: Tensor) -> Tensor:
    """Intersection over union of each class in percent, (..., C) float64, over all pixels that (..., C, C) counts.

    NaN for a class that is neither in the labels nor predicted.
    """
    matrix = confusion_CC.double()
    intersection = matrix.diagonal(dim1=-2, dim2=-1)
    union = matrix.sum(-2) + matrix.sum(-1) - intersection
    return 100 * intersection / union


def miou(confusion_CC: Tensor, *, absent_as_zero: bool = False) -> float:
    """Mean over classes of `iou`, percent; classes without a union do not count, or count as 0."""
    values = iou(confusion_CC)
    return float(values.nan_to_num(0).mean() if absent_as_zero else values.nanmean())
