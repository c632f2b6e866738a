"""How a network is built and trained on one data set, whatever the method."""

import re
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from u2pl.settings.base import Range, Settings

_MANY = 10**6
"""Of epochs, channels or images: beyond it a number is a slip of the keyboard, and memory or patience ends first."""

FORMERLY: Mapping[str, Any] = {
    "loss": "ce",
    "ohem_threshold": 0.7,
    "ohem_kept": 0.0845507,
    "auxiliary": 0.0,
    "limit_batches": 0,
}
"""What runs did before these settings were there. A run records them where it differs, so that what was trained before
is still what it was: its fingerprint, and what is read of it."""

WORDS_FOR_WEIGHTS = ("none", "imagenet")
"""What the setting `weights` may say; anything else is a file."""


RESNETS = ("resnet10", "resnet18", "resnet34", "resnet50", "resnet101")
TIMM = "timm:"
"""What the name of a backbone begins with that timm has."""


class Recipe(Settings):
    """How a network is built and trained on one data set (Sec. 4.1), whatever the method."""

    backbone: str
    """One of torchvision's residual networks (resnet10 has one basic block a stage, for demonstrations on a CPU), or
    `timm:NAME`, any feature extractor of timm."""
    stem: Literal["plain", "deep"]
    """A ResNet's first layers: torchvision's 7x7 convolution, or three of 3x3 as in the released code."""
    weights: str = Field(min_length=1)
    """What the network starts from: `none` (random weights), `imagenet` (torchvision's newest, timm's), or a file
    with the weights of the backbone or of a run."""
    output_stride: Literal[8, 16, 32]
    multi_grid: bool
    """Whether the dilations of a ResNet's last stage are multiplied by 2, 2 and 4."""
    zero_init_residual: bool
    """Whether the last batch norm of every residual block of a ResNet starts at zero; overwritten by ImageNet
    weights."""
    width: int = Field(gt=0, le=_MANY)
    representation: int = Field(gt=0, le=_MANY)
    dropout: float = Field(ge=0, lt=1)
    """Share of channels left out, behind the ASPP and in both heads."""
    resize: float = Field(gt=0, le=1)
    crop: int = Field(ge=32, le=_MANY)
    scale: Range
    interpolation: Literal["uint8", "float32"]
    """Whether scaled pictures are rounded to bytes."""
    padding_label: Literal["ignore", "class0"]
    """What the padding of a labelled crop is labelled as."""
    padding_unlabeled: Literal["ignore", "use"]
    """Whether the padding of an unlabelled crop takes part like its other pixels."""
    labeled_order: Literal["permutations", "oversampled"]
    """An endless sequence of permutations, or a multiset as long as the unlabelled list, drawn once for the run."""
    unlabeled_truth: bool
    """Whether masks of unlabelled images, where there are any, are opened to measure the pseudo-labels by."""
    batch: int = Field(ge=2, le=_MANY)
    micro_batch: int = Field(ge=0, le=_MANY)
    """Labelled images, and as many unlabelled ones, that go through the networks at once; 0: all that a process has.
    Thresholds, centres, negatives and losses are those of the whole batch all the same; batch norm's are not."""
    batch_norm: Literal["batch", "fixed"]
    """Statistics of the student's batch norm in training: the batch's, or those that its weights came with."""
    replicas: int = Field(ge=1, le=_MANY)
    """Groups that a batch is cut into, each with thresholds, class centres and losses of its own, which are averaged:
    what several devices that each look at their own images alone compute."""
    loss: Literal["ce", "ohem"]
    """On true labels: cross-entropy over all labelled pixels (Eq. 2), or over the hard ones alone."""
    ohem_threshold: float = Field(gt=0, lt=1)
    """A pixel whose true class a network gives a higher probability is not hard."""
    ohem_kept: float = Field(gt=0, le=1)
    """Share of a group's pixels that count at least, then the least certain ones; where fewer have a label, all do."""
    auxiliary: float = Field(ge=0)
    """Weight of the same loss of an auxiliary head on the last stage but one; at 0 there is none."""
    epochs: int = Field(ge=1, le=_MANY)
    limit_batches: int = Field(ge=0, le=_MANY)
    """Most steps of an epoch, to try something out; 0: all that there are."""
    lr: float = Field(gt=0)
    head_lr_multiplier: float = Field(gt=0)
    momentum: float = Field(ge=0, lt=1)
    weight_decay: float = Field(ge=0)
    poly_power: float = Field(ge=0)
    precision: Literal["auto", "float32", "bfloat16", "float16"]
    validate_every: int = Field(ge=1, le=_MANY)
    """Epochs between two validations; the last epoch always has one."""
    evaluation: Literal["whole", "sliding", "center"]
    """Whole images at the resolution of their masks, the same from windows as large as the crop, or the crop at the
    centre of the resized image."""
    score_padding: bool
    """Whether the padding of a centre crop is scored as class 0."""
    absent_iou: Literal["skip", "zero"]
    """What a class that nowhere occurs adds to the mean."""
    checkpoint: Literal["last", "best"]
    """Which network a finished run is reported by: the last, or the best on the validation set."""

    def recorded(self) -> dict[str, Any]:
        """What a run records of it, as JSON has it."""
        return {
            key: value
            for key, value in self.model_dump(mode="json").items()
            if key not in FORMERLY or value != FORMERLY[key]
        }

    @property
    def starts_deep_at_random(self) -> bool:
        """Whether the network is one that hardly anybody trains from random weights."""
        return self.weights == "none" and self.backbone not in RESNETS[:2]

    @field_validator("backbone")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name in RESNETS or re.fullmatch(rf"{TIMM}[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)?", name):
            return name
        raise ValueError(f"must be one of {', '.join(RESNETS)}, or {TIMM}NAME with one of timm's networks")

    @model_validator(mode="after")
    def _stem_belongs_to_a_resnet(self) -> Self:
        if self.stem == "deep" and self.backbone not in RESNETS:
            raise ValueError(f"stem=deep is of ResNets, and {self.backbone} is none; --set stem=plain")
        return self

    @model_validator(mode="after")
    def _parts_fill_a_batch(self) -> Self:
        if self.micro_batch and self.batch % self.micro_batch:
            raise ValueError(f"a batch of {self.batch} is no multiple of micro_batch={self.micro_batch}")
        return self

    @model_validator(mode="after")
    def _replicas_share_a_batch(self) -> Self:
        if self.batch % self.replicas or self.batch < 2 * self.replicas:
            raise ValueError(
                f"{self.replicas} replicas do not cut a batch of {self.batch} into equal groups of two images or more; "
                "--set replicas=1 makes one group"
            )
        return self
