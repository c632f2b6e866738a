"""Built-in data sets: every file of this folder holds one as `DATASET`, and a new file is found by itself."""

import importlib
import pkgutil

from u2pl.data.layout import BuiltIn


def built_in() -> dict[str, BuiltIn]:
    """Every built-in data set by name."""
    found: dict[str, BuiltIn] = {}
    for module in pkgutil.iter_modules(__path__):
        data_set: BuiltIn = importlib.import_module(f"{__name__}.{module.name}").DATASET
        name = data_set.description.name
        if name in found:
            raise ValueError(f"two files of u2pl/data/catalog call their data set {name!r}")
        found[name] = data_set
    return found
