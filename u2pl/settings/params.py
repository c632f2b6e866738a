"""The contents of params.yaml, and how sections of it combine into the settings of a run."""

import errno
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml

from u2pl.errors import UsageError, UserError, unknown
from u2pl.files import content, parse_yaml
from u2pl.project import Project, kept_name, slug
from u2pl.settings import hyper
from u2pl.settings.base import Settings, homes, load
from u2pl.settings.device import has_native_bfloat16
from u2pl.settings.overrides import once
from u2pl.settings.project_record import check_version
from u2pl.settings.recipe import FORMERLY, WORDS_FOR_WEIGHTS, Recipe
from u2pl.settings.runs import RECIPE_VERSION, ResolvedRun, RunSpec, former_name, run_name

LARGEST_SEED = 2**63 - 1


def chosen_recipe_path(project: Project, dataset: str, split: str) -> Path:
    """The recipe that `u2pl prepare` chose for a split of somebody's own data; beside the lists, which DVC replaces."""
    return project.data(dataset) / "recipes" / f"{slug(split)}.yaml"


class Params:
    """The contents of params.yaml, and how sections of it combine into the settings of a run."""

    def __init__(self, values: Mapping[str, Any], root: Path = Path()):
        self.values = {**values, "recipe": {**FORMERLY, **values["recipe"]}}
        """Settings that an older file lacks do what was done before they were there."""
        self.root = root
        """Folder that a relative file among the settings counts from."""

    @classmethod
    def read(cls, project: Project) -> "Params":
        """Read the project's params.yaml.

        Raises:
            UserError: it cannot be read, is no YAML, lacks a section or a value that every run needs, or is of a
                version whose settings may mean something else.
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
        check_version(project, RECIPE_VERSION)
        return cls(values, project.root)

    @property
    def methods(self) -> list[str]:
        """Names of the methods that have a section."""
        if self.values.keys() - _NEEDED.keys() - hyper.groups() - hyper.names():
            hyper.import_methods()
        return sorted(self.values.keys() & hyper.names())

    @property
    def listed_methods(self) -> list[str]:
        """As `methods`, without torch: what adds itself only when it is imported is told by its file."""
        return sorted(self.values.keys() & (hyper.names() | hyper.declared()))

    def default(self, key: Literal["dataset", "split", "method", "seed"]) -> Any:
        """What the command line takes where the user does not say."""
        return self.values["default"][key]

    def default_split(self, dataset: str | None) -> str:
        """What is taken of a data set where no split is named: of somebody's own all labels that there are."""
        is_own = dataset is not None and self.section(dataset) == "custom"
        return "full" if is_own else str(self.default("split"))

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
        self._settings(method)
        seed = self.default("seed") if seed is None else seed
        if not 0 <= seed <= LARGEST_SEED:
            raise UsageError(f"A seed is a whole number from 0 to 2^63 - 1, not {seed}. Example: --seed 0")
        full: list[tuple[str, Any]] = [(self.full_key(k, method), v) for k, v in (overrides or {}).items()]
        return RunSpec(
            dataset=dataset or self.default("dataset"),
            split=split or self.default_split(dataset),
            method=method,
            seed=seed,
            overrides=once(full),
        )

    def find_key(self, key: str, method: str) -> str | None:
        """The dotted name of a setting: `alpha0` -> `u2pl.alpha0`, `lr` -> `recipe.lr`; None where there is none.

        A short name is looked for in the method first, then in the recipe. That of a group of the method is the
        method's too: `partition.alpha0` -> `u2pl.alpha0`.
        """
        return self.names(method).get(key)

    def full_key(self, key: str, method: str) -> str:
        """As `find_key`.

        Raises:
            UsageError: there is none; the nearest known name is suggested.
        """
        full = self.find_key(key, method)
        if full is not None:
            return full
        section, _, short = key.rpartition(".")
        sections = [*_groups(method), method]
        if section and section not in (*sections, "recipe"):
            raise UsageError(
                f"--set {key}: a run of method {method!r} reads the sections {', '.join(map(repr, sections))} and "
                f"'recipe' only. Use --set {method}.NAME=VALUE or --set recipe.NAME=VALUE."
            )
        raise unknown(
            f"setting for method {method!r}", short, [name for name in self.names(method) if "." not in name]
        )

    def names(self, method: str) -> Mapping[str, str]:
        """Every name of a setting that a run of the method has -> its dotted name."""
        names: dict[str, str] = {}
        for key in self.values["recipe"]:
            names |= dict.fromkeys((key, f"recipe.{key}"), f"recipe.{key}")
        for key, home in _homes(method).items():
            names |= dict.fromkeys((key, f"{home or method}.{key}", f"{method}.{key}"), f"{method}.{key}")
        return names

    def sections(self, method: str) -> list[str]:
        """The sections that hold a method's settings: its own, and those of its groups that params.yaml has."""
        return [method, *(group for group in _groups(method) if group in self.values)]

    def _settings(self, method: str) -> type[Settings]:
        """The class of a method's settings.

        Raises:
            UsageError: there is no such method, or params.yaml has no section of it.
        """
        cls = hyper.find(method)
        if cls is None:
            raise unknown("method", method, self.methods)
        if method not in self.values:
            own = [
                key for key, home in homes(cls).items() if not home and cls.model_fields[key].is_required()
            ]
            raise UsageError(
                f"No method called {method!r}. Only its section in params.yaml is missing. Add the line: "
                f"{method}: {{{', '.join(f'{key}: VALUE' for key in own)}}}"
            )
        return cls

    def section(self, dataset: str) -> str:
        """The recipe section of a data set: its own, or `custom` where params.yaml has none for it."""
        return dataset if dataset in self.values["recipes"] else "custom"

    def resolve(self, spec: RunSpec, *, bfloat16: bool | None = None) -> ResolvedRun:
        """Combine the sections (see the head of params.yaml) and name the run.

        An override that changes nothing leaves no trace in the name, so that
        `--set alpha0=0.2` is the default run where 0.2 is the default.

        Args:
            spec: the run.
            bfloat16: whether precision `auto` is bfloat16; None asks the device, for which torch is loaded
                unless it is certain that there is no GPU.

        Raises:
            UsageError: the method has no section, the flavour is unknown, or a setting is unknown or out of range.
        """
        base = self._written(spec.method, spec.dataset, spec.split)
        flavor = str(spec.overrides.get("recipe.flavor", base["recipe.flavor"]))
        base |= self._presets(flavor, base, spec.method)
        changed = {k: v for k, v in spec.overrides.items() if k not in base or base[k] != v}
        parts = {name: _in_section(name, base | changed) for name in ("recipe", spec.method)}
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

    def name_of(self, spec: RunSpec) -> str:
        """What the run is called; which precision is chosen decides no name, and asking takes torch."""
        return self.resolve(spec, bfloat16=False).name

    def _name(self, spec: RunSpec, changed: Mapping[str, Any]) -> str:
        """The run's name; that of an earlier version where the run's folder has it."""
        name = run_name(spec, changed)
        return spec.name or kept_name(Project(self.root).runs, name, former_name(spec, changed))

    def _written(self, method: str, dataset: str, split: str) -> dict[str, Any]:
        """What holds for a method on a split before any flavour, by dotted names."""
        fields = self._settings(method).model_fields.items()
        section = self.section(dataset)
        own = dict(self.values["recipes"][section] or {})
        if section == "custom":
            own |= self._chosen(dataset, split)
        overrides = own.pop("overrides", None) or {}
        written = {f"recipe.{k}": v for k, v in {**self.values["recipe"], **own}.items()}
        # A method's class may have defaults; values in params.yaml are easier to find.
        written |= {
            f"{method}.{k}": f.get_default(call_default_factory=True)
            for k, f in fields
            if not f.is_required()
        }
        for group in _groups(method):
            written |= _of_group(method, group, self.values.get(group) or {})
        # A setting of a group that the method's own section leaves open is the group's.
        written |= {
            f"{method}.{k}": v
            for k, v in (self.values[method] or {}).items()
            if v is not None or _homes(method).get(k) is None
        }
        for group in _groups(method):
            written |= _of_group(method, group, _in_section(group, overrides))
        for section in ("recipe", method):
            written |= {f"{section}.{k}": v for k, v in _in_section(section, overrides).items()}
        return written

    def _chosen(self, dataset: str, split: str) -> dict[str, Any]:
        """The recipe that was chosen from the data when a split was prepared; empty where there is none.

        Raises:
            UserError: the file is damaged.
        """
        path = chosen_recipe_path(Project(self.root), dataset, split)
        remedy = "Mend it, or delete it and prepare the split again"
        try:
            values = parse_yaml(content(path))
        except FileNotFoundError:
            return {}
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:  # of a data set or split that cannot be; others say so
                return {}
            raise UserError(f"{path} cannot be read ({error.strerror}). {remedy}.") from None
        except yaml.YAMLError as error:
            raise UserError(f"{path} is not valid YAML: {error}. {remedy}.") from None
        overrides = values.get("overrides") if isinstance(values, dict) else None
        if not isinstance(values, dict) or not isinstance(overrides, dict | None):
            raise UserError(f"{path} must hold names and values, as a recipe of params.yaml does. {remedy}.")
        for key in overrides or {}:
            if not _is_setting(key, self.values):
                raise UserError(f"{path} changes `{key}:`, and there is no such setting. {remedy}.")
        return values

    def lacks_recipe(self, dataset: str, split: str) -> bool:
        """Whether neither params.yaml nor a chosen recipe says how to train on a split of somebody's own data."""
        is_said = self.section(dataset) != "custom" or bool(self.values["recipes"]["custom"])
        return not is_said and not chosen_recipe_path(Project(self.root), dataset, split).exists()

    def _presets(self, flavor: str, base: Mapping[str, Any], method: str) -> dict[str, Any]:
        """The settings that a flavour changes where this method or its recipe has them.

        They are `NAME`, `GROUP.NAME` or `METHOD.NAME`, of which each beats the one before it.
        """
        flavors = self.values["flavors"]
        if flavor not in flavors:
            raise unknown("flavour", flavor, flavors)
        presets = flavors[flavor] or {}
        if not presets:
            return {}
        if not presets.keys() <= self._presettable():
            hyper.import_methods()
        known = self._presettable()
        for key in presets:
            if key not in known:
                raise unknown(f"setting of flavour {flavor!r}", key, known)
        found: dict[str, Any] = {}
        for key in base:
            section, _, short = key.partition(".")
            home = _homes(method).get(short) if section == method else None
            for name in (short, f"{home or section}.{short}", f"{method}.{short}"):
                if name in presets:
                    found[key] = presets[name]
        return found

    def _presettable(self) -> set[str]:
        """What a flavour may set, of all methods known so far: a setting of the recipe for one method alone too."""
        recipe = {f"{name}.{key}" for name in hyper.names() for key in self.values["recipe"]}
        return recipe.union(*map(self.names, hyper.names()))


_NEEDED: dict[str, tuple[str, ...]] = {
    "default": ("dataset", "split", "method", "seed"),
    "splits": ("seed",),
    "recipe": ("flavor", *(name for name in Recipe.model_fields if name not in FORMERLY)),
    "recipes": ("custom",),
    "flavors": (),
}
"""Sections that params.yaml must have, and what must stand in them; every other one is a method's, or a group's."""


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
            if not _is_setting(key, values):
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


def _is_setting(key: str, values: Mapping[str, Any]) -> bool:
    """Whether a method, a group or the recipe has a setting, by its dotted name.

    Of a method whose section was taken out, what data sets change of it may stay. Of a section of which nothing is
    known yet everything is a setting until a run reads it.
    """
    section, _, short = key.rpartition(".")
    if section in ("", *_NEEDED):
        return section == "recipe" and short in values[section]
    if section in values and section not in hyper.names() | hyper.groups():
        return True
    if short not in hyper.settings_of(section):
        hyper.import_methods()
    return short in hyper.settings_of(section)


def _homes(method: str) -> Mapping[str, str | None]:
    """Setting of a method -> the group that is its home; none where there is no such method."""
    cls = hyper.find(method)
    return homes(cls) if cls else {}


def _groups(method: str) -> list[str]:
    """The groups of a method."""
    return list(dict.fromkeys(home for home in _homes(method).values() if home))


def _of_group(method: str, group: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """What a section of a group says of a method, by dotted names.

    Raises:
        UsageError: something stands there that no method reads.
    """
    if not values.keys() <= hyper.settings_of(group):
        hyper.import_methods()
    for key in values:
        if key not in hyper.settings_of(group):
            raise unknown(f"setting of {group}", key, hyper.settings_of(group))
    return {f"{method}.{key}": value for key, value in values.items() if _homes(method).get(key) == group}


def _in_section(section: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Of values by dotted names those of a section, by short names."""
    return {key.partition(".")[2]: value for key, value in values.items() if key.partition(".")[0] == section}
