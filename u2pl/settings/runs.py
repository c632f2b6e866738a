"""A run: what a user asks for, every setting decided, its name, and its fingerprint."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from u2pl.files import sha256_json
from u2pl.project import check_name, readable_name, safe_name, slug
from u2pl.settings.overrides import value_text
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
    name: str | None = None
    """The user's own name of the run; None: one made of all this. No number depends on it."""


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
    defaults: Mapping[str, Any]
    """What params.yaml says in their places."""

    @property
    def names(self) -> tuple[str, str]:
        """The name, and the one that earlier versions gave it: results and plans of theirs have it."""
        return self.name, former_name(self.spec, self.changed)


def run_name(spec: RunSpec, changed: Mapping[str, Any]) -> str:
    """A readable folder name, `shapes-1_8-u2pl-alpha0=0.3-s0`, or the user's own.

    Of many settings those that fit are there, and a hash of all of them, whatever their order:
    `shapes-1_8-u2pl-lr=0.01-crop=64-3f2a91bc-s0`. Runs that differ in their seeds alone share it.

    Raises:
        UsageError: the user's own cannot be a folder's name.
    """
    if spec.name is not None:
        check_name("--name", spec.name)
        return spec.name
    *parts, end = _words(spec, changed)
    settings = [(key, str(value)) for key, value in sorted(changed.items())]
    return readable_name(parts, end, json.dumps([spec.dataset, spec.split, spec.method, settings]))


def former_name(spec: RunSpec, changed: Mapping[str, Any]) -> str:
    """What earlier versions called the run: all settings, up to 200 bytes."""
    return safe_name("-".join(_words(spec, changed)))


def run_arguments(spec: RunSpec) -> list[str]:
    """The options of `u2pl train` that say which run is meant."""
    options = {
        "--dataset": spec.dataset,
        "--split": spec.split,
        "--method": spec.method,
        "--seed": str(spec.seed),
    }
    words = [text for option in options.items() for text in option]
    return words + [f"--set={key}={value_text(value)}" for key, value in spec.overrides.items()]


def says_all(name: str, spec: RunSpec) -> bool:
    """Whether a run's name shows all that was set, none of it replaced by a hash or by the user's own words."""
    return name == slug("-".join(_words(spec, spec.overrides)))


def _words(spec: RunSpec, changed: Mapping[str, Any]) -> list[str]:
    """What a run's name says, the seed last."""
    settings = [f"{key.rpartition('.')[2]}={value}" for key, value in sorted(changed.items())]
    return [spec.dataset, spec.split, spec.method, *settings, f"s{spec.seed}"]


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
