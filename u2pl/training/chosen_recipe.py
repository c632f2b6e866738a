"""Settings for somebody's own images, chosen from what the data and this machine are found to be."""

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from statistics import median
from typing import Any, NamedTuple

import psutil
import torch
import yaml
from PIL import Image

from u2pl.data.description import Progress
from u2pl.data.prepared import Split
from u2pl.errors import UserError
from u2pl.files import write_text
from u2pl.models.deeplab import DeepLabV3Plus, upsample
from u2pl.models.encoders import build
from u2pl.project import Project
from u2pl.settings import Params, Recipe, chosen_recipe_path, has_native_bfloat16
from u2pl.settings import load as load_settings
from u2pl.settings.device import is_gpu

_SAMPLED = 200
"""Images whose sizes are looked up."""
_ENCODERS = {
    "cpu": (("timm:tf_efficientnet_lite0", "imagenet"), ("resnet18", "imagenet"), ("resnet10", "none")),
    "cuda": (("resnet50", "imagenet"), ("timm:tf_efficientnet_lite0", "imagenet"), ("resnet18", "none")),
}
"""Backbones and what they start from, the best first; the last can always be had."""
_HOURS = {"cpu": 0.5, "cuda": 4.0}
"""What a run of U²PL is to take, as far as that leaves it enough steps and not too many."""
_STEPS = {"cpu": (400, 3000), "cuda": (4000, 40000)}
_U2PL = 2.5
"""Times as long as SupOnly's a step of U²PL takes (docs/benchmarks.md)."""
_GPU_BYTES_A_PIXEL = 15_000
"""What a pixel of a training image takes of a GPU's memory, roughly, with resnet50 at output stride 16."""
_LOOKS = 8
"""At the validation images in a run, or so."""
_TRIED = 3
"""Seconds in which the network's speed is measured, after a first step."""


class Encoder(NamedTuple):
    """Where a network starts."""

    backbone: str
    weights: str


@dataclass(frozen=True)
class Found:
    """What was found out about a split and this machine."""

    classes: int
    labeled: int
    unlabeled: int
    height: int
    """Of the images, pixels, the median; as is `width`."""
    width: int
    largest: int
    """Pixels of the largest image."""
    device: str
    """cpu or cuda."""
    memory: int
    """Bytes of the device."""
    cores: int
    encoder: Encoder
    rarest: float
    """Of the labelled images' pixels the share of the rarest class that they show."""


class Choice(NamedTuple):
    """A setting, and why it has this value."""

    key: str
    value: Any
    reason: str


def look(
    split: Split, recipe: Mapping[str, Any], progress: Progress = lambda what, done, total: None
) -> Found:
    """Find out what `choose` wants to know.

    Args:
        split: prepared.
        recipe: the settings that hold without a choice.
        progress: told how far it is.
    """
    names = [*split.labeled, *split.unlabeled]
    some = names[:: ceil(len(names) / _SAMPLED)]
    sizes = []
    for done, name in enumerate(some, 1):
        with Image.open(split.images[name]) as picture:
            sizes.append(picture.size)
        progress("looking at sizes", done, len(some))
    device = "cuda" if is_gpu() else "cpu"
    memory = torch.cuda.mem_get_info()[1] if device == "cuda" else psutil.virtual_memory().total
    return Found(
        classes=len(split.classes),
        labeled=len(split.labeled),
        unlabeled=len(split.unlabeled),
        height=round(median(height for _, height in sizes)),
        width=round(median(width for width, _ in sizes)),
        largest=max(width * height for width, height in sizes),
        device=device,
        memory=memory,
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        encoder=_encoder(device, recipe),
        rarest=_rarest(split),
    )


def _rarest(split: Split) -> float:
    pixels = [found["pixels"] for found in split.manifest["classes"].values() if found["pixels"]]
    return min(pixels) / sum(pixels)


def _encoder(device: str, recipe: Mapping[str, Any]) -> Encoder:
    """The best encoder whose weights can be had here."""
    for backbone, weights in _ENCODERS[device][:-1]:
        start = {"backbone": backbone, "weights": weights, "output_stride": 16, "multi_grid": False}
        try:
            build(load_settings(Recipe, {**recipe, **start}, "recipe"))
        except UserError:
            continue
        return Encoder(backbone, weights)
    return Encoder(*_ENCODERS[device][-1])


def choose(found: Found) -> list[Choice]:
    """Everything but the length of training, which the speed of the rest decides: see `length`.

    Args:
        found: by `look`.

    Raises:
        UserError: no method could learn from such a split.
    """
    if found.labeled < 2:
        raise UserError(
            f"{found.labeled} labelled image is too few to train on: a batch has two. Label more, or take a split with "
            "more labels, such as full."
        )
    small = found.device == "cpu"
    side = round(math.sqrt(found.height * found.width))  # of a square of as many pixels
    resize, crop = _sizes(side, small)
    batch = _batch(found, crop)
    backbone, weights = found.encoder
    given = weights != "none"
    choices = [
        Choice(
            "backbone",
            backbone,
            "small enough for a CPU" if small else "the usual size on a GPU",
        ),
        Choice(
            "weights",
            weights,
            "few labels need features that were learned elsewhere"
            if given
            else "ImageNet weights cannot be had here: expect little of a network from random weights",
        ),
        Choice("output_stride", 16, "a quarter of the work behind the second stage"),
        Choice("multi_grid", False, "it belongs to output stride 8"),
        Choice("width", 64 if small else 256, "of the heads, which cost more than a small encoder"),
        Choice("representation", 64 if small else 256, "as the heads"),
        *([Choice("dropout", 0.0, "a short training fits too little, not too much")] if small else []),
        Choice("resize", resize, _because_of_size(found, resize)),
        Choice("crop", crop, f"of images as large as {round(side * resize)} x {round(side * resize)} pixels"),
        Choice("batch", batch, f"labelled images a step, of {found.labeled}, and as many unlabelled ones"),
        Choice("lr", 0.01 if small else 0.001 * batch / 16, "of the encoder, for this batch"),
        Choice("head_lr_multiplier", 5 if small else 10, "the heads start from random weights"),
    ]
    if found.rarest < _RARE:
        kept = max(0.001, round(1.5 * found.rarest, 3))
        choices += [
            Choice(
                "loss",
                "ohem",
                f"over the hard pixels alone: a class has {100 * found.rarest:.2g} % of the pixels, and a network that "
                "never finds it would be right nearly everywhere",
            ),
            Choice(
                "ohem_kept", kept, "share of pixels that count at least: about half of them of that class"
            ),
        ]
    if found.largest > _WHOLE:
        choices.append(
            Choice("evaluation", "sliding", f"images of up to {found.largest / 1e6:.0f} megapixels")
        )
    r_l, r_h = ranks(found.classes)
    why = f"of {found.classes} classes; the paper's 3 and 20 are of 21"
    choices += [
        Choice("overrides.contrast.r_l", r_l, why),
        Choice("overrides.contrast.r_h", r_h, why),
        Choice("overrides.contrast.N", 64, "negatives an anchor; 256 take four times as long"),
        Choice("overrides.contrast.queue", 10000, "of the bank, a class"),
        Choice(
            "overrides.suponly.epoch", "unlabeled", "as many steps as the other methods, to compare with them"
        ),
        Choice(
            "overrides.mixing.cutmix_probability", 1.0, "what gains most with few labels (docs/results.md)"
        ),
        Choice("overrides.gct.detector_lr", 0.0001 * batch / 8, "0.0001 for every eight labelled images"),
        Choice(
            "overrides.cct.context", list(range(min(found.classes, 8))), "classes that guide its decoders"
        ),
    ]
    return choices


_RARE = 0.01
"""Share of a class below which the loss over all pixels hardly hears of it."""
_WHOLE = 2**22
"""Most pixels of an image that is scored in one piece."""


def ranks(classes: int) -> tuple[int, int]:
    """Rank thresholds r_l and r_h for so many classes, in the proportions of the paper's 3 and 20 of 21."""
    low = min(3, max(1, round(classes / 7)))
    return low, max(low + 1, min(20, classes - 1))


def _sizes(side: int, small: bool) -> tuple[float, int]:
    """A factor for all images, and the crop: 32 k + 1, since a network's maps then end where the crop does."""
    room, largest = (256, 129) if small else (1024, 513)
    resize = 1.0 if side <= 1.5 * room else round(room / side, 3)
    crop = 32 * max(1, round(0.75 * side * resize / 32)) + 1
    return resize, max(33, min(crop, largest))


def _because_of_size(found: Found, resize: float) -> str:
    text = f"images of {found.width} x {found.height} pixels"
    return text if resize == 1 else f"{text} take this machine too long"


def _batch(found: Found, crop: int) -> int:
    most = 4 if found.device == "cpu" else 8
    if found.device == "cuda":
        most = max(2, min(most, int(found.memory / (2 * crop**2 * _GPU_BYTES_A_PIXEL))))
    return min(most, found.labeled)


def speed(recipe: Recipe, classes: int, threads: int | None = None) -> float:
    """Pixels of training images a second that go through the network forwards and backwards, on this machine.

    Args:
        recipe: of the network.
        classes: how many.
        threads: of a CPU that are used; None: as torch has them.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        return _speed(recipe, classes)
    finally:
        torch.set_num_threads(before)


def _speed(recipe: Recipe, classes: int) -> float:
    device = torch.device("cuda" if is_gpu() else "cpu")
    network = DeepLabV3Plus(classes, recipe.model_copy(update={"weights": "none"}), representation=False)
    network = network.to(device).train()
    images = torch.rand(2 * recipe.batch, 3, recipe.crop, recipe.crop, device=device)
    began, steps = 0.0, -1
    while steps < 1 or time.perf_counter() - began < _TRIED:
        logits = network(images, represent=False).logits
        upsample(logits, images.shape[2:]).square().mean().backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        steps += 1
        if steps == 0:
            began = time.perf_counter()
    return steps * images.shape[0] * recipe.crop**2 / (time.perf_counter() - began)


def length(
    found: Found, batch: int, crop: int, pixels_per_second: float, wanted: int | None = None
) -> list[Choice]:
    """How long to train.

    Args:
        found: by `look`.
        batch: labelled images a step.
        crop: side of a training image.
        pixels_per_second: by `speed`.
        wanted: optimiser steps, of which no epoch then has more than an eighth; None: as many as make a run of U²PL
            half an hour on a CPU and four hours on a GPU.
    """
    step = _U2PL * 2 * batch * crop**2 / pixels_per_second
    an_epoch = whole = max((found.unlabeled or found.labeled) // batch, 1)
    if wanted is None:
        low, high = _STEPS[found.device]
        wanted = min(high, max(low, int(3600 * _HOURS[found.device] / step)))
        epochs = max(4, round(wanted / an_epoch))
    else:
        an_epoch = min(whole, ceil(wanted / _LOOKS))
        epochs = max(1, round(wanted / an_epoch))
    steps = epochs * an_epoch
    validate = max(1, epochs // _LOOKS)
    warm = max(1, epochs // 4)
    limit = [Choice("limit_batches", an_epoch, f"steps of an epoch, of the {whole:,} that all images make")]
    return [
        *(limit if an_epoch < whole else []),
        Choice(
            "epochs",
            epochs,
            f"{steps:,} steps: about {minutes(steps * step)} with u2pl here, "
            f"{minutes(steps * step / _U2PL)} with suponly",
        ),
        Choice("validate_every", validate, "epochs: eight or so looks at the validation images in a run"),
        Choice(
            "overrides.teacher.warm_start_epochs",
            warm,
            "a quarter of the run, before there are pseudo-labels",
        ),
        Choice(
            "overrides.teacher.ema_decay",
            0.99 if steps >= 800 else 0.95,
            "the teacher averages a hundred steps"
            if steps >= 800
            else "the teacher averages twenty of few steps",
        ),
    ]


def minutes(seconds: float) -> str:
    """A duration in words."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def generally(params: Params) -> dict[str, Any]:
    """The settings of recipes that hold where nothing is chosen, with the precision that is fast here."""
    general = {key: value for key, value in params.values["recipe"].items() if key != "flavor"}
    return general | {"precision": "bfloat16" if has_native_bfloat16() else "float32"}


def recipe_of(general: Mapping[str, Any], choices: Sequence[Choice]) -> Recipe:
    """The recipe that choices make."""
    chosen = {choice.key: choice.value for choice in choices if "." not in choice.key}
    return load_settings(Recipe, {**general, **chosen}, "recipe")


def choose_for(
    project: Project, params: Params, split: Split, progress: Progress = lambda what, done, total: None
) -> list[Choice]:
    """Choose all settings of a split that `lacks_recipe`, and write them to `chosen_recipe_path`.

    Raises:
        UserError: no method could learn from such a split.
    """
    general = generally(params)
    found = look(split, general, progress)
    choices = choose(found)
    recipe = recipe_of(general, choices)
    progress("trying the speed of this machine", 0, 1)
    rate = speed(recipe, found.classes)
    progress("trying the speed of this machine", 1, 1)
    choices += length(found, recipe.batch, recipe.crop, rate)
    write_text(chosen_recipe_path(project, split.dataset, split.split), text(split, found, choices))
    return choices


def text(split: Split, found: Found, choices: Sequence[Choice]) -> str:
    """The file, YAML."""

    def line(choice: Choice) -> str:
        key = choice.key.removeprefix("overrides.")
        value = yaml.safe_dump(choice.value, default_flow_style=True).removesuffix("...\n").strip()
        return f"{key}: {value} # {choice.reason}"

    own = [choice for choice in choices if not choice.key.startswith("overrides.")]
    others = [choice for choice in choices if choice.key.startswith("overrides.")]
    where = "a GPU" if found.device == "cuda" else f"a CPU with {found.cores} cores"
    return "\n".join(
        [
            f"# Settings for {split.dataset}, split {split.split}: what `u2pl prepare` has chosen, and why.",
            "# Change what you like: it is not written again. Without this file the next one chooses anew.",
            f"# Found: {found.labeled} labelled and {found.unlabeled} unlabelled images of about {found.width} x "
            f"{found.height}, {found.classes} classes; {where}, {found.memory / 2**30:.0f} GiB.",
            *map(line, own),
            "overrides:",
            *(f"  {line(choice)}" for choice in others),
            "",
        ]
    )
