"""Reproduces U2PL (CVPR 2022): the library. It imports neither Typer nor DVC.

`u2pl.load`, `u2pl.Model`, `u2pl.MemoryBank`, `u2pl.open_data`, the frames `u2pl.runs()`, `u2pl.results()` and
`u2pl.history(RUN)`, and the modules `u2pl.losses` and `u2pl.methods` are what others may build on (docs/library.md);
each is imported when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from u2pl import losses, methods
    from u2pl.batches.torch_data import open_data
    from u2pl.exchange.model import Model, Prediction, load
    from u2pl.losses.memory_bank import MemoryBank
    from u2pl.runs.frames import history, results, runs

__version__ = "0.2.0"
__all__ = [
    "MemoryBank",
    "Model",
    "Prediction",
    "__version__",
    "history",
    "load",
    "losses",
    "methods",
    "open_data",
    "results",
    "runs",
]

_HOMES = {
    "load": "u2pl.exchange.model",
    "Model": "u2pl.exchange.model",
    "Prediction": "u2pl.exchange.model",
    "MemoryBank": "u2pl.losses.memory_bank",
    "open_data": "u2pl.batches.torch_data",
    "results": "u2pl.runs.frames",
    "history": "u2pl.runs.frames",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in __all__:
        return import_module(f"u2pl.{name}")
    raise AttributeError(f"module 'u2pl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
