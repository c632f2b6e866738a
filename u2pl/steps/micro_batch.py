"""Micro-batches: the images of a batch that go through the networks together."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from u2pl import processes


class MicroBatch(NamedTuple):
    """Some images of a batch that go through the networks together, counted over the batch of all processes."""

    first: int
    """Number of the first labelled image; the images of other streams have the same numbers."""
    images: int
    """Of each stream."""
    own: slice
    """The same images among those of this process."""
    last: bool
    """Whether it is the last one of this process."""
    of: int
    """Images of a stream in the whole batch."""

    def numbers(self, streams: int) -> Tensor:
        """Numbers of its images in the whole batch, stream after stream."""
        number = torch.arange(self.first, self.first + self.images)
        return torch.cat([number + stream * self.of for stream in range(streams)])


def cut(value: Any, micro: MicroBatch) -> Any:
    """What belongs to a micro-batch's images.

    Args:
        value: a tensor with an entry for each image of this process, or something that says `of` a micro-batch what of
            it belongs there; anything else is the same for all.
        micro: whose images.
    """
    if isinstance(value, Tensor):
        return value[micro.own]
    return value.of(micro) if hasattr(value, "of") else value


def micro_batches(images: int, micro_batch: int, streams: int) -> Iterator[MicroBatch]:
    """The micro-batches of this process's images.

    A micro-batch of recipe.micro_batch is that many labelled images and as many unlabelled ones; of one stream alone
    twice as many images go at once. None has fewer than two images in all, since a lone one has no batch statistics:
    what would be fewer in the end goes with the one before.

    Args:
        images: of each stream, that this process has.
        micro_batch: as in the recipe; 0: all at once.
        streams: that go through a network together.
    """
    at_once, least = (2 * micro_batch, 2) if streams == 1 else (micro_batch, 1)
    offset, size, of = processes.rank() * images, at_once or images, processes.size() * images
    first = 0
    while first < images:
        count = min(size, images - first)
        if images - first - count < least:
            count = images - first
        yield MicroBatch(offset + first, count, slice(first, first + count), first + count == images, of)
        first += count
