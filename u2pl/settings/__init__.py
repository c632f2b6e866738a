"""Typed settings read from params.yaml, with overrides; a run's name and its fingerprint.

A value has one home, params.yaml; types, ranges and meaning stand in the classes here.
"""

from u2pl.settings.base import Range, Settings, load
from u2pl.settings.device import has_native_bfloat16
from u2pl.settings.overrides import merged, parse_overrides, parse_value, value_text
from u2pl.settings.params import LARGEST_SEED, Params, chosen_recipe_path
from u2pl.settings.recipe import FORMERLY, RESNETS, TIMM, WORDS_FOR_WEIGHTS, Recipe
from u2pl.settings.runs import (
    RECIPE_VERSION,
    ResolvedRun,
    RunSpec,
    differences,
    fingerprint,
    former_name,
    run_arguments,
    run_name,
    says_all,
)

__all__ = [
    "FORMERLY",
    "LARGEST_SEED",
    "RECIPE_VERSION",
    "RESNETS",
    "TIMM",
    "WORDS_FOR_WEIGHTS",
    "Params",
    "Range",
    "Recipe",
    "ResolvedRun",
    "RunSpec",
    "Settings",
    "chosen_recipe_path",
    "differences",
    "fingerprint",
    "former_name",
    "has_native_bfloat16",
    "load",
    "merged",
    "parse_overrides",
    "parse_value",
    "run_arguments",
    "run_name",
    "says_all",
    "value_text",
]
