"""GCT's flaw detector: a network that is shown a picture and a prediction, and tells where it is wrong."""

from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, leaky_relu

from u2pl.models.deeplab import Output, upsample

_LAYERS = ((64, 2), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1))
"""Channels and stride of each convolution but the last."""
_LEAST = 92
"""Pixels of a side from which on its map has more than one value."""
_EPSILON = 1e-5


class MixedNorm(nn.Module):
    """Batch norm for the first half of the channels; the others of each image are normalised by themselves."""

    def __init__(self, channels: int):
        super().__init__()
        self.batch = nn.BatchNorm2d(channels // 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, h, w), both ways."""
        first, second = x.chunk(2, dim=1)
        # By hand, since a map of a single pixel is more than torch's can bear; it becomes 0.
        variance, mean = torch.var_mean(second, dim=(2, 3), correction=0, keepdim=True)
        return torch.cat([self.batch(first), (second - mean) * (variance + _EPSILON).rsqrt()], dim=1)


class FlawDetector(nn.Module):
    """Eight convolutions of 4 x 4, the last of which gives one channel (Ke et al., 2020).

    Args:
        classes: of the prediction.
        fixed_statistics: whether batch norm keeps the statistics it starts with.
    """

    def __init__(self, classes: int, *, fixed_statistics: bool):
        super().__init__()
        self.fixed_statistics = fixed_statistics
        inputs = [3 + classes, *(channels for channels, _ in _LAYERS)]
        # No bias where a norm takes it off again: its gradient would be rounding alone, which Adam makes steps of.
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, channels, 4, stride=stride, padding=1, bias=channels == 1)
            for before, (channels, stride) in zip(inputs, (*_LAYERS, (1, 2)), strict=True)
        )
        self.norms = nn.ModuleList(MixedNorm(channels) for channels, _ in _LAYERS)

    def forward(self, image: Tensor, *, logits: Tensor) -> Output:
        """A map of flaws where a network has its logits, (B, 1, H, W), unbounded; trained towards 0 to 1.

        Args:
            image: (B, 3, H, W), normalised.
            logits: (B, C, h, w), the prediction's.
        """
        with torch.autocast(image.device.type, enabled=False):
            seen = torch.cat([image, upsample(logits, image.shape[2:]).softmax(dim=1)], dim=1)
            x = _large_enough(seen)
            for convolution, norm in zip(self.convolutions, self.norms, strict=False):
                x = leaky_relu(norm(convolution(x)), 0.2)
            x = self.convolutions[-1](x)
            return Output(interpolate(x, size=image.shape[2:], mode="bilinear", align_corners=True), None)

    def train(self, mode: bool = True) -> Self:
        """As usual, but that batch norm's statistics can be fixed."""
        super().train(mode)
        if self.fixed_statistics:
            for norm in self.norms:
                norm.eval()
        return self


def _large_enough(x: Tensor) -> Tensor:
    """A small picture several times as large: of one below 92 pixels the detector would make a single value."""
    factor = -(-_LEAST // min(x.shape[2:]))
    return x if factor == 1 else interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
