"""torchvision's residual networks with the stride of the last stages turned into dilation; on demand a deep stem."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torchvision.models as zoo
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet

from u2pl.errors import UserError, reason
from u2pl.models import weights as weight_files
from u2pl.models.backbone import Backbone, Stages

_MULTI_GRID = (2, 2, 4)


def _dilate(stage: nn.Sequential, previous: int, dilation: int, grid: tuple[int, ...]) -> None:
    """Remove a stage's stride and dilate its 3x3 convolutions.

    As is usual, the first block keeps the dilation of the stage before (`previous`), the others take
    this stage's; each is multiplied by its entry of `grid`.
    """
    for index, block in enumerate(stage):
        d = (previous if index == 0 else dilation) * grid[min(index, len(grid) - 1)]
        for module in block.modules():
            if not isinstance(module, nn.Conv2d):
                continue
            module.stride = (1, 1)
            if module.kernel_size == (3, 3):
                module.dilation = (d, d)
                module.padding = (d, d)


def _resnet(name: str, weights: str, zero_init_residual: bool) -> ResNet:
    if name == "resnet10":
        if weights != "none":
            raise UserError(
                "There are no ImageNet weights for resnet10. Use resnet18, or --set weights=none."
            )
        return ResNet(BasicBlock, [1, 1, 1, 1], zero_init_residual=zero_init_residual)
    try:
        return getattr(zoo, name)(
            weights="DEFAULT" if weights == "imagenet" else None, zero_init_residual=zero_init_residual
        )
    # urllib's errors are OSErrors; the others are what a damaged file ends in.
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        url = zoo.get_model_weights(name).DEFAULT.url
        raise UserError(
            f"The ImageNet weights of {name} could not be downloaded or read ({reason(error)}). Where there is "
            f"network, download {url} and put it here as "
            f"{Path(torch.hub.get_dir(), 'checkpoints', url.rpartition('/')[2])}, or "
            "train from scratch with --set weights=none."
        ) from None


def _deepen(net: ResNet, zero_init_residual: bool) -> None:
    """Give a ResNet three 3x3 convolutions for the one of 7x7, and 128 channels instead of 64 behind them.

    The new layers start as torchvision's own do.
    """

    def convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
        return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)

    net.conv1 = nn.Sequential(
        convolution(3, 64, stride=2),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
        convolution(64, 64),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
        convolution(64, 128),
    )
    net.bn1 = nn.BatchNorm2d(128)
    net.maxpool = nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True)
    net.inplanes = 128
    net.layer1 = net._make_layer(type(net.layer1[0]), 64, len(net.layer1))
    for module in (*net.conv1.modules(), *net.layer1.modules()):
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    if zero_init_residual:
        for block in net.layer1:
            nn.init.zeros_((block.bn2 if isinstance(block, BasicBlock) else block.bn3).weight)


class ResNetBackbone(Backbone):
    """A ResNet without its classifier.

    Args:
        name: resnet10, 18, 34, 50 or 101.
        weights: "none" (He initialisation) or "imagenet" (torchvision's newest weights, for the plain stem).
        stem: "plain" (a 7x7 convolution and 64 channels) or "deep" (three of 3x3, 128 channels, and a max-pool that
            keeps a last window over the edge, as in the released code).
        output_stride: input pixels per feature of the last stage: 8, 16 or 32.
        multi_grid: multiply the last stage's dilations by (2, 2, 4), as the released code does.
        zero_init_residual: start the last norm of every residual block at zero, so that the block is the identity,
            as the released code does; ImageNet weights replace it.

    Raises:
        UserError: ImageNet weights are asked for and do not exist, or can neither be read nor downloaded.
    """

    def __init__(
        self,
        name: str,
        *,
        weights: str = "none",
        stem: str = "plain",
        output_stride: int = 8,
        multi_grid: bool = True,
        zero_init_residual: bool = True,
    ):
        super().__init__()
        grid = _MULTI_GRID if multi_grid else (1,)
        if stem == "deep" and weights == "imagenet":
            raise UserError(
                "torchvision has no ImageNet weights for the deep stem. Name a file with the authors' "
                "(--set weights=FILE), or take torchvision's stem (--set stem=plain)."
            )
        net = _resnet(name, weights, zero_init_residual)
        if stem == "deep":
            _deepen(net, zero_init_residual)
        if output_stride == 8:
            _dilate(net.layer3, 1, 2, (1,))
            _dilate(net.layer4, 2, 4, grid)
        elif output_stride == 16:
            _dilate(net.layer4, 1, 2, grid)
        self.stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
        self.layer1, self.layer2, self.layer3, self.layer4 = net.layer1, net.layer2, net.layer3, net.layer4
        self.low_channels, self.middle_channels, self.channels = map(
            _channels, (net.layer1, net.layer3, net.layer4)
        )

    def forward(self, image: Tensor) -> Stages:
        """Features of the first stage (stride 4), of the third, and of the last one (output stride)."""
        low = self._through(self.layer1, self.stem(image))
        middle = self._through(self.layer3, self._through(self.layer2, low))
        return Stages(low, middle, self._through(self.layer4, middle))

    def start_from(self, state: Mapping[str, Any], path: Path) -> None:
        """Take a ResNet's state dict, torchvision's or (deep stem) the authors'; its classifier `fc` is left out."""
        named = {backbone_name(name.removeprefix("module.")): tensor for name, tensor in state.items()}
        weight_files.load(
            self,
            {name: tensor for name, tensor in named.items() if not name.startswith("fc.")},
            path,
            "Take a file for this backbone and stem, or set them: --set stem=deep for the authors' file.",
        )

    def _through(self, stage: nn.Module, x: Tensor) -> Tensor:
        for block in stage.children():
            x = self._recomputed(block, x)
        return x


def backbone_name(name: str) -> str:
    """What the backbone calls a tensor of a ResNet: `bn1.bias` -> `stem.1.bias`; later layers keep their names."""
    first, dot, rest = name.partition(".")
    return {"conv1": "stem.0", "bn1": "stem.1"}.get(first, first) + dot + rest


def _channels(stage: nn.Sequential) -> int:
    """Channels that come out of a residual stage: those of the last convolution in its last block."""
    return [module for module in stage.modules() if isinstance(module, nn.Conv2d)][-1].out_channels
