"""Translates the networks in the authors' released checkpoints into ours, tensor by tensor."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from u2pl.models.deeplab import AUXILIARY
from u2pl.models.resnet import backbone_name
from u2pl.models.weights import FURTHER

_DECODER = {
    "low_conv": "low",
    # Behind the pooling, which has no weights, stand a convolution and its batch norm.
    "aspp.conv1.1": "aspp.pool.0",
    "aspp.conv1.2": "aspp.pool.1",
    "aspp.conv2": "aspp.branches.0",
    "aspp.conv3": "aspp.branches.1",
    "aspp.conv4": "aspp.branches.2",
    "aspp.conv5": "aspp.branches.3",
    "head": "aspp.project.0",
}
_HEADS = {"classifier": "classifier", "representation": "representer"}
_HEAD = {"0": "0.0", "1": "0.1", "4": "2.0", "5": "2.1", "8": "4"}
"""A head's layers in order, without weights: ReLU and dropout, which we count in other groups."""
_NAMES = {f"decoder.{theirs}.": f"{ours}." for theirs, ours in _DECODER.items()} | {
    f"decoder.{head}.{theirs}.": f"{own}.{ours}."
    for head, own in _HEADS.items()
    for theirs, ours in _HEAD.items()
}
_BIASES = {
    f"{own}.{block}.0.bias": f"{own}.{block}.1.running_mean" for own in _HEADS.values() for block in (0, 2)
}
"""A bias that our heads do not have -> the mean that batch norm subtracts right behind it."""
_AUXILIARY, _OUR_AUXILIARY = "auxor.aux.", f"{FURTHER}{AUXILIARY}."


@dataclass(frozen=True)
class Translated:
    """A released network under our names."""

    state: dict[str, Any]
    """Name -> tensor, for `DeepLabV3Plus` with the deep stem; what has no name there keeps its own."""
    auxiliary: list[str]
    """Those of the auxiliary head, which only serves training."""
    missing: list[str]
    """Biases (under our scheme of names) that the released network has and these tensors lack."""

    @property
    def classes(self) -> int | None:
        """Number of classes, None where there is no classifier to tell."""
        last = self.state.get("classifier.4.weight")
        return last.shape[0] if isinstance(last, Tensor) and last.ndim else None

    @property
    def has_representation(self) -> bool:
        """Whether there is anything of a representation head."""
        return any(name.startswith("representer.") for name in self.state)


def our_name(name: str) -> str:
    """What `DeepLabV3Plus` calls a tensor of a released checkpoint; any other name is returned as it is."""
    name = name.removeprefix("module.")
    if name.startswith("encoder."):
        return "backbone." + backbone_name(name.removeprefix("encoder."))
    if name.startswith(_AUXILIARY):
        return _OUR_AUXILIARY + name.removeprefix(_AUXILIARY)
    for theirs, ours in _NAMES.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def translate(released: Mapping[str, Any]) -> Translated:
    """A released network (`model_state` or `teacher_state`) for `DeepLabV3Plus`; shapes are not compared here.

    The two convolutions in front of batch norms in their heads have a bias, ours have none: batch norm subtracts the
    channel's mean, bias included. So the bias is taken off the running mean, and the network computes the same, in
    evaluation and in training. A bias of another shape than its mean stays, as a tensor that has no place.
    """
    state = {our_name(name): tensor for name, tensor in released.items()}
    auxiliary = [name for name in state if name.startswith(_OUR_AUXILIARY)]
    missing = [bias for bias, mean in _BIASES.items() if mean in state and bias not in state]
    for bias, mean in _BIASES.items():
        b, m = state.get(bias), state.get(mean)
        if isinstance(b, Tensor) and isinstance(m, Tensor) and b.shape == m.shape:
            state[mean] = m - state.pop(bias)
    return Translated(state, auxiliary, missing)
