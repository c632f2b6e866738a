"""Training methods, one file each; importing the folder registers every one of them."""

import importlib
import pkgutil

from u2pl.methods.base import Classes, Method, Step, Targets
from u2pl.methods.registry import (
    create,
    epoch_steps,
    method,
    names,
    passes,
    settings,
    trained,
    uses_unlabeled,
)

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = [
    "Classes",
    "Method",
    "Step",
    "Targets",
    "create",
    "epoch_steps",
    "method",
    "names",
    "passes",
    "settings",
    "trained",
    "uses_unlabeled",
]
