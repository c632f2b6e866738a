"""A run: what a user asks for, every setting decided, its name, and its fingerprint."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from u2pl.files import sha256_json
from u2pl.project import safe_name
from u2pl.settings.recipe import Recipe

RECIPE_VERSION = 4
"""Part of every fingerprint. Raise it when a change of the code changes the numbers a run gives."""


@dataclass(frozen=True)
class RunSpec:
    """What a user asks for: data set, split, method, overrides and seed. One run, one folder."""

    dataset: str
    split: str
    method: str
    seed: int = 0
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Dotted setting -> value, e.g. {"u2pl.alpha0": 0.3, "recipe.lr": 0.01}; see `Params.full_key`."""


@dataclass(frozen=True)
class ResolvedRun:
    """A run with every setting decided."""

    spec: RunSpec
    name: str
    flavor: str
    recipe: Recipe
    hyper: Mapping[str, Any]
    """The method's own settings, not yet checked by the method's class."""
    changed: Mapping[str, Any]
    """The overrides that say something else than params.yaml."""


def run_name(spec: RunSpec, changed: Mapping[str, Any]) -> str:
    """A readable folder name: `shapes-1_8-u2pl-alpha0=0.3-s0`."""
    settings = [f"{key.rpartition('.')[2]}={value}" for key, value in sorted(changed.items())]
    return safe_name("-".join([spec.dataset, spec.split, spec.method, *settings, f"s{spec.seed}"]))


def fingerprint(facts: Mapping[str, Any]) -> str:
    """Short hash of everything that decides a run's numbers."""
    return sha256_json(facts)[:16]


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Lines `key: old -> new` for every leaf in which two nested mappings differ."""
    lines = []
    for key in sorted({*old, *new}):
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            lines += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            lines.append(f"{prefix}{key}: {a} -> {b}")
    return lines
