"""The loader's work for one training image: ours beside the plain way, from files to an augmented crop.

The plain way decodes with Pillow, makes floats, normalises, scales all of the picture (F.interpolate), flips, pads and
crops. Both draw the same scales, flips and places, so that both give the same crop; that is checked first. The pictures
are drawn: noise of several sizes under some edges, as large on the disk as photographs.

"Handed over" is how many bytes a worker gives to the training process for an image. What the device then does with
ours (bytes to normalised floats) is in the rows "and normalised", as if the same core did it. The phases: "decode" ends
with the pixels of picture and mask in memory, "scale" is the interpolation, "rest" is all else, in milliseconds.

What is measured how: see benchmarks/measure.py.
"""

import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import measure
import numpy as np
import torch
from measure import Lap
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, pad

from u2pl.batches import transforms
from u2pl.batches.transforms import AugmentedImage, augment, normalise, random_scale
from u2pl.data.pictures import read_image, read_indices
from u2pl.models.colors import MEAN, STD

SCALE = (0.5, 2.0)
IGNORE = 255
PHASES = ("decode", "scale", "rest")
SETS = (((375, 500), ".jpg", 513, 48, 5.5), ((1024, 2048), ".png", 769, 6, 0.5))
"""Of VOC and Cityscapes: size, suffix, crop, how many pictures, grain (for files of 90 KB and of 2.3 MB)."""

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Pair = tuple[Path, Path]


def draw(height: int, width: int, seed: int, grain: float) -> tuple[Pixels, Pixels]:
    """A picture that compresses like a photograph, the less the more `grain` it has, and a mask of some regions."""
    rng = np.random.default_rng(seed)
    picture = np.full((height, width, 3), 120.0)
    for size, strength in ((64, 35), (16, 18), (4, 6 * grain), (2, 2 * grain), (1, 0.7 * grain)):
        cells = torch.from_numpy(rng.normal(0, strength, (1, 3, height // size + 2, width // size + 2)))
        picture += interpolate(cells, size=(height, width), mode="bicubic")[0].movedim(0, -1).numpy()
    mask = np.zeros((height, width), np.uint8)
    for label in rng.integers(1, 19, 6):
        top, left = rng.integers(height // 2), rng.integers(width // 2)
        bottom, right = top + rng.integers(height // 2), left + rng.integers(width // 2)
        mask[top:bottom, left:right] = label
        picture[top:bottom, left:right] += rng.normal(0, 40, 3)
    return picture.clip(0, 255).astype(np.uint8), mask


@contextmanager
def files(height: int, width: int, suffix: str, count: int, grain: float) -> Iterator[list[Pair]]:
    """Pictures and PNG masks on the disk."""
    with tempfile.TemporaryDirectory() as folder:
        pairs = []
        for k in range(count):
            picture, mask = draw(height, width, k, grain)
            pair = Path(folder) / f"{k}{suffix}", Path(folder) / f"{k}.mask.png"
            Image.fromarray(picture).save(pair[0], **({"quality": 90} if suffix == ".jpg" else {}))
            Image.fromarray(mask).save(pair[1])
            pairs.append(pair)
        sizes = [pair[0].stat().st_size / 1e3 for pair in pairs]
        print(
            f"\n{count} pictures of {width} x {height}, {statistics.mean(sizes):.0f} KB each on the disk ({suffix})"
        )
        yield pairs


def plain(pair: Pair, crop: int, rng: np.random.Generator, lap: Lap) -> tuple[Tensor, Tensor]:
    """Normalised float32 (3, crop, crop), and classes int64 (crop, crop)."""
    image = torch.from_numpy(np.array(Image.open(pair[0]).convert("RGB")))
    mask = torch.from_numpy(np.array(Image.open(pair[1])))
    lap("decode")
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    floats, labels = (image.permute(2, 0, 1).float() - mean) / std, mask.float()
    lap("rest")
    factor, flip, place = random_scale(rng, *SCALE), rng.random() < 0.5, rng.random(2)
    size = [int(factor * length) for length in mask.shape]
    floats = interpolate(floats[None], size=size, mode="bilinear", align_corners=False)[0]
    labels = interpolate(labels[None, None], size=size, mode="nearest")[0, 0].long()
    lap("scale")
    y, x = (int(at * (max(0, length - crop) + 1)) for at, length in zip(place, size, strict=True))
    if flip:
        floats, labels = floats.flip(-1), labels.flip(-1)
        x = max(0, size[1] - crop) - x
    high, wide = (max(0, crop - length) for length in size)
    border = (wide // 2, wide - wide // 2, high // 2, high - high // 2)
    floats, labels = pad(floats, border), pad(labels, border, value=IGNORE)
    seen = (slice(y, y + crop), slice(x, x + crop))
    return floats[:, *seen].contiguous(), labels[seen].contiguous()


def ours(
    pair: Pair,
    crop: int,
    rng: np.random.Generator,
    lap: Lap,
    interpolation: Literal["uint8", "float32"] = "uint8",
    decoded: dict[Pair, tuple[Pixels, Pixels]] | None = None,
) -> AugmentedImage:
    """As the loader's workers do it; `decoded` holds pictures that need not be decoded again."""
    image, mask = decoded[pair] if decoded else (read_image(pair[0]), read_indices(pair[1]))
    lap("decode")
    return augment(
        image,
        mask,
        crop=crop,
        scale=SCALE,
        interpolation=interpolation,
        ignore_index=IGNORE,
        padding_label=IGNORE,
        rng=rng,
    )


@contextmanager
def scaling_apart(lap: Lap) -> Iterator[None]:
    """Report the interpolation of our way as a phase of its own."""
    bilinear = transforms._bilinear

    def timed(*arguments: Any) -> Pixels:
        lap("rest")
        part = bilinear(*arguments)
        lap("scale")
        return part

    with mock.patch.object(transforms, "_bilinear", timed):
        yield


def finished(view: AugmentedImage) -> tuple[Tensor, Tensor]:
    """What the training device makes of a view."""
    return normalise(view.image[None], view.rows[None], view.columns[None])[0], view.mask.long()


def check(pairs: list[Pair], crop: int) -> str:
    """That both ways give the same crops, in a sentence."""
    worst = missed = 0.0
    for seed, pair in enumerate(pairs):
        expected = plain(pair, crop, np.random.default_rng(seed), measure.no_lap)
        image, mask = finished(ours(pair, crop, np.random.default_rng(seed), measure.no_lap))
        worst = max(worst, float((image - expected[0]).abs().max()))
        missed = max(missed, float((mask != expected[1]).float().mean()))
    if worst > 1.04 / min(STD):
        raise SystemExit(f"The two ways differ by {worst:.3f}, which is more than a grey level.")
    # F.interpolate's nearest, in float32, takes the pixel before where it falls short of a whole number.
    if missed > 0.01:
        raise SystemExit(f"The two ways give different masks in {missed:.1%} of the pixels.")
    return (
        f"Both give the same crops: pictures differ by {worst * min(STD):.2f} grey levels at most, "
        f"masks in {missed:.2%} of a crop's pixels at most."
    )


def compare(pairs: list[Pair], crop: int, repeats: int) -> None:
    """Print images per second of each version, and its phases."""

    def over_all(version: Callable[..., object], **options: Any) -> measure.Step:
        def step(lap: Lap) -> None:
            with scaling_apart(lap):
                for seed, pair in enumerate(pairs):
                    version(pair, crop, np.random.default_rng(seed), lap, **options)
                    lap("rest")

        return step

    def normalised(*arguments: Any, **options: Any) -> None:
        finished(ours(*arguments, **options))

    decoded = {pair: (read_image(pair[0]), read_indices(pair[1])) for pair in pairs}
    versions = {
        "plain": over_all(plain),
        "ours, uint8": over_all(ours),
        "ours, uint8, and normalised": over_all(normalised),
        "ours, float32": over_all(ours, interpolation="float32"),
        "ours, float32, and normalised": over_all(normalised, interpolation="float32"),
        "ours, uint8, pictures kept in memory": over_all(ours, decoded=decoded),
    }
    times = measure.taking_turns(versions, repeats, torch.device("cpu"))
    spent = {name: statistics.median(measure.totals(times[name])) / len(pairs) for name in versions}
    bytes_of = {"uint8": crop * crop * (3 + 1), "float32": crop * crop * (3 * 4 + 1)}
    handed = {name: bytes_of["float32" if "float32" in name else "uint8"] for name in versions}
    handed |= {"plain": crop * crop * (3 * 4 + 8)}
    measure.show(
        f"Crop {crop}",
        ("version", "images/s", "ratio", "ms an image", *PHASES, "MB handed over"),
        [
            (
                name,
                f"{1e3 / ms:.0f}",
                f"{spent['plain'] / ms:.2f}",
                f"{ms:.2f}",
                *(f"{statistics.median(t[phase] for t in times[name]) / len(pairs):.2f}" for phase in PHASES),
                f"{handed[name] / 1e6:.1f}",
            )
            for name, ms in spent.items()
        ],
    )


def main() -> None:
    """Measure at the sizes of VOC and Cityscapes."""
    options = measure.arguments(__doc__).parse_args()
    if options.device != "cpu":
        raise SystemExit("The loader's workers have no device: use --device cpu.")
    measure.prepared(options)
    for (height, width), suffix, crop, count, grain in SETS:
        with files(height, width, suffix, count, grain) as pairs:
            print(check(pairs, crop))
            compare(pairs, crop, options.repeats)


if __name__ == "__main__":
    main()
