"""One training step of any method: its targets, then the losses of each micro-batch."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from u2pl.batches.loader import Batch
from u2pl.methods import Method, Step, Targets
from u2pl.steps.micro_batch import micro_batches

Losses = dict[str, Tensor]


@dataclass
class StepResult:
    """What one step gives: 0-d tensors, still on the device."""

    losses: Losses
    """Name -> weighted loss; their sum is minimised."""
    diagnostics: dict[str, Tensor | float] = field(default_factory=dict)
    """See `Targets`."""
    class_counts: dict[str, Tensor] = field(default_factory=dict)
    """See `Targets`."""


def targets_of(method: Method, batch: Batch, step: Step) -> Targets:
    """What is to be learned from a batch: found over the whole of it, without gradient."""
    with torch.no_grad():
        return method.start_step(batch, step)


def losses_of(
    method: Method,
    targets: Targets,
    step: Step,
    wrappers: Mapping[nn.Module, DistributedDataParallel] | None = None,
) -> Iterator[Losses]:
    """The losses of this process's micro-batches, one after the other.

    The gradient of one is to be taken before the next is asked for. All of them, of all processes, add up to the
    step's.

    Args:
        method: in training mode.
        targets: of the step.
        step: where training stands.
        wrappers: what adds up the gradients of all processes, of each network that is trained by several.
    """
    forwards, wrappers = targets.forwards, wrappers or {}
    kept = [forward.draw(step.generator) for forward in forwards]
    streams = max(len(forward.streams) for forward in forwards)
    parts = list(micro_batches(forwards[0].images, method.recipe.micro_batch, streams))
    if len(parts) > 1 and method.supervision.mining is not None:
        taught = [
            next(k for k, f in enumerate(forwards) if f.network is student) for student in method.students
        ]
        mined = method.supervision.mine(
            [forwards[k] for k in taught], [kept[k] for k in taught], targets.label, parts
        )
        targets = replace(targets, mined=mined)
    for micro in parts:
        outputs = [
            forward(micro, factors, wrappers.get(forward.network))
            for forward, factors in zip(forwards, kept, strict=True)
        ]
        its = targets.of(micro)
        losses = (
            method.supervised_losses(outputs, its)
            if targets.supervised_alone
            else method.losses(*outputs, its)
        )
        if micro.last:
            with torch.no_grad():
                method.after_losses(targets)
        yield losses
