"""Forwards of networks over the images of a batch, in micro-batches, with gradient and without."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from u2pl import processes
from u2pl.models import dropout
from u2pl.models.deeplab import Output
from u2pl.steps.micro_batch import MicroBatch, cut, micro_batches


@dataclass(frozen=True)
class Forward:
    """What a trained network sees in a step."""

    network: nn.Module
    streams: tuple[Tensor, ...]
    """Images of this process, as many in each stream; they go through the network together, stream after stream."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of the network; tensors among them, and what has a method `of`, are cut into micro-batches."""

    @property
    def images(self) -> int:
        """Of each stream."""
        return len(self.streams[0])

    def draw(self, generator: torch.Generator) -> list[Tensor]:
        """The channels that the network's dropouts keep of every image of the whole batch."""
        return dropout.draw(self.network, len(self.streams) * processes.size() * self.images, generator)

    def __call__(
        self, micro: MicroBatch, kept: list[Tensor] | None, wrapper: DistributedDataParallel | None = None
    ) -> Output:
        """The network's output of a micro-batch.

        Args:
            micro: whose images.
            kept: from `draw`; None: the network is in evaluation mode, where dropout keeps all.
            wrapper: what adds up the gradients of all processes; what adds up over micro-batches is sent once.
        """
        images = torch.cat([stream[micro.own] for stream in self.streams])
        if kept is not None:
            dropout.choose(self.network, kept, micro.numbers(len(self.streams)), images.device)
        options = {name: cut(value, micro) for name, value in self.options.items()}
        if wrapper is None:
            return self.network(images, **options)
        quiet: AbstractContextManager[Any] = nullcontext() if micro.last else wrapper.no_sync()
        with quiet:
            return wrapper(images, **options)


@torch.no_grad()
def without_gradient(
    network: nn.Module, *streams: Tensor, micro_batch: int, generator: torch.Generator, **options: Any
) -> Output:
    """A network's output of some streams of images, in its present mode; its dropouts draw in training mode.

    Args:
        network: any.
        streams: this process's images, as many in each, such as labelled and unlabelled ones.
        micro_batch: as in the recipe.
        generator: of the step.
        options: further arguments of the network.

    Returns:
        Of the first stream's images, then of the second's.
    """
    forward = Forward(network, streams, options)
    kept = forward.draw(generator) if network.training else None
    outputs = [forward(micro, kept) for micro in micro_batches(forward.images, micro_batch, len(streams))]
    return outputs[0] if len(outputs) == 1 else _joined(outputs, len(streams))


def _joined(outputs: list[Output], streams: int) -> Output:
    """Outputs of micro-batches, stream by stream."""

    def join(maps: list[Tensor]) -> Tensor:
        return torch.cat(
            [torch.cat(stream) for stream in zip(*(m.chunk(streams) for m in maps), strict=True)]
        )

    representations = [output.representation for output in outputs if output.representation is not None]
    return Output(
        join([o.logits for o in outputs]),
        join(representations) if representations else None,
        {name: join([o.further[name] for o in outputs]) for name in outputs[0].further},
    )
