"""What every encoder is: maps of features, low-level ones at stride 4 and those of its last two stages."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Stages(NamedTuple):
    """What an encoder makes of images."""

    low: Tensor
    """(B, low_channels, H/4, W/4)."""
    middle: Tensor
    """(B, middle_channels, h, w): of the last stage but one, a ResNet's third."""
    high: Tensor
    """(B, channels, h, w): of the last stage, at the output stride."""


class Backbone(nn.Module, ABC):
    """An encoder: a classification network without its classifier."""

    low_channels: int
    """Of the features at stride 4."""
    middle_channels: int
    """Of the last stage's but one."""
    channels: int
    """Of the last stage's."""

    def __init__(self) -> None:
        super().__init__()
        self.recompute = False
        """Whether training computes activations again in the backward pass, instead of keeping them."""

    @abstractmethod
    def forward(self, image: Tensor) -> Stages:
        """Features of three stages.

        Args:
            image: (B, 3, H, W), RGB, normalised by `colors.MEAN` and `colors.STD` like every picture in the suite; a
                backbone whose weights expect other colours turns them into these itself.
        """

    @abstractmethod
    def start_from(self, state: Mapping[str, Any], path: Path) -> None:
        """Take the weights in a file that is no run's.

        Args:
            state: name -> tensor, as the file has them.
            path: the file, for what is said of it.

        Raises:
            UserError: a tensor has no place, or a place no tensor; all are listed.
        """

    def _recomputed(self, part: nn.Module, x: Tensor, *, draws: bool = False) -> Any:
        """What a part makes of x, its activations not kept where `recompute` says so.

        Args:
            draws: whether it may draw at random, and must draw the same again.
        """
        if not (self.recompute and self.training and torch.is_grad_enabled()):
            return part(x)
        contexts = partial(_forward_and_again, part)
        return checkpoint(part, x, use_reentrant=False, preserve_rng_state=draws, context_fn=contexts)


def _forward_and_again(part: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """What holds while a part is computed for the first time, and for the second."""
    return nullcontext(), statistics_untouched(part)


@contextmanager
def statistics_untouched(part: nn.Module) -> Iterator[None]:
    """For a pass in which batch norm sees a batch a second time, and must not count it twice."""
    norms = [m for m in part.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm, (_, count) in zip(norms, before, strict=True):
        norm.momentum = 0.0
        norm.num_batches_tracked = None if count is None else count.clone()
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
