"""How much work a plan is, before any of it is done: steps, image passes, and hours at this machine's speed."""

import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import torch

from u2pl import methods
from u2pl.batches.loader import Batch, Images
from u2pl.data import published, splits
from u2pl.data.catalog import built_in
from u2pl.data.prepared import description_of
from u2pl.data.records import Manifest
from u2pl.errors import UserError
from u2pl.files import write_json
from u2pl.methods import Classes, Method, Step
from u2pl.project import Project, slug
from u2pl.runs.folder import device_name
from u2pl.runs.records import read_metrics, read_run
from u2pl.settings import Params, RunSpec
from u2pl.training import distributed
from u2pl.training.learner import Learner
from u2pl.typed_files import read

_SMALL_CROP = 129
"""Crop of a measurement on a CPU, where a step of the real size takes minutes."""
_LATE = 10**6
"""A step and an epoch in which every loss counts, whatever the warm start."""

Speeds = Mapping[str, float]
"""Kind of run -> pixels of training images a second."""


class Counts(NamedTuple):
    """Training images of a split."""

    labeled: int
    unlabeled: int


@dataclass(frozen=True)
class Work:
    """What training one run takes."""

    steps: int
    images: int
    """Passes of an image through a network that is trained, forwards and backwards; the teacher's come on top."""
    kind: str
    """Runs of one kind take as long for a pixel."""
    crop: int

    def hours(self, speeds: Speeds) -> float | None:
        """At so many pixels a second; None where that was not measured."""
        speed = speeds.get(self.kind)
        return None if speed is None else self.images * self.crop**2 / speed / 3600


def counts(project: Project, dataset: str, split: str) -> Counts | None:
    """The split's training images: as prepared, or as known of a data set before; None where nothing is known."""
    manifest = project.split(dataset, split) / "manifest.json"
    if manifest.is_file():
        found = read(Manifest, manifest)["counts"]
        return Counts(found["labeled"], found["unlabeled"])
    data_set = built_in().get(dataset)
    if data_set is None or "train" not in data_set.counts:
        return None
    try:
        name = splits.parse(split)
        source = name.source or data_set.source
        if source in published.families() and (name.pool or name.share != 1):
            labeled = published.find(source, dataset, name.published).images
        else:
            labeled = ceil(data_set.counts[name.pool or "train"] * name.share)
    except (UserError, KeyError):
        return None
    return Counts(labeled, data_set.counts["train"] - labeled)


def work(project: Project, params: Params, spec: RunSpec) -> Work | None:
    """What training a run takes; None where the size of its split is not known yet.

    Raises:
        UsageError: the run's settings could not work.
    """
    sizes = counts(project, spec.dataset, spec.split)
    if sizes is None:
        return None
    resolved = params.resolve(spec)
    recipe = resolved.recipe
    classes = _classes(project, spec.dataset)
    settings = methods.settings(spec.method, classes, recipe, resolved.hyper)
    steps = recipe.epochs * methods.epoch_steps(spec.method, settings, recipe, *sizes)
    images = steps * methods.passes(spec.method, recipe.batch)
    return Work(steps, images, kind_of(spec.method, recipe.model_dump()), recipe.crop)


def kind_of(method: str, recipe: Mapping[str, object]) -> str:
    """What decides how long a pixel takes on one machine: the method and the network."""
    names = ("backbone", "stem", "output_stride", "width", "representation", "precision")
    return "-".join([method, *(str(recipe[name]) for name in names)])


def speeds(project: Project) -> dict[str, float]:
    """What is known of this machine: from runs that finished on it, else from `measure`."""
    path = _measured(project)
    found: dict[str, list[float]] = {}
    here = {"host": platform.node(), "device": device_name()}
    for folder in sorted(project.runs.glob("*/")):
        try:
            run, metrics = read_run(folder), read_metrics(folder)
            if here.items() <= run["tags"].items() and metrics["images_per_second"]:
                pixels = metrics["images_per_second"] * run["recipe"]["crop"] ** 2
                pixels *= methods.trained(run["method"])
                found.setdefault(kind_of(run["method"], run["recipe"]), []).append(pixels)
        except (OSError, UserError, KeyError):
            continue  # not finished, imported, or damaged
    return _known(path) | {kind: fmean(values) for kind, values in found.items()}


def measure(project: Project, params: Params, spec: RunSpec) -> None:
    """Take a few steps of a run on random images, and keep how many pixels a second that makes.

    On a GPU with the run's own crop and four images of each kind; on a CPU one step of two small crops, since the time
    of a convolution is proportional to the area. The bank is empty: what the negatives cost is not in it.
    """
    device = distributed.local_device()
    slow = device.type == "cpu"
    resolved = params.resolve(spec)
    own = resolved.recipe
    small = {"weights": "none", "micro_batch": 0, "replicas": 1, "batch": 2 if slow else 4}
    recipe = own.model_copy(update=small | ({"crop": min(own.crop, _SMALL_CROP)} if slow else {}))
    classes = _classes(project, spec.dataset)
    method = methods.create(spec.method, classes, recipe, resolved.hyper)
    learner = Learner(method, recipe, 2 * _LATE, device)
    learner.method.train()
    batch = _random(learner.method, device)
    step = Step(_LATE, recipe.epochs - 1, recipe.epochs, 1, torch.Generator().manual_seed(0))
    for _ in range(0 if slow else 3):
        learner.step(batch, step)
    rounds = 1 if slow else 5
    _wait(device)
    start = time.perf_counter()
    for _ in range(rounds):
        learner.step(batch, step)
    _wait(device)
    seconds = time.perf_counter() - start
    path = _measured(project)
    pixels = rounds * methods.passes(spec.method, recipe.batch) * recipe.crop**2 / seconds
    write_json(path, {**_known(path), kind_of(spec.method, own.model_dump()): pixels})


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _random(method: Method, device: torch.device) -> Batch:
    recipe, classes = method.recipe, method.classes
    size = (recipe.batch, recipe.crop, recipe.crop)
    generator = torch.Generator().manual_seed(0)

    def images(*, labeled: bool) -> Images:
        pixels = torch.randn(recipe.batch, 3, *size[1:], generator=generator).to(device)
        mask = torch.randint(classes.count, size, generator=generator).to(device)
        mask = mask if labeled else torch.full_like(mask, classes.ignore_index)
        everywhere, number = torch.ones_like(mask, dtype=torch.bool), torch.arange(recipe.batch)
        pixels = pixels.to(memory_format=torch.channels_last)
        return Images(pixels, mask, everywhere, number, torch.zeros_like(number))

    return Batch(
        images(labeled=True),
        images(labeled=False) if method.uses_unlabeled else None,
        {name: images(labeled=stream.labeled) for name, stream in method.streams().items()},
    )


def _known(path: Path) -> dict[str, float]:
    """What was measured before; nothing where that cannot be read, since it is soon measured again."""
    try:
        return read(dict[str, float], path)
    except (FileNotFoundError, UserError):
        return {}


def _measured(project: Project) -> Path:
    return project.runs / ".speed" / slug(f"{platform.node()}-{device_name()}.json")


def _classes(project: Project, dataset: str) -> Classes:
    description = description_of(project, dataset)
    return Classes(len(description.classes), description.ignore_index, description.background)
