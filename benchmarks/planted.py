"""Copies a data set with mistakes planted in it, and counts how many of them `u2pl check` finds.

    python benchmarks/planted.py plant DATA LISTS COPY      # LISTS: data/NAME/splits/SPLIT of a prepared project
    python benchmarks/planted.py count COPY runs/NAME/check

Ten masks are broken, five of labelled and five of validation images: in six two classes change places in a box of half
the height and width, four are shifted by a tenth of the width. Twenty-five unlabelled images are replaced by copies of
labelled and validation images: smaller, compressed again, brighter, mirrored, and with 5 % cut off each side.
"""

import json
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import Image

VOID = 255
KINDS = ("smaller", "compressed", "brighter", "mirrored", "cropped")


def plant(data: Path, lists: Path, copy: Path) -> None:
    """Copy `data` to `copy`, with mistakes, and write down in planted.json which."""
    shutil.copytree(data, copy)
    rng = np.random.default_rng(0)
    labeled, unlabeled, val = (
        (lists / f"{part}.txt").read_text().split() for part in ("labeled", "unlabeled", "val")
    )
    order = [list(rng.permutation(names)) for names in (labeled, val)]
    broken = [*order[0][:5], *order[1][:5]]
    for number, name in enumerate(broken):
        path = copy / "masks" / f"{name}.png"
        mask = np.array(Image.open(path))
        wrong = shifted(mask) if number % 5 >= 3 else swapped(mask, rng)
        replace(path, wrong)
    sources = [*order[0][5:18], *order[1][5:17]]
    twins = {}
    for number, (source, target) in enumerate(zip(sources, rng.permutation(unlabeled), strict=False)):
        kind = KINDS[number % 5]
        image, mask = (file(copy, folder, source) for folder in ("images", "masks"))
        picture, indices = changed(
            kind, np.array(Image.open(image).convert("RGB")), np.array(Image.open(mask))
        )
        place = file(copy, "images", target)
        quality = {"quality": 40 if kind == "compressed" else 92} if place.suffix == ".jpg" else {}
        Image.fromarray(picture).save(place, **quality)
        replace(file(copy, "masks", target), indices)
        twins[target] = [source, kind]
    (copy / "planted.json").write_text(json.dumps({"broken": broken, "twins": twins}, indent=1))


def file(root: Path, folder: str, name: str) -> Path:
    """The picture of a name."""
    return next((root / folder).glob(f"{name}.*"))


def replace(path: Path, mask: np.ndarray) -> None:
    """Write a mask in place of another one, with its palette."""
    palette = Image.open(path).getpalette()
    new = Image.fromarray(mask.astype(np.uint8))
    if palette is not None:
        new.putpalette(palette)
    new.save(path)


def swapped(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Two classes change places in the box in which the rarer of the two has most pixels, of some that are tried."""
    height, width = (side // 2 for side in mask.shape)
    best, found = 0, None
    for _ in range(40):
        y, x = rng.integers(0, mask.shape[0] - height), rng.integers(0, mask.shape[1] - width)
        box = mask[y : y + height, x : x + width]
        counts = np.bincount(box[box != VOID], minlength=2)
        second = np.sort(counts)[-2]
        if second > best:
            a, b = np.argsort(counts)[-2:]
            best, found = second, (y, x, a, b)
    y, x, a, b = found
    new, box = mask.copy(), mask[y : y + height, x : x + width]
    new[y : y + height, x : x + width] = np.where(box == a, b, np.where(box == b, a, box))
    return new


def shifted(mask: np.ndarray) -> np.ndarray:
    """The mask moved to the right and down by a tenth of its width."""
    by = mask.shape[1] // 10
    new = np.full_like(mask, VOID)
    new[by:, by:] = mask[:-by, :-by]
    return new


def changed(kind: str, picture: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A picture and its mask, changed in one of the five ways."""
    height, width = mask.shape
    if kind == "smaller":
        size = (round(0.6 * width), round(0.6 * height))
        return cv2.resize(picture, size, interpolation=cv2.INTER_AREA), cv2.resize(
            mask, size, interpolation=0
        )
    if kind == "brighter":
        return (1.3 * picture.astype(np.float32) + 10).clip(0, 255).astype(np.uint8), mask
    if kind == "mirrored":
        return np.ascontiguousarray(picture[:, ::-1]), np.ascontiguousarray(mask[:, ::-1])
    if kind == "cropped":
        y, x = round(0.05 * height), round(0.05 * width)
        return picture[y:-y, x:-x], mask[y:-y, x:-x]
    return picture, mask


def count(copy: Path, check: Path) -> None:
    """Say how many of the mistakes stand how far up in the tables of `u2pl check`."""
    planted = json.loads((copy / "planted.json").read_text())
    masks = pd.read_csv(check / "masks.csv", dtype={"image": str})
    for list_ in ("labelled", "validation", None):
        some = masks if list_ is None else masks[masks["list"] == list_]
        broken = set(planted["broken"]) & set(some["image"])
        for first in (5, 10, 20):
            found = broken & set(some["image"][:first])
            print(f"masks, {list_ or 'all'}: {len(found)} of {len(broken)} broken ones in the first {first}")
    pairs = pd.read_csv(check / "near_duplicates.csv", dtype={"image": str, "other": str})
    told = {
        frozenset(pair): s for *pair, s in pairs[["image", "other", "similarity"]].itertuples(index=False)
    }
    twins = {frozenset((target, source)): kind for target, (source, kind) in planted["twins"].items()}
    for kind in KINDS:
        of_kind = [pair for pair, other in twins.items() if other == kind]
        print(f"{kind}: {sum(pair in told for pair in of_kind)} of {len(of_kind)} twins found")
    print(f"pairs that were not planted: {len(set(told) - set(twins))}")


if __name__ == "__main__":
    {"plant": plant, "count": count}[sys.argv[1]](*map(Path, sys.argv[2:]))
