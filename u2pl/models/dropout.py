"""Channel dropout whose draws belong to images: however a batch is cut, an image loses the same channels."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class ChannelDropout(nn.Module):
    """Sets channels to 0 and scales the others by 1 / (1 - p), in training mode.

    Until `choose` has said which channels each image keeps, every pass draws its own, as `nn.Dropout2d` does.

    Args:
        channels: of what it is given.
        p: share of them.
    """

    def __init__(self, channels: int, p: float):
        super().__init__()
        self.channels, self.p = channels, p
        self.kept: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, h, w), both ways."""
        if not self.training or self.p == 0:
            return x
        if self.kept is None:
            return functional.dropout2d(x, self.p)
        return x * self.kept.to(x.dtype)


def draw(network: nn.Module, images: int, generator: torch.Generator) -> list[Tensor]:
    """For each dropout of a network the factors of the channels of so many images, (images, channels, 1, 1).

    Args:
        generator: on the CPU.
    """
    return [
        (torch.rand(images, layer.channels, 1, 1, generator=generator) >= layer.p) / (1 - layer.p)
        for layer in _layers(network)
    ]


def choose(network: nn.Module, factors: list[Tensor], images: Tensor, device: torch.device) -> None:
    """Let the next passes be over these of the images for which `factors` were drawn.

    Args:
        network: whose dropouts they are.
        factors: from `draw`.
        images: int64 (B,), on the CPU.
        device: the network's.
    """
    for layer, of_all in zip(_layers(network), factors, strict=True):
        kept = of_all[images]
        # From pinned memory, or the copy would wait for the device.
        layer.kept = kept.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else kept


def _layers(network: nn.Module) -> list[ChannelDropout]:
    return [module for module in network.modules() if isinstance(module, ChannelDropout) and module.p > 0]
