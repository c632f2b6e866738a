"""Several processes that train one run together: which one this is, and what all of them know.

Each process has the same number of images of a step's batch, in order of rank. With one process everything here
returns what it is given.
"""

from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def size() -> int:
    """Number of processes."""
    return dist.get_world_size() if _several() else 1


def rank() -> int:
    """Which of them this is, counted from 0."""
    return dist.get_rank() if _several() else 0


def _several() -> bool:
    return dist.is_available() and dist.is_initialized()


def total(tensor: Tensor) -> Tensor:
    """The sum over all processes of tensors of one shape."""
    if not _several():
        return tensor
    tensor = tensor.detach().clone()
    dist.all_reduce(tensor)
    return tensor


def gather(tensor: Tensor) -> Tensor:
    """The tensors of all processes, of one shape, one after the other along the first dimension."""
    if not _several():
        return tensor
    sent = tensor.detach().contiguous()
    kind = sent.dtype
    sent = sent.view(torch.uint8) if kind == torch.bool else sent
    parts = [torch.empty_like(sent) for _ in range(size())]
    dist.all_gather(parts, sent)
    received = torch.cat(parts)
    return received.view(torch.bool) if kind == torch.bool else received


def gather_rows(tensor: Tensor) -> Tensor:
    """As `gather`, of tensors that may have different numbers of rows; the numbers travel to the host."""
    if not _several():
        return tensor
    counts = gather(torch.tensor([len(tensor)], device=tensor.device)).tolist()
    padded = tensor.new_zeros(max(counts), *tensor.shape[1:])
    padded[: len(tensor)] = tensor
    parts = gather(padded).split(max(counts)) if max(counts) else [padded] * len(counts)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


def gather_objects(value: T) -> list[T]:
    """The values of all processes, in order of rank; for what is small and seldom."""
    if not _several():
        return [value]
    values: list[Any] = [None] * size()
    dist.all_gather_object(values, value)
    return values


def mean_(tensors: list[Tensor]) -> None:
    """Replace floats by their means over all processes."""
    if not _several() or not tensors:
        return
    flat = total(torch.cat([tensor.flatten() for tensor in tensors])) / size()
    for tensor, values in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        tensor.copy_(values.view_as(tensor))
