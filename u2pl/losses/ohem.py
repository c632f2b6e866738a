"""Online hard example mining: of the labelled pixels those count of which a network is least sure (Sec. 4.1).

The paper names it for Cityscapes; how it works is the released code's.
"""

import torch
from torch import Tensor


def threshold(certainty: Tensor, known: Tensor, *, least: float, kept: float) -> Tensor:
    """The probability of its true class above which a pixel does not count, 0-d; infinite where all do.

    It is `least`, or more where fewer pixels than the share `kept` would be left; of fewer labelled pixels than that
    share all count.

    Args:
        certainty: probability of each pixel's true class, floats of any shape; 1 where there is no label.
        known: bool, whether a pixel has a label.
        least: from 0 to 1.
        kept: share of all pixels, with or without a label, above 0.
    """
    count = max(1, round(kept * certainty.numel()))
    theta = certainty.flatten().kthvalue(count).values.clamp(min=least)
    return theta.where(known.sum() >= count, torch.inf)


def hard(certainty: Tensor, known: Tensor, theta: Tensor) -> Tensor:
    """Which pixels count, bool: the labelled ones that are not more certain than a threshold.

    Where a network diverges, certainties are no numbers, and all count: its loss is to tell.

    Args:
        certainty: as in `threshold`.
        known: likewise.
        theta: whatever broadcasts with them.
    """
    return known & ~(certainty > theta)
