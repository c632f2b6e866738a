"""The contents of params.yaml, and how sections of it combine into the settings of a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml

from u2pl.errors import UsageError, UserError, unknown
from u2pl.files import content, parse_yaml
from u2pl.project import Project, kept_name
from u2pl.settings.base import load
from u2pl.settings.overrides import once
from u2pl.settings.recipe import WORDS_FOR_WEIGHTS, Recipe, has_native_bfloat16
from u2pl.settings.runs import ResolvedRun, RunSpec, former_name, run_name

LARGEST_SEED = 2**63 - 1


class Params:
    """The contents of params.yaml, and how sections of it combine into the settings of a run."""

    def __init__(self, values: Mapping[str, Any], root: Path = Path()):
        self.values = values
        self.root = root
        """Folder that a relative file among the settings counts from."""

    @classmethod
    def read(cls, project: Project) -> "Params":
        """Read the project's params.yaml.

        Raises:
            UserError: it cannot be read, is no YAML, or lacks a section or a value that every run needs.
        """
        try:
            values = parse_yaml(content(project.params))
        except OSError as error:
            raise UserError(
                f"{project.params} cannot be read ({error.strerror}). Take it back from git."
            ) from None
        except yaml.YAMLError as error:
            raise UserError(
                f"{project.params} is not valid YAML: {error}. Mend it, or take it back from git."
            ) from None
        problem = _problem(values)
        if problem:
            raise UserError(f"{project.params} {problem}. Mend it, or take it back from git.")
        return cls(values, project.root)

    @property
    def methods(self) -> list[str]:
        """Names of the methods that have a section."""
        return sorted(set(self.values) - _NEEDED.keys())

    def default(self, key: Literal["dataset", "split", "method", "seed"]) -> Any:
        """What the command line takes where the user does not say."""
        return self.values["default"][key]

    def spec(
        self,
        dataset: str | None = None,
        split: str | None = None,
        method: str | None = None,
        seed: int | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> RunSpec:
        """A run specification, with params.yaml's defaults and full setting names filled in."""
        method = method or self.default("method")
        if method not in self.methods:
            raise unknown("method", method, self.methods)
        seed = self.default("seed") if seed is None else seed
        if not 0 <= seed <= LARGEST_SEED:
            raise UsageError(f"A seed is a whole number from 0 to 2^63 - 1, not {seed}. Example: --seed 0")
        full: list[tuple[str, Any]] = [(self.full_key(k, method), v) for k, v in (overrides or {}).items()]
        return RunSpec(
            dataset=dataset or self.default("dataset"),
            split=split or str(self.default("split")),
            method=method,
            seed=seed,
            overrides=once(full),
        )

    def find_key(self, key: str, method: str) -> str | None:
        """The dotted name of a setting: `alpha0` -> `u2pl.alpha0`, `lr` -> `recipe.lr`; None where there is none.

        A short name is looked for in the method's section first, then in the recipe.
        """
        section, _, short = key.rpartition(".")
        for name, values in self._sections(method).items():
            if section in ("", name) and short in values:
                return f"{name}.{short}"
        return None

    def full_key(self, key: str, method: str) -> str:
        """As `find_key`.

        Raises:
            UsageError: there is none; the nearest known name is suggested.
        """
        full = self.find_key(key, method)
        if full is not None:
            return full
        sections = self._sections(method)
        section, _, short = key.rpartition(".")
        if section and section not in sections:
            raise UsageError(
                f"--set {key}: a run of method {method!r} reads the sections {method!r} and 'recipe' only. "
                f"Use --set {method}.NAME=VALUE or --set recipe.NAME=VALUE."
            )
        known = [name for values in sections.values() for name in values]
        raise unknown(f"setting for method {method!r}", short, known)

    def _sections(self, method: str) -> dict[str, Mapping[str, Any]]:
        return {method: self.values.get(method) or {}, "recipe": self.values["recipe"]}

    def section(self, dataset: str) -> str:
        """The recipe section of a data set: its own, or `custom` where params.yaml has none for it."""
        return dataset if dataset in self.values["recipes"] else "custom"

    def resolve(self, spec: RunSpec, *, bfloat16: bool | None = None) -> ResolvedRun:
        """Combine the sections (see the head of params.yaml) and name the run.

        An override that changes nothing leaves no trace in the name, so that
        `--set alpha0=0.2` is the default run where 0.2 is the default.

        Args:
            spec: the run.
            bfloat16: whether precision `auto` is bfloat16; None asks the device, for which torch is loaded.

        Raises:
            UsageError: the method has no section, the flavour is unknown, or a setting is unknown or out of range.
        """
        if spec.method not in self.methods:
            raise unknown("method", spec.method, self.methods)
        own = dict(self.values["recipes"][self.section(spec.dataset)] or {})
        overrides = own.pop("overrides", None) or {}
        base: dict[str, Any] = {f"recipe.{k}": v for k, v in {**self.values["recipe"], **own}.items()}
        base |= {f"{spec.method}.{k}": v for k, v in (self.values[spec.method] or {}).items()}
        base |= {k: v for k, v in overrides.items() if k.partition(".")[0] in (spec.method, "recipe")}
        flavor = str(spec.overrides.get("recipe.flavor", base["recipe.flavor"]))
        base |= self._presets(flavor, base, spec.method)
        changed = {k: v for k, v in spec.overrides.items() if k not in base or base[k] != v}
        merged = base | changed
        parts = {
            name: {k.partition(".")[2]: v for k, v in merged.items() if k.startswith(name + ".")}
            for name in ("recipe", spec.method)
        }
        # Its presets decide, not its name: equal settings are the same run, whichever flavour they come from.
        del parts["recipe"]["flavor"]
        recipe = load(Recipe, parts["recipe"], "recipe")
        if recipe.precision == "auto":
            native = has_native_bfloat16() if bfloat16 is None else bfloat16
            chosen = "bfloat16" if native else "float32"
            recipe = recipe.model_copy(update={"precision": chosen})
        if recipe.weights not in WORDS_FOR_WEIGHTS:
            recipe = recipe.model_copy(update={"weights": str(self.root / recipe.weights)})
        name, defaults = self._name(spec, changed), {k: base[k] for k in changed if k in base}
        return ResolvedRun(spec, name, flavor, recipe, parts[spec.method], changed, defaults)

    def _name(self, spec: RunSpec, changed: Mapping[str, Any]) -> str:
        """The run's name; that of an earlier version where the run's folder has it."""
        name = run_name(spec, changed)
        return spec.name or kept_name(Project(self.root).runs, name, former_name(spec, changed))

    def _presets(self, flavor: str, base: Mapping[str, Any], method: str) -> dict[str, Any]:
        """The settings that a flavour changes, `NAME` or `METHOD.NAME`, where this method or its recipe has them."""
        flavors = self.values["flavors"]
        if flavor not in flavors:
            raise unknown("flavour", flavor, flavors)
        presets = flavors[flavor] or {}
        parts = {name: {*(self.values[name] or {})} for name in ("recipe", *self.methods)}
        own = {f"{name}.{key}" for name in parts for key in parts[name] | parts["recipe"]}
        known = set.union(own, *parts.values())
        for key in presets:
            if key not in known:
                raise unknown(f"setting of flavour {flavor!r}", key, known)
        # A method's own preset beats the one for all.
        names = {key: (f"{method}.{short}", key, short) for key in base if (short := key.partition(".")[2])}
        found = {key: next((name for name in both if name in presets), None) for key, both in names.items()}
        return {key: presets[name] for key, name in found.items() if name is not None}


_NEEDED: dict[str, tuple[str, ...]] = {
    "default": ("dataset", "split", "method", "seed"),
    "splits": ("seed",),
    "recipe": ("flavor", *Recipe.model_fields),
    "recipes": ("custom",),
    "flavors": (),
}
"""Sections that params.yaml must have, and what must stand in them; every other section is a method's."""


def _problem(values: Any) -> str | None:
    """What is wrong with the structure of params.yaml, as the end of a sentence that starts with the file's name."""
    if not isinstance(values, dict):
        return f"must hold sections such as `recipe:` and `u2pl:`, not {_kind(values)}"
    for section, keys in _NEEDED.items():
        if section not in values:
            return f"has no section `{section}:`"
        if not isinstance(values[section], dict):
            return f"must have names and values in its section `{section}:`, not {_kind(values[section])}"
        for key in keys:
            if key not in values[section]:
                return f"has no `{key}:` in its section `{section}:`"
    inner = {f"{part}.{name}": v for part in ("recipes", "flavors") for name, v in values[part].items()}
    own = {name: section for name, section in values.items() if name not in _NEEDED}
    for name, recipe in values["recipes"].items():
        inner[f"recipes.{name}.overrides"] = recipe.get("overrides") if isinstance(recipe, dict) else None
    for name, section in (inner | own).items():
        if not isinstance(section, dict | None):
            return f"must have names and values in `{name}:`, not {_kind(section)}"
    for name, recipe in values["recipes"].items():
        for key in (recipe or {}).get("overrides") or {}:
            section, _, short = key.rpartition(".")
            # Of a method whose section was taken out, what data sets change of it may stay.
            if not section or (values.get(section) and short not in values[section]):
                return f"changes `{key}:` in `recipes.{name}.overrides:`, and there is no such setting"
    for key in ("dataset", "method"):
        if not isinstance(values["default"][key], str):
            return f"must have a name as `{key}:` in its section `default:`, not {values['default'][key]!r}"
    for section in ("default", "splits"):
        seed = values[section]["seed"]
        if type(seed) is not int or not 0 <= seed <= LARGEST_SEED:
            return f"must have a whole number from 0 to 2^63 - 1 as `seed:` in its section `{section}:`, not {seed!r}"
    return None


def _kind(value: Any) -> str:
    return {list: "a list", type(None): "nothing"}.get(type(value), repr(value))
