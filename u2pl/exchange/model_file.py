"""One file with a trained network and all that is needed to use it: safetensors, whose header holds JSON."""

import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, NamedTuple

import safetensors
from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from u2pl.data.description import Description
from u2pl.data.pictures import Color
from u2pl.errors import UserError
from u2pl.exchange import trust_facts
from u2pl.exchange.trust_facts import TrustFacts
from u2pl.files import sha256_of, write_atomically
from u2pl.project import Project
from u2pl.runs.records import Metrics, Miou, Protocol, RecordedRecipe, Run, read_metrics, read_run
from u2pl.settings import RECIPE_VERSION, hyper
from u2pl.typed_files import (
    Count,
    DatasetName,
    Fingerprint,
    Finite,
    FolderName,
    MethodName,
    SplitName,
    Time,
    problems,
)
from u2pl.typed_files import read as read_typed

SUFFIX = ".u2pl"
_KEY = "u2pl"
"""Of the entry of the header that holds the facts."""
_TRUST_KEY = "u2pl.trust"
"""Of another one, which earlier versions do not look at: what `u2pl check` found."""
_FORMAT = 1
_LIBRARIES = ("u2pl", "torch", "torchvision", "timm")


class Score(TypedDict):
    """How well the network did on the validation images, in percent, and how that was measured."""

    miou: Miou
    iou: dict[str, Finite | None]
    protocol: Protocol


class Provenance(TypedDict):
    """Where the network comes from."""

    dataset: DatasetName
    split: SplitName
    split_source: str | None
    labeled: Count | None
    unlabeled: Count | None
    method: MethodName
    seed: int
    hyper: dict[str, Any]
    steps: Count | None
    seconds: Finite | None
    created: Time
    fingerprint: Fingerprint
    revision: str | None
    libraries: dict[str, str]


class Facts(TypedDict):
    """What a model file says of its network."""

    format: Literal[1]
    name: FolderName
    classes: list[str]
    colors: list[Color]
    background: bool
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    """What is taken off the RGB values from 0 to 255, and what they are divided by, before the network sees them."""
    recipe_version: int
    recipe: RecordedRecipe
    score: Score | None
    provenance: Provenance
    card: str
    """Markdown, for people."""


class Contents(NamedTuple):
    """A model file, read."""

    facts: Facts
    description: Description
    state: dict[str, Any]
    """Tensor by name, on the CPU."""


def default_path(run: Path) -> Path:
    """Where a finished run has its model file."""
    return run / f"{run.name}{SUFFIX}"


def is_model_file(text: str) -> bool:
    """Whether what somebody typed names a model file, and no run."""
    return text.endswith(SUFFIX)


def facts_of_run(path: Path, description: Description) -> Facts:
    """What the model file of a finished run says.

    Args:
        path: the run's folder.
        description: of the data set it was trained on.
    """
    from u2pl.models.colors import MEAN, STD

    run = read_run(path)
    metrics = read_metrics(path) if (path / "metrics.json").is_file() else None
    facts: Facts = {
        "format": 1,
        "name": run["name"],
        "classes": description.classes,
        "colors": description.colors,
        "background": description.background,
        "mean": MEAN,
        "std": STD,
        "recipe_version": run["facts"]["recipe_version"],
        "recipe": run["recipe"],
        "score": metrics and {key: metrics[key] for key in Score.__annotations__},  # type: ignore[literal-required, typeddict-item]
        "provenance": _provenance(run, metrics),
        "card": "",
    }
    facts["card"] = card(facts)
    return facts


def _provenance(run: Run, metrics: Metrics | None) -> Provenance:
    measured: Mapping[str, Any] = metrics or {}
    return {
        "dataset": run["dataset"],
        "split": run["split"],
        "split_source": measured.get("split_source"),
        "labeled": measured.get("labeled"),
        "unlabeled": measured.get("unlabeled"),
        "method": run["method"],
        "seed": run["seed"],
        "hyper": run["hyper"],
        "steps": measured.get("steps"),
        "seconds": measured.get("seconds"),
        "created": run["created"],
        "fingerprint": run["fingerprint"],
        "revision": measured.get("revision"),
        "libraries": _libraries(),
    }


def _libraries() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def card(facts: Facts) -> str:
    """A model card in Markdown: what the network is for, how good it is, where it comes from, what is not known."""
    origin, recipe, score = facts["provenance"], facts["recipe"], facts["score"]
    settings = hyper.find(origin["method"])
    lines = [
        f"# {facts['name']}",
        "",
        f"Semantic segmentation into {len(facts['classes'])} classes: {', '.join(facts['classes'])}.",
        f"DeepLabv3+ on {recipe['backbone']}, trained by `{origin['method']}` on split {origin['split']} of "
        f"`{origin['dataset']}`{_images(origin)}, seed {origin['seed']}.",
        *([settings.remark] if settings and settings.remark else []),
        "",
        "## How good it is",
        "",
    ]
    if score is None or score["miou"]["reported"] is None:
        lines.append("It was not evaluated.")
    else:
        lines += [
            f"{score['miou']['reported']:.2f} % mIoU on the validation images ({score['protocol']['evaluation']}; "
            f"{score['protocol']['network']}, {score['protocol']['checkpoint']} checkpoint). One run: another seed "
            "gives another number.",
            "",
            "| class | IoU % |",
            "| --- | ---: |",
            *(
                f"| {name} | {'—' if iou is None else f'{iou:.2f}'} |"
                for name, iou in ((name, score["iou"].get(name)) for name in facts["classes"])
            ),
        ]
    lines += [
        "",
        "## How to use it",
        "",
        "```python",
        "import u2pl",
        f'model = u2pl.load("{facts["name"]}{SUFFIX}")',
        'prediction = model.predict("photo.jpg")  # .classes, .probabilities, .entropy',
        "```",
        "",
        "## Limits",
        "",
        "Images unlike those it was trained on get a prediction too. The licences of those images and of the weights "
        f"it started from (`{recipe.get('weights', 'none')}`) are not recorded here; they hold for this file.",
        "",
    ]
    return "\n".join(lines)


def _images(origin: Provenance) -> str:
    if origin["labeled"] is None:
        return ""
    return f" ({origin['labeled']} labelled and {origin['unlabeled'] or 0} unlabelled images)"


def write(path: Path, facts: Facts, state: Mapping[str, Any], trust: TrustFacts | None = None) -> None:
    """Write a model file; a file that is there is replaced when the new one is complete.

    Args:
        path: of the file.
        facts: of the network.
        state: its tensors by name.
        trust: what `u2pl check` found of it.
    """
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    text = json.dumps(facts, ensure_ascii=False, sort_keys=True)
    metadata = {_KEY: text}
    if trust is not None:
        metadata[_TRUST_KEY] = json.dumps(trust, sort_keys=True)
    # Written by us: the library's own file could be read by nobody else.
    content = save(plain, metadata=metadata)

    def fill(target: Path) -> None:
        target.write_bytes(content)

    write_atomically(path, fill)


def write_of_run(project: Project, path: Path, target: Path | None = None) -> Path:
    """Write the model file of a finished run, unless it is there already and newer than what it is made of.

    That is the run's weights, and what `u2pl check` found of them.

    Args:
        project: where the run's data set is described.
        path: the run's folder.
        target: of the file; None: `default_path`.

    Raises:
        UserError: the run is not finished, or its classes are not known here.
    """
    target = target or default_path(path)
    parts = [part for part in (path / "weights.pt", path / trust_facts.FILE) if part.is_file()]
    if (
        parts
        and target.is_file()
        and all(target.stat().st_mtime_ns > part.stat().st_mtime_ns for part in parts)
    ):
        return target
    from u2pl.runs.results import description_of_run, load_network  # which load torch

    description = description_of_run(project, path)
    network, _ = load_network(path, len(description.classes))
    write(target, facts_of_run(path, description), network.state_dict(), trust_of_run(path))
    return target


def trust_of_run(path: Path) -> TrustFacts | None:
    """What `u2pl check` found of a finished run; None where it has not looked at these weights.

    Raises:
        UserError: the file is damaged.
    """
    try:
        found = read_typed(
            TrustFacts, path / trust_facts.FILE, f"Delete it, then make it again: u2pl check {path.name}"
        )
        return found if found["weights"] == sha256_of(path / "weights.pt") else None
    except FileNotFoundError:
        return None


def read_trust(path: Path) -> TrustFacts | None:
    """What `u2pl check` had found of the network in a model file when that was written; None for nothing.

    Raises:
        UserError: as `read_facts`.
    """
    read_facts(path)
    with safetensors.safe_open(path, framework="np") as opened:
        text = opened.metadata().get(_TRUST_KEY)
    if text is None:
        return None
    try:
        return TypeAdapter(TrustFacts).validate_json(text)
    except ValidationError as error:
        raise UserError(
            f"{path}: what u2pl check found is not what it writes there ({problems(error)}). Copy the file again, or "
            "make it again from its run: u2pl check RUN"
        ) from None


def read_facts(path: Path) -> Facts:
    """What a model file says of its network, which is not read.

    Raises:
        UserError: there is no such file, it is damaged, no model file, or one of another version.
    """
    if not path.is_file():
        raise UserError(f"There is no file {path}. Name a model file; those of a project: u2pl models")
    remedy = "Copy it again, or make it again from its run: u2pl export RUN"
    try:
        with safetensors.safe_open(path, framework="np") as opened:
            text = (opened.metadata() or {}).get(_KEY)
        facts = None if text is None else json.loads(text)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}). Make it readable.") from None
    except (safetensors.SafetensorError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged, or no model file ({type(error).__name__}). {remedy}") from None
    if facts is None:
        raise UserError(
            f"{path} holds tensors, but no word on what network they are of: it is no model file. {remedy}"
        )
    found = facts.get("format") if isinstance(facts, dict) else None
    if found != _FORMAT:
        raise UserError(
            f"{path} has format {found!r}, and this version of u2pl reads {_FORMAT}. Take the version it was made with."
        )
    try:
        # Not strictly: JSON has no tuples.
        return TypeAdapter(Facts).validate_python(facts)
    except ValidationError as error:
        raise UserError(f"{path} is not what u2pl writes there ({problems(error)}). {remedy}") from None


def read(path: Path) -> Contents:
    """A model file; nothing in it is run.

    Raises:
        UserError: as `read_facts`; or it is of another version of the recipe.
    """
    from safetensors.torch import load_file

    facts = read_facts(path)
    if facts["recipe_version"] != RECIPE_VERSION:
        raise UserError(
            f"{path} was made by another version of u2pl, whose settings are not today's. Make it again from its run: "
            "u2pl export RUN"
        )
    try:
        description = Description(
            name=facts["provenance"]["dataset"],
            classes=facts["classes"],
            colors=facts["colors"],
            background=facts["background"],
        )
    except ValidationError as error:
        raise UserError(f"{path} describes no classes that can be ({problems(error)}).") from None
    return Contents(facts, description, load_file(path))
