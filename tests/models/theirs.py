"""The network of the released code, written anew from its description for tests; its names are the checkpoints'."""

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

BLOCKS = {"resnet10": [1, 1, 1, 1], "resnet50": [3, 4, 6, 3], "resnet101": [3, 4, 23, 3]}


class Basic(nn.Module):
    expansion = 1

    def __init__(self, inputs: int, planes: int, stride: int, dilation: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, dilation, dilation, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        if stride > 1 or inputs != planes:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, planes, 1, stride, bias=False), nn.BatchNorm2d(planes)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (y + (self.downsample(x) if hasattr(self, "downsample") else x)).relu()


class Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, inputs: int, planes: int, stride: int, dilation: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, 4 * planes, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * planes)
        if stride > 1 or inputs != 4 * planes:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, 4 * planes, 1, stride, bias=False), nn.BatchNorm2d(4 * planes)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())).relu()
        return (self.bn3(self.conv3(y)) + (self.downsample(x) if hasattr(self, "downsample") else x)).relu()


class Encoder(nn.Module):
    """ResNet with the deep stem, output stride 8 and multi-grid (2, 2, 4)."""

    def __init__(self, name: str):
        super().__init__()
        self.conv1 = nn.Sequential(
            nn.Conv2d(3, 64, 3, 2, 1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3, 1, 1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.Conv2d(64, 128, 3, 1, 1, bias=False),
        )
        self.bn1 = nn.BatchNorm2d(128)
        block = Basic if name == "resnet10" else Bottleneck
        counts = BLOCKS[name]
        channels = 128
        dilations = [[1] * counts[0], [1] * counts[1], [1] + [2] * (counts[2] - 1), [4, 8, 16][: counts[3]]]
        for k, (planes, stride) in enumerate([(64, 1), (128, 2), (256, 1), (512, 1)]):
            blocks = []
            for i, dilation in enumerate(dilations[k]):
                blocks.append(block(channels, planes, stride if i == 0 else 1, dilation))
                channels = planes * block.expansion
            setattr(self, f"layer{k + 1}", nn.Sequential(*blocks))
        self.low_channels, self.mid_channels, self.channels = (n * block.expansion for n in (64, 256, 512))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.bn1(self.conv1(x)).relu()
        low = self.layer1(nn.functional.max_pool2d(x, 3, 2, 1, ceil_mode=True))
        return low, self.layer4(self.layer3(self.layer2(low)))


class ASPP(nn.Module):
    def __init__(self, inputs: int, width: int):
        super().__init__()

        def branch(kernel: int, rate: int, *before: nn.Module) -> nn.Sequential:
            padding = rate if kernel == 3 else 0
            conv = nn.Conv2d(inputs, width, kernel, 1, padding, rate, bias=False)
            return nn.Sequential(*before, conv, nn.BatchNorm2d(width), nn.ReLU())

        self.conv1 = branch(1, 1, nn.AdaptiveAvgPool2d(1))
        self.conv2 = branch(1, 1)
        self.conv3, self.conv4, self.conv5 = (branch(3, rate) for rate in (12, 24, 36))

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.conv1(x).expand(-1, -1, *x.shape[2:])
        return torch.cat([pooled, *(conv(x) for conv in (self.conv2, self.conv3, self.conv4, self.conv5))], 1)


def head(width: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2 * width, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Dropout2d(0),
        nn.Conv2d(width, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Dropout2d(0),
        nn.Conv2d(width, outputs, 1),
    )


class Decoder(nn.Module):
    def __init__(self, encoder: Encoder, width: int, classes: int, representation: bool):
        super().__init__()
        self.low_conv = nn.Sequential(
            nn.Conv2d(encoder.low_channels, width, 1), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.aspp = ASPP(encoder.channels, width)
        self.head = nn.Sequential(
            nn.Conv2d(5 * width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Dropout2d(0),
        )
        self.classifier = head(width, classes)
        if representation:
            self.representation = head(width, width)

    def forward(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor | None]:
        low, high = self.low_conv(low), self.head(self.aspp(high))
        high = interpolate(high, low.shape[2:], mode="bilinear", align_corners=True)
        features = torch.cat([low, high], 1)
        representation = self.representation(features) if hasattr(self, "representation") else None
        return self.classifier(features), representation


class Auxiliary(nn.Module):
    def __init__(self, inputs: int, width: int, classes: int):
        super().__init__()
        self.aux = nn.Sequential(
            nn.Conv2d(inputs, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Dropout2d(0),
            nn.Conv2d(width, classes, 1),
        )


class Released(nn.Module):
    def __init__(
        self,
        name: str,
        width: int,
        classes: int,
        *,
        representation: bool = True,
        auxiliary: bool = False,
    ):
        super().__init__()
        self.encoder = Encoder(name)
        self.decoder = Decoder(self.encoder, width, classes, representation)
        if auxiliary:
            self.auxor = Auxiliary(self.encoder.mid_channels, width, classes)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.decoder(*self.encoder(image))

    def shake(self) -> "Released":
        """Batch norms and biases that are not what they start as, so that every tensor matters."""
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.5, 0.5)
                nn.init.uniform_(module.running_mean, -0.5, 0.5)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
            elif isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.uniform_(module.bias, -0.5, 0.5)
        return self

    def saved(self) -> dict[str, Tensor]:
        """The state dictionary as it is in a checkpoint."""
        return {f"module.{name}": tensor for name, tensor in self.state_dict().items()}
