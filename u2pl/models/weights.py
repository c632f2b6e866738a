"""Starts a network from a file: weights for its backbone, or those of a run for all of it."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from u2pl.errors import UserError, is_out_of_memory
from u2pl.models.backbone import Backbone

_log = logging.getLogger(__name__)

_LISTED = 20
"""Tensors of a kind that an error names."""

FURTHER = "further."
"""What the names of tensors begin with that a network has for training alone, such as a method's own heads."""

_HEADS = ("classifier.", "representer.", FURTHER)

_HARMLESS: list[Any] = [
    *((np.float64().__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("_core", "core")),
    *(np.dtype, type(np.dtype(np.float64)), type(np.dtype(np.float32))),
]
"""A numpy number among plain values, such as the best mIoU of a released checkpoint, is let in too."""


def _content(path: Path) -> Any:
    if path.suffix in (".safetensors", ".u2pl"):  # tensors by name and nothing else, as timm's hub has them
        from safetensors.torch import load_file

        tensors = load_file(path)
        return {"state": tensors} if path.suffix == ".u2pl" else tensors
    with torch.serialization.safe_globals(_HARMLESS):
        return torch.load(path, map_location="cpu", weights_only=True)


def read(path: Path) -> dict[str, Any]:
    """The dictionary in a file that `torch.save` or safetensors wrote, on the CPU; no code in it is run.

    Raises:
        UserError: there is no such file, it is damaged, it holds no dictionary, or more than tensors and plain values.
    """
    if not path.is_file():  # a folder, or a pipe that would be waited for
        raise UserError(
            f"There is no file {path} to take weights from. Name one that exists, or say --set weights=none or "
            "weights=imagenet."
        )
    try:
        content = _content(path)
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}). Make it readable, or name another."
        ) from None
    except Exception as error:  # whatever half a file does to the unpickler
        if is_out_of_memory(error):
            raise
        raise UserError(
            f"{path} cannot be read ({type(error).__name__}): it is damaged, or holds objects besides tensors and "
            "plain values, which could run code. Copy or download it again; if it comes from somebody you trust, load "
            "it yourself and save what is needed of it, a dictionary of tensors."
        ) from None
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise UserError(
            f"{path} holds a {type(content).__name__}, no tensors by name. Save the network's state_dict()."
        )
    return content


def tensors(state: Any, where: str, remedy: str) -> Mapping[str, Any]:
    """A network's tensors by name, as a file holds them; what they fit is not asked here.

    Raises:
        UserError: they are no such thing, or some are not plain numbers, all finite; it ends with `remedy`.
    """
    if not isinstance(state, Mapping) or not all(isinstance(name, str) for name in state):
        kind = (
            "tensors by other things than names"
            if isinstance(state, Mapping)
            else f"a {type(state).__name__}"
        )
        raise UserError(f"{where} holds {kind} where a network's tensors should be. {remedy}")
    strange = [name for name, value in state.items() if isinstance(value, Tensor) and not _is_plain(value)]
    if strange:
        raise UserError(f"{where} holds tensors that are not all finite numbers: {listed(strange)}. {remedy}")
    return state


def _is_plain(tensor: Tensor) -> bool:
    """Whether it has its values, all of them real and finite."""
    if tensor.layout != torch.strided or tensor.is_meta or tensor.is_complex() or tensor.is_quantized:
        return False
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


@dataclass(frozen=True)
class Fit:
    """How the tensors of a file fit those of a network."""

    matched: list[str]
    missing: list[str]
    """In the network only."""
    misshaped: dict[str, str]
    """Name -> both shapes, in words."""
    unexpected: list[str]
    """In the file only."""

    def check(self, what: str, remedy: str, *, allowed: Iterable[str] = ()) -> None:
        """Pass if everything fits, but for names that start with one of `allowed`.

        Raises:
            UserError: something does not; it lists what, and ends with `remedy`.
        """
        kinds = {
            "missing in the file": self.missing,
            "of another shape": [f"{name} ({shapes})" for name, shapes in self.misshaped.items()],
            "not in the network": self.unexpected,
        }
        start = tuple(allowed)
        kinds = {kind: [n for n in names if not n.startswith(start)] for kind, names in kinds.items()}
        if any(kinds.values()):
            lines = [f"  {len(names)} {kind}: {listed(names)}" for kind, names in kinds.items() if names]
            head = f"{what} does not fit the network; {len(self.matched)} tensors do, these do not:"
            raise UserError("\n".join([head, *lines, remedy]))


def listed(names: list[str]) -> str:
    """The first names of a list, and how many more there are."""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def fit(state: Mapping[str, Any], network: nn.Module) -> Fit:
    """Compare by name and shape; batch norm's count of batches may be missing: old files lack it, nothing reads it."""
    own = network.state_dict()
    matched, misshaped = [], {}
    for name in filter(own.__contains__, state):
        found = tuple(state[name].shape) if isinstance(state[name], Tensor) else type(state[name]).__name__
        if found == tuple(own[name].shape):
            matched.append(name)
        else:
            misshaped[name] = f"{found} in the file, {tuple(own[name].shape)} in the network"
    missing = [name for name in own if name not in state and not name.endswith(".num_batches_tracked")]
    return Fit(matched, missing, misshaped, [name for name in state if name not in own])


def initialise(network: nn.Module, backbone: Backbone, path: Path) -> None:
    """Give a network, or its backbone alone, the weights in a file.

    The weights.pt of a run, or a model file, is for the whole network. Its heads alone may differ, as they do for other
    classes or another method: a warning names what of them starts at random or is not used. Any other file is for the
    backbone.

    Raises:
        UserError: the file cannot be read, or holds other tensors than the network needs; all are listed.
    """
    content = read(path)
    if "model_state" in content:
        raise UserError(
            f"{path} is a checkpoint of the released code. Import it (u2pl import {path} --as NAME), then start from "
            "the weights.pt of that run."
        )
    if isinstance(content.get("state"), Mapping):
        remedy = "Take a run with the same backbone, stem and width."
        load(network, tensors(content["state"], str(path), remedy), path, remedy, _HEADS)
        return
    backbone.start_from(tensors(content, str(path), "Take a file of weights for this backbone."), path)


def load(
    module: nn.Module, state: Mapping[str, Any], path: Path, remedy: str, may_differ: tuple[str, ...] = ()
) -> None:
    """Give a network the tensors of a file that have a place in it.

    Raises:
        UserError: a tensor has no place, or a place no tensor, and its name does not start with one of `may_differ`.
    """
    found = fit(state, module)
    found.check(str(path), remedy, allowed=may_differ)
    anew, unused = [*found.missing, *found.misshaped], found.unexpected
    if anew:
        _log.warning("Not in %s, or of another shape, so they start at random: %s.", path, listed(anew))
    if unused:
        _log.warning("In %s, but this network has no such head: %s.", path, listed(unused))
    module.load_state_dict({name: state[name] for name in found.matched}, strict=False)
