"""The loss on true labels (Eq. 2): of every head of a network, over all labelled pixels or over the hard ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from u2pl.losses import ohem
from u2pl.models.backbone import statistics_untouched
from u2pl.models.deeplab import AUXILIARY, Output, upsample
from u2pl.steps.forward import Forward
from u2pl.steps.micro_batch import MicroBatch
from u2pl.steps.whole_batch import Labels, WholeBatch


@dataclass(frozen=True)
class Hard:
    """Which labelled pixels count for a head of a network, in the whole batch."""

    theta_G: Tensor
    """Of each group, the certainty of the true class above which none does."""
    count_G: Tensor
    """How many do."""


Mined = Mapping[nn.Module, Sequence[Hard]]
"""Network -> what counts for each of its heads, the main one first."""


class Mining(NamedTuple):
    """Which pixels are hard; see `ohem.threshold`."""

    least: float
    kept: float


@dataclass(frozen=True)
class Supervision:
    """How true labels teach."""

    whole: WholeBatch
    auxiliary: float
    """Weight of the auxiliary head's loss, where there is one."""
    mining: Mining | None
    """None: all pixels that have a label count."""

    def loss(self, output: Output, label: Labels, mined: Sequence[Hard] | None = None) -> Tensor:
        """A micro-batch's share of the loss of a network: of its classifier, and of its auxiliary head at a weight.

        Args:
            output: of the network, the labelled images first.
            label: theirs.
            mined: which pixels count for each head; None: found here, from the whole batch's images.
        """
        heads = _heads(output, label)
        if self.mining is None:
            losses = [label.cross_entropy(logits) for logits in heads]
        else:
            found: Sequence[Hard | None] = mined or [None] * len(heads)
            losses = [self._hard_loss(*pair, label) for pair in zip(heads, found, strict=True)]
        main, *auxiliary = losses
        return main + self.auxiliary * torch.stack(auxiliary).sum() if auxiliary else main

    @torch.no_grad()
    def mine(
        self,
        forwards: Sequence[Forward],
        kept: Sequence[list[Tensor]],
        label: Labels,
        micro_batches: Sequence[MicroBatch],
    ) -> Mined:
        """What counts for each head where a batch is taken in parts, found by a pass over all of them.

        The pixels that count are those of the whole batch, so every part must be seen before one has a loss.

        Args:
            forwards: one of each network that is taught, labelled images first.
            kept: what their dropouts keep.
            label: of all labelled images of this process.
            micro_batches: likewise.
        """
        found: dict[nn.Module, list[Hard]] = {}
        for forward, factors in zip(forwards, kept, strict=True):
            certainties: list[list[Tensor]] = []
            with statistics_untouched(forward.network):
                for micro in micro_batches:
                    output, its = forward(micro, factors), label.of(micro)
                    losses = [_pixel_losses(logits, its) for logits in _heads(output, its)]
                    certainties.append([_certainty(loss_BHW) for loss_BHW in losses])
            found[forward.network] = [
                self._hard(torch.cat(head), label) for head in zip(*certainties, strict=True)
            ]
        return found

    def _hard_loss(self, logits: Tensor, hard: Hard | None, label: Labels) -> Tensor:
        loss_BHW = _pixel_losses(logits, label)
        certainty_BHW = _certainty(loss_BHW)
        hard = hard or self._hard(certainty_BHW, label)
        loss_BHW = loss_BHW.where(_counts(certainty_BHW, label, hard.theta_G), 0)
        return (loss_BHW.sum(dim=(1, 2)) / hard.count_G[label.group_B]).sum() / len(hard.count_G)

    def _hard(self, certainty_BHW: Tensor, label: Labels) -> Hard:
        """Of all images of this process; those of the others are asked for."""
        assert self.mining is not None
        find = partial(ohem.threshold, **self.mining._asdict())
        theta_G = self.whole.each(find, certainty_BHW, label.known)
        return Hard(theta_G, self.whole.count(_counts(certainty_BHW, label, theta_G)))


def _heads(output: Output, label: Labels) -> list[Tensor]:
    """Logits of the labelled images, of the main head and of the auxiliary one where there is one."""
    auxiliary = output.further.get(AUXILIARY)
    maps = [output.logits] if auxiliary is None else [output.logits, auxiliary]
    return [logits[: len(label.map)] for logits in maps]


def _pixel_losses(logits: Tensor, label: Labels) -> Tensor:
    """-log of the probability of each pixel's true class, (b, H, W); 0 where there is no label."""
    large = upsample(logits, label.size)
    return functional.cross_entropy(large, label.map, ignore_index=label.ignore_index, reduction="none")


def _certainty(loss_BHW: Tensor) -> Tensor:
    """The probability itself; 1 where there is no label."""
    return (-loss_BHW.detach()).exp()


def _counts(certainty_BHW: Tensor, label: Labels, theta_G: Tensor) -> Tensor:
    return ohem.hard(certainty_BHW, label.known, theta_G[label.group_B][:, None, None])
