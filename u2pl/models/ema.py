"""The teacher: an exponential moving average of the student."""

import copy
from typing import TypeVar

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

M = TypeVar("M", bound=nn.Module)


def teacher_of(student: M) -> M:
    """A copy of the student that takes no gradient and stays in evaluation mode."""
    return copy.deepcopy(student).requires_grad_(False).eval()


@torch.no_grad()
def update(teacher: nn.Module, student: nn.Module, decay: float) -> None:
    """theta_t <- decay theta_t + (1 - decay) theta_s, for parameters and batch-norm statistics alike.

    The statistics are averaged too, since a teacher in evaluation mode needs ones that belong to its
    weights; the released code re-estimates them with passes in training mode instead.
    """
    average = get_ema_multi_avg_fn(decay)
    average(_floats(teacher), _floats(student), torch.tensor(0))


def _floats(module: nn.Module) -> list[torch.Tensor]:
    return [tensor.detach() for tensor in module.state_dict().values() if tensor.is_floating_point()]
