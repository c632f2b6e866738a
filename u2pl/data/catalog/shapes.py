"""Synthetic shapes: small, drawn in seconds, and hard in the ways that matter to semi-supervised learning.

Colours are drawn alike for every class and for the background, so that no pixel's colour tells its class.
Outline and pattern do, but not surely: one object in ten has the pattern of another class, neighbours in
the list differ only in the width of their stripes or checks, and some outlines are alike (disk and ring,
square and diamond, star and cross). Ring and cross are rare.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from u2pl.data.description import Description, Progress
from u2pl.data.layout import BuiltIn
from u2pl.data.pictures import write_png
from u2pl.files import write_text

Field = NDArray[np.float64]
"""One number a pixel, (SIZE, SIZE)."""

SIZE = 96
TRAIN, VAL = 480, 120
VOID = 255
SEED = 1
CLASSES = ["background", "disk", "square", "triangle", "diamond", "star", "ring", "cross"]
FREQUENCIES = [0.24, 0.20, 0.18, 0.16, 0.13, 0.05, 0.04]
"""How often an object is a disk, a square, ...; ring and cross are the rare ones."""


def _disk(x: Field, y: Field) -> Field:
    return np.hypot(x, y) - 1


def _ring(x: Field, y: Field) -> Field:
    return np.abs(np.hypot(x, y) - 0.68) - 0.32


def _square(x: Field, y: Field) -> Field:
    return np.maximum(np.abs(x), np.abs(y)) - 0.85


def _polygon(sides: int, inner: float) -> Callable[[Field, Field], Field]:
    """A regular polygon of radius 1; a star whose notches reach in to `inner` where that is smaller."""

    def distance(x: Field, y: Field) -> Field:
        sector = np.pi / sides
        angle = np.abs((np.arctan2(y, x) + sector) % (2 * sector) - sector)
        radius = np.hypot(x, y)
        # The edge runs from the tip (1, 0) to the notch at half a sector.
        notch_x, notch_y = inner * np.cos(sector), inner * np.sin(sector)
        length = np.hypot(1 - notch_x, notch_y)
        return (notch_y * (radius * np.cos(angle) - 1) + (1 - notch_x) * radius * np.sin(angle)) / length

    return distance


def _cross(x: Field, y: Field) -> Field:
    x, y = np.abs(x), np.abs(y)
    return np.minimum(np.maximum(x - 1, y - 0.36), np.maximum(x - 0.36, y - 1))


OUTLINES: dict[str, Callable[[Field, Field], Field]] = {
    "disk": _disk,
    "square": _square,
    "triangle": _polygon(3, 0.5),
    "diamond": _square,
    "star": _polygon(4, 0.42),
    "ring": _ring,
    "cross": _cross,
}
"""Of each class, the distance to its outline in units of its radius: negative inside."""

PERIODS = [1, 5, 10, 5, 10, 6, 12, 8]
"""Of each class, the width of its pattern in pixels: blotches, two kinds of upright stripes, two of level
ones, two of checks, dots."""

STRAY = 0.1
"""How often an object has the pattern of any class."""

SCALES = {"triangle": 1.25, "star": 1.2, "cross": 1.1}
"""Slim outlines are drawn larger, so that a class is not rare for its area alone."""


def _tilt(name: str, rng: np.random.Generator) -> float:
    """Rotation in radians. A diamond is a square on its tip; of the others only a disk has no direction."""
    if name in ("square", "diamond"):
        return rng.uniform(-0.24, 0.24) + (np.pi / 4 if name == "diamond" else 0)
    return rng.uniform(0, 2 * np.pi)


def _smooth(picture: Field, sigma: float) -> Field:
    """Gaussian blur over the first two axes, edges repeated."""
    reach = int(np.ceil(3 * sigma))
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    weights /= weights.sum()
    for axis in (0, 1):
        width = [(reach, reach) if a == axis else (0, 0) for a in range(picture.ndim)]
        padded = np.pad(picture, width, mode="edge")
        length = picture.shape[axis]
        picture = sum(
            (w * np.take(padded, range(k, k + length), axis=axis) for k, w in enumerate(weights)),
            start=np.zeros_like(picture),
        )
    return picture


def _texture(rng: np.random.Generator, x: Field, y: Field, label: int) -> Field:
    """A surface of a random colour with the pattern that a class mostly has, (SIZE, SIZE, 3) from 0 to 255.

    The pattern's dark parts are the same colour darkened: colours are drawn alike for every class.
    """
    light = rng.uniform(70, 240, 3)
    dark = light * rng.uniform(0.3, 0.6)
    kind = int(rng.integers(len(CLASSES))) if rng.random() < STRAY else label
    turn = rng.uniform(-0.25, 0.25) + (np.pi / 2 if kind in (3, 4) else 0)
    frequency = 2 * np.pi / (PERIODS[kind] * rng.uniform(0.85, 1.15))
    u = (x * np.cos(turn) + y * np.sin(turn)) * frequency + rng.uniform(0, 2 * np.pi)
    v = (y * np.cos(turn) - x * np.sin(turn)) * frequency + rng.uniform(0, 2 * np.pi)
    if kind == 0:
        share = 0.6 * np.clip(0.5 + 9 * (_smooth(rng.random(x.shape), 3.0) - 0.5), 0, 1)
    elif kind <= 4:
        share = np.clip(0.5 + 2 * np.sin(u), 0, 1)
    elif kind <= 6:
        share = np.clip(0.5 + 3 * np.sin(u) * np.sin(v), 0, 1)
    else:
        share = np.clip(-1 + 4 * (np.cos(u / 2) * np.cos(v / 2)) ** 2, 0, 1)
    return light + (dark - light) * share[..., None]


def draw_one(index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Picture (96, 96, 3) and mask (96, 96) number `index`, whatever else is drawn."""
    rng = np.random.default_rng([SEED, index])
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float64)
    picture = _texture(rng, x, y, 0)
    mask = np.zeros((SIZE, SIZE), dtype=np.uint8)
    for _ in range(rng.integers(2, 5)):
        label = 1 + int(rng.choice(len(FREQUENCIES), p=FREQUENCIES))
        name = CLASSES[label]
        radius, tilt = rng.uniform(16, 29) * SCALES.get(name, 1), _tilt(name, rng)
        left, top = rng.uniform(0.15 * SIZE, 0.85 * SIZE, 2)
        u = ((x - left) * np.cos(tilt) + (y - top) * np.sin(tilt)) / radius
        v = ((y - top) * np.cos(tilt) - (x - left) * np.sin(tilt)) / radius
        distance = OUTLINES[name](u, v) * radius
        cover = np.clip(0.5 - distance, 0, 1)[..., None]
        # A darker rim, the same for every class, tells objects from the texture around them.
        rim = 1 - 0.5 * np.clip(1.5 - np.abs(distance + 1.5), 0, 1)[..., None]
        picture = picture * (1 - cover) + _texture(rng, x, y, label) * rim * cover
        mask[distance < 0] = label
        if rng.random() < 0.3:
            mask[np.abs(distance) < 1.2] = VOID
    turn, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.35)
    light = 1 + strength * ((x / SIZE - 0.5) * np.cos(turn) + (y / SIZE - 0.5) * np.sin(turn)) * 2
    picture = _smooth(picture * light[..., None], rng.uniform(0.3, 0.6))
    picture = picture + rng.normal(0, rng.uniform(3, 9), picture.shape)
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8), mask


def draw(folder: Path, progress: Progress) -> None:
    """Write images/, masks/, train.txt and val.txt; the same bytes each time."""
    names = {"train": [f"train_{k:03}" for k in range(TRAIN)], "val": [f"val_{k:03}" for k in range(VAL)]}
    everything = names["train"] + names["val"]
    for index, name in enumerate(everything):
        picture, mask = draw_one(index)
        write_png(folder / "images" / f"{name}.png", picture)
        write_png(folder / "masks" / f"{name}.png", mask)
        progress("drawing images", index + 1, len(everything))
    for part, listed in names.items():
        write_text(folder / f"{part}.txt", "\n".join(listed) + "\n")


DATASET = BuiltIn(
    Description(name="shapes", classes=CLASSES, background=True),
    draw=draw,
    counts={"train": TRAIN, "val": VAL},
)
