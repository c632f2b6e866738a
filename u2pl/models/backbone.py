"""torchvision's residual networks with the stride of the last stages turned into dilation; on demand a deep stem."""

import importlib.util
import pickle
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from u2pl.errors import UserError


def _declare_missing_torchvision_operators() -> None:
    """Let torchvision import beside a torch built without CUDA.

    torchvision's published wheels are linked against CUDA. Where that library cannot be loaded, its
    import ends with "operator torchvision::nms does not exist", although nothing here detects boxes.
    Declaring the two names is all the import asks for.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise UserError("torchvision is not installed. Install the project again: make install")
    try:
        for library in Path(spec.origin).parent.glob("_C*.so"):
            torch.ops.load_library(str(library))
    except OSError:
        for name in ("nms", "qnms"):
            _fragment.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


_fragment = torch.library.Library("torchvision", "FRAGMENT")  # the declarations live as long as this object
_declare_missing_torchvision_operators()

import torchvision.models as zoo  # noqa: E402
from torchvision.models.resnet import BasicBlock, ResNet  # noqa: E402

_CONSTRUCTORS = {
    "resnet18": zoo.resnet18,
    "resnet34": zoo.resnet34,
    "resnet50": zoo.resnet50,
    "resnet101": zoo.resnet101,
}
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
        return _CONSTRUCTORS[name](
            weights="DEFAULT" if weights == "imagenet" else None, zero_init_residual=zero_init_residual
        )
    # urllib's errors are OSErrors; the others are what a damaged file ends in.
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        url = zoo.get_model_weights(name).DEFAULT.url
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"The ImageNet weights of {name} could not be downloaded or read ({reason}). Where there is network, "
            f"download {url} and put it here as {Path(torch.hub.get_dir(), 'checkpoints', url.rpartition('/')[2])}, or "
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


class Backbone(nn.Module):
    """A ResNet without its classifier.

    Args:
        name: resnet10, 18, 34, 50 or 101.
        weights: "none" (He initialisation) or "imagenet" (torchvision's newest weights, for the plain stem).
        stem: "plain" (a 7x7 convolution and 64 channels) or "deep" (three of 3x3, 128 channels, and a max-pool that
            keeps a last window over the edge, as in the released code).
        output_stride: input pixels per feature of the last stage, 8 or 16.
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
        else:
            _dilate(net.layer4, 1, 2, grid)
        self.stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
        self.layer1, self.layer2, self.layer3, self.layer4 = net.layer1, net.layer2, net.layer3, net.layer4
        self.recompute = False
        """Whether training computes the activations of residual blocks again in the backward pass, instead of keeping
        them."""
        self.low_channels = _channels(net.layer1)
        self.channels = _channels(net.layer4)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Features of the first stage (stride 4) and of the last one (output stride)."""
        low = self._through(self.layer1, self.stem(image))
        high = low
        for stage in (self.layer2, self.layer3, self.layer4):
            high = self._through(stage, high)
        return low, high

    def _through(self, stage: nn.Module, x: Tensor) -> Tensor:
        if not (self.recompute and self.training and torch.is_grad_enabled()):
            return stage(x)
        for block in stage.children():
            contexts = partial(_forward_and_again, block)
            # Nothing is drawn at random in a block.
            x = checkpoint(block, x, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)
        return x


def _forward_and_again(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """What holds while a block is computed for the first time, and for the second."""
    return nullcontext(), _statistics_untouched(block)


@contextmanager
def _statistics_untouched(block: nn.Module) -> Iterator[None]:
    """Batch norm sees the batch a second time, and must not count it twice."""
    norms = [m for m in block.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm, (_, count) in zip(norms, before, strict=True):
        norm.momentum = 0.0
        norm.num_batches_tracked = None if count is None else count.clone()
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count


def _channels(stage: nn.Sequential) -> int:
    """Channels that come out of a residual stage: those of the last convolution in its last block."""
    return [module for module in stage.modules() if isinstance(module, nn.Conv2d)][-1].out_channels
