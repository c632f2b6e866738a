"""Synthetic shapes: small, drawn in seconds, and hard in the ways that matter to semi-supervised learning.

Only its outline tells an object's class: colour and texture are drawn alike for every class and for the
background. Partners look alike (disk and ring, square and diamond, star and cross), and of two pairs
one partner is rare.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from u2pl.data.description import BuiltIn, Description, Progress
from u2pl.data.pictures import write_indices
from u2pl.files import write_atomically, write_text

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


def _texture(rng: np.random.Generator, x: Field, y: Field) -> Field:
    """A surface of two random colours, (SIZE, SIZE, 3) from 0 to 255: stripes, checks, blotches or plain."""
    first = rng.uniform(25, 230, 3)
    second = np.clip(first + rng.uniform(-70, 70, 3), 0, 255)
    turn, period = rng.uniform(0, np.pi), rng.uniform(5, 14)
    u = (x * np.cos(turn) + y * np.sin(turn)) * 2 * np.pi / period
    v = (y * np.cos(turn) - x * np.sin(turn)) * 2 * np.pi / period
    kind = rng.integers(4)
    if kind == 0:
        share = np.clip(0.5 + 2 * np.sin(u), 0, 1)
    elif kind == 1:
        share = np.clip(0.5 + 3 * np.sin(u) * np.sin(v), 0, 1)
    elif kind == 2:
        share = np.clip(0.5 + 4 * (_smooth(rng.random(x.shape), 2.0) - 0.5), 0, 1)
    else:
        share = np.zeros_like(x)
    return first + (second - first) * share[..., None]


def draw_one(index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Picture (96, 96, 3) and mask (96, 96) number `index`, whatever else is drawn."""
    rng = np.random.default_rng([SEED, index])
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float64)
    picture = _texture(rng, x, y)
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
        picture = picture * (1 - cover) + _texture(rng, x, y) * cover
        mask[distance < 0] = label
        if rng.random() < 0.3:
            mask[np.abs(distance) < 1.2] = VOID
    turn, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.35)
    light = 1 + strength * ((x / SIZE - 0.5) * np.cos(turn) + (y / SIZE - 0.5) * np.sin(turn)) * 2
    picture = _smooth(picture * light[..., None], rng.uniform(0.3, 1.0))
    picture = picture + rng.normal(0, rng.uniform(4, 14), picture.shape)
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8), mask


def draw(folder: Path, progress: Progress) -> None:
    """Write images/, masks/, train.txt and val.txt; the same bytes each time."""
    names = {"train": [f"train_{k:03}" for k in range(TRAIN)], "val": [f"val_{k:03}" for k in range(VAL)]}
    everything = names["train"] + names["val"]
    for index, name in enumerate(everything):
        picture, mask = draw_one(index)
        _save(
            folder / "images" / f"{name}.png",
            lambda path, p=picture: Image.fromarray(p).save(path, format="PNG"),
        )
        _save(folder / "masks" / f"{name}.png", lambda path, m=mask: write_indices(path, m))
        progress("drawing", index + 1, len(everything))
    for part, listed in names.items():
        write_text(folder / f"{part}.txt", "\n".join(listed) + "\n")


DATASET = BuiltIn(Description(name="shapes", classes=CLASSES, background=True), draw=draw)
