"""Typed settings read from params.yaml, with overrides; a run's name and its fingerprint.

A value has one home, params.yaml; types, ranges and meaning stand in the classes here and, for a
method, beside the method.
"""

import json
import platform
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from u2pl.errors import UsageError, UserError, unknown
from u2pl.files import Loader, content, parse_yaml, sha256_json
from u2pl.project import Project, check_name, kept_name, readable_name, safe_name, slug

RECIPE_VERSION = 4
"""Part of every fingerprint. Raise it when a change of the code changes the numbers a run gives."""


LARGEST_SEED = 2**63 - 1
_LARGEST_FACTOR = 100
_MANY = 10**6
"""Of epochs, channels or images: beyond it a number is a slip of the keyboard, and memory or patience ends first."""
_LONGEST_SHOWN = 200
"""Characters of a bad value that its error repeats."""


class Settings(BaseModel):
    """Base of all settings: unknown keys are refused, values cannot change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


S = TypeVar("S", bound=Settings)


def load(cls: type[S], values: Mapping[str, Any], where: str) -> S:
    """`values` as a `cls`.

    Raises:
        UsageError: a key is unknown (the nearest known one is named), missing, or has a bad value;
            `where` says which section it stands in.
    """
    for key in values:
        if key not in cls.model_fields:
            raise unknown(f"setting of {where}", key, cls.model_fields)
        # To pydantic true is the number 1.
        if isinstance(values[key], bool) and cls.model_fields[key].annotation in (int, float):
            raise UsageError(
                f"Bad setting: {where}.{key}: Input should be a number, not {values[key]}. "
                "Mend it in params.yaml or with --set."
            )
    try:
        return cls(**values)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join([where, *map(str, e['loc'])])}"
            + (
                " is missing"
                if e["type"] == "missing"
                # Of a rule about several settings the input is all of them.
                else f": {e['msg'].removeprefix('Value error, ')}"
                + (f", not {_shown(e['input'])}" if e["loc"] else "")
            )
            for e in error.errors()
        )
        raise UsageError(f"Bad setting: {problems}. Mend it in params.yaml or with --set.") from None


def _shown(value: Any) -> str:
    """A value as an error repeats it."""
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}... ({len(text):,} characters)"


def _is_a_range(ends: tuple[float, float]) -> tuple[float, float]:
    if not 0 < ends[0] <= ends[1] <= _LARGEST_FACTOR:
        raise ValueError(f"a range needs 0 < low <= high <= {_LARGEST_FACTOR}")
    return ends


Range = Annotated[tuple[float, float], AfterValidator(_is_a_range)]
"""Least and greatest factor."""

WORDS_FOR_WEIGHTS = ("none", "imagenet")
"""What the setting `weights` may say; anything else is a file."""


class Recipe(Settings):
    """How a network is built and trained on one data set (Sec. 4.1), whatever the method."""

    backbone: Literal["resnet10", "resnet18", "resnet34", "resnet50", "resnet101"]
    """torchvision's residual networks; resnet10 has one basic block a stage, for demonstrations on a CPU."""
    stem: Literal["plain", "deep"]
    """The backbone's first layers: torchvision's 7x7 convolution, or three of 3x3 as in the released code."""
    weights: str = Field(min_length=1)
    """What the network starts from: `none` (random weights), `imagenet` (torchvision's newest), or a file with the
    weights of a ResNet or of a run."""
    output_stride: Literal[8, 16]
    multi_grid: bool
    zero_init_residual: bool
    """Whether the last batch norm of every residual block starts at zero; overwritten by ImageNet weights."""
    width: int = Field(gt=0, le=_MANY)
    representation: int = Field(gt=0, le=_MANY)
    dropout: float = Field(ge=0, lt=1)
    """Share of channels left out, behind the ASPP and in both heads."""
    resize: float = Field(gt=0, le=1)
    crop: int = Field(ge=32, le=_MANY)
    scale: Range
    interpolation: Literal["uint8", "float32"]
    """Whether scaled pictures are rounded to bytes."""
    padding_label: Literal["ignore", "class0"]
    """What the padding of a labelled crop is labelled as."""
    padding_unlabeled: Literal["ignore", "use"]
    """Whether the padding of an unlabelled crop takes part like its other pixels."""
    labeled_order: Literal["permutations", "oversampled"]
    """An endless sequence of permutations, or a multiset as long as the unlabelled list, drawn once for the run."""
    unlabeled_truth: bool
    """Whether masks of unlabelled images, where there are any, are opened to measure the pseudo-labels by."""
    batch: int = Field(ge=2, le=_MANY)
    micro_batch: int = Field(ge=0, le=_MANY)
    """Labelled images, and as many unlabelled ones, that go through the networks at once; 0: all that a process has.
    Thresholds, centres, negatives and losses are those of the whole batch all the same; batch norm's are not."""
    batch_norm: Literal["batch", "fixed"]
    """Statistics of the student's batch norm in training: the batch's, or those that its weights came with."""
    replicas: int = Field(ge=1, le=_MANY)
    """Groups that a batch is cut into, each with thresholds, class centres and losses of its own, which are averaged:
    what several devices that each look at their own images alone compute."""
    epochs: int = Field(ge=1, le=_MANY)
    lr: float = Field(gt=0)
    head_lr_multiplier: float = Field(gt=0)
    momentum: float = Field(ge=0, lt=1)
    weight_decay: float = Field(ge=0)
    poly_power: float = Field(ge=0)
    precision: Literal["auto", "float32", "bfloat16", "float16"]
    validate_every: int = Field(ge=1, le=_MANY)
    """Epochs between two validations; the last epoch always has one."""
    evaluation: Literal["whole", "sliding", "center"]
    """Whole images at the resolution of their masks, the same from windows as large as the crop, or the crop at the
    centre of the resized image."""
    score_padding: bool
    """Whether the padding of a centre crop is scored as class 0."""
    absent_iou: Literal["skip", "zero"]
    """What a class that nowhere occurs adds to the mean."""
    checkpoint: Literal["last", "best"]
    """Which network a finished run is reported by: the last, or the best on the validation set."""

    @model_validator(mode="after")
    def _parts_fill_a_batch(self) -> Self:
        if self.micro_batch and self.batch % self.micro_batch:
            raise ValueError(f"a batch of {self.batch} is no multiple of micro_batch={self.micro_batch}")
        return self

    @model_validator(mode="after")
    def _replicas_share_a_batch(self) -> Self:
        if self.batch % self.replicas or self.batch < 2 * self.replicas:
            raise ValueError(
                f"{self.replicas} replicas do not cut a batch of {self.batch} into equal groups of two images or more; "
                "--set replicas=1 makes one group"
            )
        return self


def has_native_bfloat16() -> bool:
    """Whether this machine's default device multiplies bfloat16 faster than float32.

    A CPU does with AVX512_BF16 or AMX (read from /proc/cpuinfo, so False where there is none).
    """
    import torch

    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return platform.machine() == "x86_64" and ("avx512_bf16" in flags or "amx_bf16" in flags)


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
            overrides=_once(full),
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


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Settings by name, each said once, or twice alike.

    Raises:
        UsageError: one is said twice, with different values.
    """
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found and found[key] != value:
            raise UsageError(
                f"{key} is set twice, to {_shown(found[key])} and to {_shown(value)}. Leave one of them out."
            )
        found[key] = value
    return found


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


def says_all(name: str, spec: RunSpec) -> bool:
    """Whether a run's name shows all that was set, none of it replaced by a hash or by the user's own words."""
    return name == slug("-".join(_words(spec, spec.overrides)))


def _words(spec: RunSpec, changed: Mapping[str, Any]) -> list[str]:
    """What a run's name says, the seed last."""
    settings = [f"{key.rpartition('.')[2]}={value}" for key, value in sorted(changed.items())]
    return [spec.dataset, spec.split, spec.method, *settings, f"s{spec.seed}"]


def parse_value(text: str) -> Any:
    """A value from the command line, read as YAML: `0.3` a number, `true` a truth, `[1, 2]` a list.

    Unlike in YAML 1.1, `1e-3` is a number.
    """
    try:
        return parse_yaml(text, _ValueLoader)
    except yaml.YAMLError:
        return text


class _ValueLoader(Loader):
    """YAML's safe loader, for which a number needs no point before its exponent."""


_ValueLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def parse_overrides(pairs: list[str]) -> dict[str, Any]:
    """`["u2pl.alpha0=0.3"]` as {"u2pl.alpha0": 0.3}.

    Raises:
        UsageError: one is no NAME=VALUE, or a name has two values.
    """
    overrides = []
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise UsageError(f"--set takes NAME=VALUE, not {pair!r}. Example: --set u2pl.alpha0=0.3")
        overrides.append((key.strip(), parse_value(value.strip())))
    return _once(overrides)


def merged(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """Overrides that were said in several places.

    Raises:
        UsageError: a name has two values.
    """
    return _once(pair for part in parts for pair in part.items())


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
