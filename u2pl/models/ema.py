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
def update(teacher: nn.Module, student: nn.Module, decay: float, *, statistics: bool = True) -> None:
    """theta_t <- decay theta_t + (1 - decay) theta_s.

    Args:
        statistics: average the batch-norm statistics like the parameters, since a teacher in evaluation mode
            needs ones that belong to its weights; False leaves them to the teacher's own passes in training mode.
    """
    average = get_ema_multi_avg_fn(decay)
    average(_floats(teacher, statistics), _floats(student, statistics), torch.tensor(0))


def keep_statistics(network: nn.Module) -> None:
    """Let passes in training mode leave the network's batch-norm statistics as they are."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 0.0


def _floats(module: nn.Module, buffers: bool) -> list[torch.Tensor]:
    tensors = module.state_dict().values() if buffers else module.parameters()
    return [tensor.detach() for tensor in tensors if tensor.is_floating_point()]
