"""Where an image's classes are, from its image-level labels alone: class activation maps, refined by self-attention.

PseudoSeg's self-attention Grad-CAM (Zou et al., *PseudoSeg: Designing Pseudo Labels for Semantic Segmentation*, ICLR
2021). F are the foreground classes, all but a background.
"""

from math import sqrt
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from u2pl.models.backbone import Stages

_OUT_OF_REACH = 1e9
"""Less similar than anything; where nothing is in reach, all is alike instead of undefined."""


class ActivationMaps(NamedTuple):
    """What a classifier says of images, and where."""

    score: Tensor
    """(B, F), before the sigmoid."""
    logits: Tensor
    """(B, C, h, w), before the softmax: the refined maps, calibrated."""


class ActivationMapper(nn.Module):
    """A classifier of images, and attention over the encoder's features that spreads its activation maps.

    Everything is computed in float32. The attention, its calibration and the norm behind it learn from the maps' logits
    and nothing else does, since maps and features come to them detached.

    Args:
        classes: C.
        background: whether class 0 is one. It has no map; its score is 2 less the largest map's. Without a background
            there is no such score, and the calibration sees the maps alone.
        middle_channels: of the encoder's last stage but one.
        channels: of its last stage.
        key_channels: of queries and keys.
        stride: of the last stage; finer ones than 16 are pooled to it.
        fixed_statistics: whether batch norm keeps the statistics that it has.
    """

    def __init__(
        self,
        classes: int,
        *,
        background: bool,
        middle_channels: int,
        channels: int,
        key_channels: int,
        stride: int,
        fixed_statistics: bool,
    ):
        super().__init__()
        self.background, self.pooling, self.fixed_statistics = (
            background,
            max(16 // stride, 1),
            fixed_statistics,
        )
        self.classifier = nn.Linear(channels, classes - background)
        self.query, self.key = (
            nn.Conv2d(middle_channels + channels, key_channels, 1, bias=False) for _ in range(2)
        )
        self.calibration = nn.Conv2d(classes, classes, 1, bias=False)
        # As in the released code: no factor, only a shift.
        self.norm = nn.BatchNorm2d(classes, eps=1e-3, momentum=0.001)
        self.norm.weight.requires_grad_(False)
        for layer in (self.query, self.key, self.calibration):
            nn.init.xavier_uniform_(layer.weight)

    def undecayed(self) -> list[Tensor]:
        """Parameters without weight decay."""
        return [self.query.weight, self.key.weight, self.calibration.weight, self.norm.bias]

    def train(self, mode: bool = True) -> Self:
        """As usual, but that the norm takes the batch's statistics whenever it may: it serves training only."""
        super().train(mode)
        self.norm.train(not self.fixed_statistics)
        return self

    def scores(self, stages: Stages) -> Tensor:
        """The classifier's scores, (B, F): of the mean over the whole crop."""
        return self.classifier(stages.high.float().mean(dim=(2, 3)))

    def forward(self, stages: Stages, reached: Tensor, presence: Tensor | None) -> ActivationMaps:
        """Scores, and refined maps of the classes that are there.

        Args:
            stages: of the encoder.
            reached: bool (B, H, W): pixels to which the attention may go, at any resolution.
            presence: bool (B, F): which classes an image has; None: those with a probability of at least 1/2.
        """
        score = self.scores(stages)
        if presence is None:
            presence = score.detach() >= 0
        high = self._pooled(stages.high.detach().float())
        middle = self._pooled(stages.middle.detach().float())
        if middle.shape[2:] != high.shape[2:]:
            middle = functional.interpolate(middle, size=high.shape[2:], mode="bilinear", align_corners=True)
        maps = activation_maps(high, self.classifier.weight.detach(), presence)
        features = torch.cat([middle, high], dim=1)
        at_points = functional.interpolate(
            reached[:, None].float(), size=high.shape[2:], mode="bilinear", align_corners=True
        )[:, 0]
        spread = maps + attended(self.query(features), self.key(features), maps, at_points >= 0.5)
        if self.background:
            spread = torch.cat([2 - spread.amax(dim=1, keepdim=True), spread], dim=1)
        return ActivationMaps(score, self.norm(self.calibration(spread)))

    def _pooled(self, features: Tensor) -> Tensor:
        """At stride 16, each point the mean around where it lies when corners are aligned."""
        if self.pooling == 1:
            return features
        return functional.avg_pool2d(
            features, self.pooling + 1, self.pooling, self.pooling // 2, count_include_pad=False
        )


def activation_maps(features: Tensor, weight: Tensor, presence: Tensor) -> Tensor:
    """Where a class is seen, (B, F, h, w) from 0 to 1: relu(W_c . A), 0 where absent, divided by its maximum.

    Of a classifier over the mean of the features this is Grad-CAM: the gradient of a score is W_c / (h w) everywhere.

    Args:
        features: A, (B, K, h, w).
        weight: W, (F, K).
        presence: bool (B, F).
    """
    maps = torch.einsum("fk,bkhw->bfhw", weight, features).relu() * presence[:, :, None, None]
    largest = maps.amax(dim=(2, 3), keepdim=True)
    return maps / largest.where(largest > 0, 1)


def attended(query: Tensor, key: Tensor, maps: Tensor, reached: Tensor) -> Tensor:
    """Of each point the mean of the maps over all points, weighted by softmax(q . k / sqrt(d)), (B, F, h, w).

    Args:
        query: (B, d, h, w).
        key: (B, d, h, w).
        maps: (B, F, h, w).
        reached: bool (B, h, w); points outside have no weight, unless all are outside, which are weighted alike then.
    """
    similarity = query.flatten(2).transpose(1, 2) @ key.flatten(2) / sqrt(query.shape[1])
    similarity = similarity.where(reached.flatten(1)[:, None], -_OUT_OF_REACH)
    return (maps.flatten(2) @ similarity.softmax(dim=2).transpose(1, 2)).view_as(maps)
