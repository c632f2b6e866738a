"""DeepLabv3+ with the paper's segmentation and representation heads (Sec. 4.1)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from u2pl.models import weights
from u2pl.models.backbone import Stages
from u2pl.models.dropout import ChannelDropout
from u2pl.models.encoders import build
from u2pl.settings import WORDS_FOR_WEIGHTS, Recipe

AUXILIARY = "auxiliary"
"""The name of the head on the last stage but one, among what a network says further."""

_RATES = (12, 24, 36)
_AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class Output(NamedTuple):
    """What the network says about a batch, at a quarter of its resolution."""

    logits: Tensor
    """(B, C, h, w), before the softmax."""
    representation: Tensor | None
    """(B, D, h, w), or (A, D) at the pixels that were asked for; not normalised. None where the network has no
    representation head or was not asked."""
    further: Mapping[str, Tensor] = {}
    """What else a method's own network says, image by image."""


class Features(NamedTuple):
    """What the heads of a network see."""

    stages: Stages
    """Of the encoder."""
    joined: Tensor
    """(B, 2 width, h, w): low-level features beside those of the ASPP, a quarter of the picture's size."""
    hidden: Tensor
    """(B, width, h, w): what the classifier makes of them before its last convolution."""


def _conv_bn_relu(inputs: int, outputs: int, kernel: int = 1, dilation: int = 1) -> nn.Sequential:
    padding = dilation * (kernel // 2)
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: the whole image, 1x1, and 3x3 at dilations 12, 24 and 36."""

    def __init__(self, inputs: int, width: int, dropout: float):
        super().__init__()
        # Batch norm over the pooled branch's single pixel an image: a training batch needs two images.
        self.pool = _conv_bn_relu(inputs, width)
        self.branches = nn.ModuleList(
            [_conv_bn_relu(inputs, width), *(_conv_bn_relu(inputs, width, 3, rate) for rate in _RATES)]
        )
        self.project = nn.Sequential(_conv_bn_relu(5 * width, width, 3), ChannelDropout(width, dropout))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, width, h, w)."""
        pooled = self.pool(x.mean(dim=(2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])
        return self.project(torch.cat([pooled, *(branch(x) for branch in self.branches)], dim=1))


def _head(inputs: int, width: int, outputs: int, dropout: float) -> nn.Sequential:
    """Two Conv-BN-ReLU blocks, the first of which halves the channels, and a 1x1 classifier (Sec. 4.1)."""
    return nn.Sequential(
        _conv_bn_relu(inputs, width, 3),
        ChannelDropout(width, dropout),
        _conv_bn_relu(width, width, 3),
        ChannelDropout(width, dropout),
        nn.Conv2d(width, outputs, 1),
    )


def _auxiliary(inputs: int, width: int, outputs: int, dropout: float) -> nn.Sequential:
    """The released code's second classifier, which only serves training."""
    return nn.Sequential(
        nn.Conv2d(inputs, width, 3, padding=1),  # with a bias, unlike all others in front of a batch norm
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        ChannelDropout(width, dropout),
        nn.Conv2d(width, outputs, 1),
    )


class DeepLabV3Plus(nn.Module):
    """Encoder h, segmentation head f and representation head g; for training an auxiliary head, where the recipe says.

    Args:
        classes: number of classes C.
        recipe: backbone, width (256 in the paper: heads see 512 channels), representation size D and dropout.
        representation: False leaves head g out, for methods that have no use for it.

    Raises:
        UserError: the weights that the recipe names cannot be had, or do not fit.
    """

    def __init__(self, classes: int, recipe: Recipe, *, representation: bool):
        super().__init__()
        self.autocast = _AUTOCAST.get(recipe.precision)
        self.fixed_statistics = recipe.batch_norm == "fixed"
        self.backbone = build(recipe)
        width, dropout = recipe.width, recipe.dropout
        self.aspp = ASPP(self.backbone.channels, width, dropout)
        # The released code keeps 256 low-level channels where DeepLabv3+ has 48, and a bias in this one convolution.
        self.low = nn.Sequential(
            nn.Conv2d(self.backbone.low_channels, width, 1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        self.classifier = _head(2 * width, width, classes, dropout)
        self.representer = _head(2 * width, width, recipe.representation, dropout) if representation else None
        self.further = nn.ModuleDict()
        """What serves training alone: the auxiliary head, and whatever a method's own network has besides."""
        if recipe.auxiliary:
            self.further[AUXILIARY] = _auxiliary(self.backbone.middle_channels, width, classes, dropout)
        if recipe.weights not in WORDS_FOR_WEIGHTS:
            weights.initialise(self, self.backbone, Path(recipe.weights))

    def forward(self, image: Tensor, *, represent: bool | Tensor = True) -> Output:
        """Logits, and representations where `represent` and there is a head for them.

        Args:
            image: (B, 3, H, W), normalised.
            represent: whether representations are wanted; or (A,) int64, of which pixels of the map they are, counted
                row by row and image after image. The head's last convolution then computes these alone.
        """
        with self.in_precision(image.device):
            return self.answers(self.features(image), represent=represent)

    def answers(self, features: Features, *, represent: bool | Tensor) -> Output:
        """What the heads make of features; the auxiliary one only while it is being trained."""
        logits = self.classifier[-1](features.hidden)
        head = None if represent is False else self.representer
        representation = None
        if head is not None and isinstance(represent, Tensor):
            representation = _at(head[-1], rows(head[:-1](features.joined)).index_select(0, represent))
        elif head is not None:
            representation = head(features.joined)
        further = {}
        if AUXILIARY in self.further and self.further[AUXILIARY].training:
            auxiliary = self.further[AUXILIARY]
            if any(parameter.requires_grad for parameter in auxiliary.parameters()):  # not a teacher's
                further[AUXILIARY] = auxiliary(features.stages.middle).float()
        # Softmax, entropy and losses need float32 behind a network in half precision.
        return Output(logits.float(), None if representation is None else representation.float(), further)

    def in_precision(self, device: torch.device) -> torch.autocast:
        """The recipe's precision, for everything that is computed inside."""
        kind = self.autocast
        return torch.autocast(device.type, kind or torch.bfloat16, enabled=kind is not None)

    def features(self, image: Tensor) -> Features:
        """What the heads see of images, (B, 3, H, W), normalised."""
        stages = self.backbone(image.contiguous(memory_format=torch.channels_last))
        low = self.low(stages.low)
        high = interpolate(self.aspp(stages.high), size=low.shape[2:], mode="bilinear", align_corners=True)
        joined = torch.cat([low, high], dim=1)
        return Features(stages, joined, self.classifier[:-1](joined))

    def train(self, mode: bool = True) -> Self:
        """As usual, but that batch norm's statistics can be fixed."""
        super().train(mode)
        if self.fixed_statistics:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def parameter_groups(self, lr: float, head_lr_multiplier: float) -> list[dict[str, Any]]:
        """The encoder's parameters at `lr`, all others at `lr` x `head_lr_multiplier` (Sec. 4.1)."""
        encoder = {id(parameter) for parameter in self.backbone.parameters()}
        heads = [parameter for parameter in self.parameters() if id(parameter) not in encoder]
        return [
            {"params": list(self.backbone.parameters()), "lr": lr},
            {"params": heads, "lr": lr * head_lr_multiplier},
        ]


def rows(map_BDHW: Tensor) -> Tensor:
    """(B, D, H, W) as one row a pixel, (B H W, D)."""
    return map_BDHW.permute(0, 2, 3, 1).flatten(0, 2)


def _at(convolution: nn.Module, inputs_AK: Tensor) -> Tensor:
    """A convolution with kernels of 1x1 at some pixels, (A, D)."""
    return convolution(inputs_AK[:, :, None, None])[:, :, 0, 0]


def upsample(logits: Tensor, size: tuple[int, ...]) -> Tensor:
    """Logits at another resolution: bilinear, corners aligned."""
    if logits.shape[2:] == tuple(size):
        return logits  # the same numbers, which interpolation would copy
    return interpolate(logits, size=size, mode="bilinear", align_corners=True)
