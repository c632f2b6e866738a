"""A network with the weights that some file holds, to be used and not trained any further."""

from collections.abc import Mapping
from typing import Any

import torch

from u2pl.models import weights
from u2pl.models.deeplab import DeepLabV3Plus
from u2pl.settings import Recipe
from u2pl.settings.device import torch_device


def trained_network(
    state: Any, classes: int, recipe: Recipe, *, where: str, remedy: str, device: str | torch.device | None
) -> DeepLabV3Plus:
    """The network that tensors are of, in evaluation mode; what served its training alone is left out.

    Args:
        state: tensor by name.
        classes: how many.
        recipe: it was trained by.
        where: the tensors come from.
        remedy: a sentence that says what to do where they do not fit.
        device: None: that which this process computes on, a GPU where there is one.

    Raises:
        UserError: the tensors are damaged, or those of another network.
    """
    found: Mapping[str, Any] = weights.tensors(state, where, remedy)
    found = {name: tensor for name, tensor in found.items() if not name.startswith(weights.FURTHER)}
    representation = any(name.startswith("representer.") for name in found)
    recipe = recipe.model_copy(update={"weights": "none", "auxiliary": 0.0})
    network = DeepLabV3Plus(classes, recipe, representation=representation)
    weights.fit(found, network).check(where, remedy)
    network.load_state_dict(found, strict=False)
    moved: Any = network.to(torch_device() if device is None else device)
    laid_out: DeepLabV3Plus = moved.to(memory_format=torch.channels_last)
    return laid_out.eval()
