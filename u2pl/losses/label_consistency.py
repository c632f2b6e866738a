"""How far two predictions are apart in direction, whatever their lengths (PC²Seg's consistency in label space)."""

from torch import Tensor
from torch.nn import functional


def direction_distance(prob_BCHW: Tensor, target_BCHW: Tensor) -> Tensor:
    """||n(p') - n(p)||^2 = 2 - 2 cos(p', p) with n(v) = v / ||v||, (B, H, W); the gradient reaches the first alone.

    Args:
        prob_BCHW: probabilities p'.
        target_BCHW: probabilities p.
    """
    own, target = (functional.normalize(prob, dim=1) for prob in (prob_BCHW, target_BCHW.detach()))
    return (own - target).square().sum(dim=1)
