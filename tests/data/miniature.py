"""Miniatures of VOC, SBD and Cityscapes: the real layouts and formats, few and small pictures.

`patch` makes u2pl believe that the miniatures are the real data sets: their counts, and archives and lists that lie at
another address.
"""

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image
from scipy.io import savemat

from u2pl.data import published
from u2pl.data.catalog import cityscapes, voc
from u2pl.data.fetch import Remote

TRAIN = [f"2007_{k:06}" for k in range(8)]
"""VOC's own training images."""
VAL = [f"2008_{k:06}" for k in range(100, 104)]
MORE = [f"2009_{k:06}" for k in range(200, 212)]
"""Training images that only SBD has masks of."""
SBD_TRAIN = [*MORE[:7], *TRAIN[:3], VAL[0]]
SBD_VAL = [*MORE[7:], TRAIN[3], VAL[1]]
LABELED = {"classic-1/4": TRAIN[:2], "blender-1/4": [TRAIN[0], *MORE[:4]], "classic-full": TRAIN}

CITY_TRAIN = {"aachen": 9, "ulm": 7}
CITY_VAL = {"münster": 4}

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def scene(key: str, width: int = 60, height: int = 45) -> tuple[Pixels, Pixels]:
    """A picture and its classes 0, 1, 15 and 255, decided by the key."""
    rng = np.random.default_rng(list(key.encode()))
    y, x = np.mgrid[:height, :width]
    mask = np.zeros((height, width), np.uint8)
    for label in (1, 15):
        top, left = rng.integers(4, height - 20), rng.integers(4, width - 20)
        mask[top : top + 14, left : left + 14] = label
        mask[top - 1 : top, left : left + 14] = 255
    colors = {0: (60, 60, 60), 1: (200, 40, 40), 15: (40, 200, 40), 255: (255, 255, 255)}
    picture = np.zeros((height, width, 3))
    for label, color in colors.items():
        picture[mask == label] = color
    picture += rng.integers(-20, 20, picture.shape) + (x + y)[..., None] % 9
    return picture.clip(0, 255).astype(np.uint8), mask


def make_pascal(folder: Path) -> Path:
    """VOCdevkit/VOC2012 in `folder`: pictures, palette masks, lists, and things nobody needs."""
    pascal = folder / "VOCdevkit" / "VOC2012"
    for name in (
        "JPEGImages",
        "SegmentationClass",
        "SegmentationObject",
        "Annotations",
        "ImageSets/Segmentation",
    ):
        (pascal / name).mkdir(parents=True)
    for k, name in enumerate([*TRAIN, *VAL, *MORE]):
        picture, mask = scene(name, *((60, 45) if k % 3 else (45, 60)))
        Image.fromarray(picture).save(pascal / "JPEGImages" / f"{name}.jpg", quality=95)
        (pascal / "Annotations" / f"{name}.xml").write_text("<annotation/>")
        if name not in MORE:
            palette = Image.fromarray(mask)
            palette.putpalette([value for k in range(256) for value in voc.default_color(k)])
            palette.save(pascal / "SegmentationClass" / f"{name}.png")
    for part, names in (("train", TRAIN), ("val", VAL), ("trainval", [*TRAIN, *VAL])):
        (pascal / "ImageSets/Segmentation" / f"{part}.txt").write_text("".join(f"{n}\n" for n in names))
    return pascal


def make_sbd(folder: Path) -> Path:
    """benchmark_RELEASE/dataset in `folder`, with MATLAB masks as SBD has them."""
    sbd = folder / "benchmark_RELEASE" / "dataset"
    for name in ("cls", "img", "inst"):
        (sbd / name).mkdir(parents=True)
    sizes = {name: (60, 45) if k % 3 else (45, 60) for k, name in enumerate([*TRAIN, *VAL, *MORE])}
    for name in dict.fromkeys([*SBD_TRAIN, *SBD_VAL]):
        _, mask = scene(name, *sizes[name])
        # SBD has no void pixels, and its outlines are not VOC's.
        coarse = np.where(mask == 255, 0, mask).astype(np.uint8)
        present = np.unique(coarse[coarse > 0])[:, None].astype(np.uint8)
        savemat(
            sbd / "cls" / f"{name}.mat",
            {
                "GTcls": {
                    "Boundaries": np.zeros((20, 1)),
                    "Segmentation": coarse,
                    "CategoriesPresent": present,
                }
            },
            do_compression=True,
        )
    (sbd / "train.txt").write_text("".join(f"{n}\n" for n in SBD_TRAIN))
    (sbd / "val.txt").write_text("".join(f"{n}\n" for n in SBD_VAL))
    return sbd


def make_aug(folder: Path) -> Path:
    """A ready-made SegmentationClassAug in `folder`: a grey index mask for every image."""
    aug = folder / "SegmentationClassAug"
    aug.mkdir(parents=True)
    sizes = {name: (60, 45) if k % 3 else (45, 60) for k, name in enumerate([*TRAIN, *VAL, *MORE])}
    for name, size in sizes.items():
        Image.fromarray(scene(name, *size)[1]).save(aug / f"{name}.png")
    return aug


def make_cityscapes(folder: Path) -> None:
    """leftImg8bit and gtFine in `folder`, with the other files that gtFine has, and test images without truth."""
    ids = {0: 7, 1: 26, 15: 33, 255: 3}  # road, car, bicycle, out of roi
    for part, cities in (("train", CITY_TRAIN), ("val", CITY_VAL), ("test", {"bonn": 2})):
        for city, count in cities.items():
            for k in range(count):
                stem = f"{city}_{k:06}_000019"
                picture, mask = scene(stem, 64, 40)
                image = folder / "leftImg8bit" / part / city / f"{stem}_leftImg8bit.png"
                image.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture).save(image)
                truth = folder / "gtFine" / part / city / f"{stem}_gtFine"
                truth.parent.mkdir(parents=True, exist_ok=True)
                label_ids = np.zeros_like(mask)
                for label, label_id in ids.items():
                    label_ids[mask == label] = label_id
                Image.fromarray(label_ids).save(f"{truth}_labelIds.png")
                Image.fromarray(picture).save(f"{truth}_color.png")
                Image.fromarray(label_ids.astype(np.uint16) * 1000).save(f"{truth}_instanceIds.png")
                Path(f"{truth}_polygons.json").write_text("{}")


def zip_cityscapes(source: Path, target: Path) -> None:
    """The two archives as they are downloaded, from what `make_cityscapes` made."""
    target.mkdir(parents=True, exist_ok=True)
    for part, name in cityscapes.ARCHIVES.items():
        with zipfile.ZipFile(target / name, "w") as archive:
            archive.writestr("README", "as in the real ones")
            for path in sorted((source / part).rglob("*")):
                archive.write(path, path.relative_to(source))


def serve_voc(source: Path, target: Path) -> None:
    """The two archives of VOC and SBD, at the places below `target` where `patch` looks for them."""
    target.mkdir(parents=True, exist_ok=True)
    with tarfile.open(target / voc.VOC.name, "w") as archive:
        archive.add(source / "VOCdevkit", "VOCdevkit")
    with tarfile.open(target / voc.SBD.name, "w:gz") as archive:
        archive.add(source / "benchmark_RELEASE", "benchmark_RELEASE")


def serve_lists(target: Path) -> None:
    """The authors' lists of the miniatures, in the folders of their repository, below `target`."""
    everything = [*TRAIN, *MORE]
    for split, labeled in LABELED.items():
        folder = target / "pascal" / split.replace("/", "_")
        folder.mkdir(parents=True)
        # As in the real ones, the last line has no end.
        (folder / "labeled.txt").write_text("\n".join(labeled))
        (folder / "unlabeled.txt").write_text("\n".join(n for n in everything if n not in labeled))
    (target / "pascal" / "val.txt").write_text("\n".join(VAL))
    folder = target / "cityscapes" / "4"
    folder.mkdir(parents=True)
    names = {
        part: [
            f"leftImg8bit/{part}/{city}/{city}_{k:06}_000019_leftImg8bit.png"
            for city in c
            for k in range(c[city])
        ]
        for part, c in (("train", CITY_TRAIN), ("val", CITY_VAL))
    }
    (folder / "labeled.txt").write_text("\n".join(names["train"][::4]) + "\n")
    (folder / "unlabeled.txt").write_text(
        "\n".join(n for n in names["train"] if n not in names["train"][::4])
    )
    (target / "cityscapes" / "val.txt").write_text("\n".join(names["val"]))


def _family(folder: Path, address: str) -> dict[str, Any]:
    """The entry of published.yaml for the lists that `serve_lists` wrote."""

    def sha(path: str) -> str:
        return hashlib.sha256((folder / path).read_bytes()).hexdigest()

    def split(path: str) -> dict[str, Any]:
        count = len((folder / path / "labeled.txt").read_text().split())
        lists = {part: sha(f"{path}/{part}.txt") for part in ("labeled", "unlabeled")}
        return {"folder": path, "images": count, **lists}

    return {
        "title": "miniature lists",
        "address": address,
        "page": address,
        "data_sets": {
            "voc": {
                "val": {"path": "pascal/val.txt", "sha256": sha("pascal/val.txt")},
                "fine": "classic-full",
                "splits": {name: split(f"pascal/{name.replace('/', '_')}") for name in LABELED},
            },
            "cityscapes": {
                "val": {"path": "cityscapes/val.txt", "sha256": sha("cityscapes/val.txt")},
                "splits": {"1/4": split("cityscapes/4")},
            },
        },
    }


def patch(monkeypatch: Any, served: Path, address: str) -> None:
    """Let u2pl take the miniatures for the real data sets.

    Args:
        monkeypatch: anything with pytest's `setattr(object, name, value)`.
        served: folder with `archives/` (see `serve_voc`) and `lists/` (see `serve_lists`); either may be missing.
        address: where that folder is served.
    """
    monkeypatch.setattr(voc, "COUNTS", voc.Counts(len(TRAIN), len(VAL), len(TRAIN) + len(MORE)))
    monkeypatch.setattr(
        cityscapes, "COUNTS", cityscapes.Counts(sum(CITY_TRAIN.values()), sum(CITY_VAL.values()))
    )
    for which in ("VOC", "SBD"):
        path = served / "archives" / getattr(voc, which).name
        if path.is_file():
            digest = hashlib.md5(path.read_bytes()).hexdigest()
            monkeypatch.setattr(voc, which, Remote(f"{address}/archives/{path.name}", f"md5:{digest}"))
    if (served / "lists").is_dir():
        family = published.Family(**_family(served / "lists", f"{address}/lists"))
        monkeypatch.setattr(published, "families", lambda: {"u2pl": family})


class _Plainly:
    """Sets attributes, and never sets them back: for a process of its own."""

    setattr = staticmethod(setattr)


def command(
    cwd: Path, served: Path, address: str, *words: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """`u2pl WORDS` in a process of its own that takes the miniatures for the real data sets."""
    script = (
        "import sys; from pathlib import Path; from data import miniature;"
        "miniature.patch(miniature._Plainly, Path(sys.argv.pop(1)), sys.argv.pop(1));"
        "from u2pl_cli.__main__ import main; main()"
    )
    return subprocess.run(
        [sys.executable, "-c", script, str(served), address, *words],
        cwd=cwd,
        env={
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "U2PL_TRACKING": "none",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=300,
    )


def jpeg(picture: Pixels) -> bytes:
    """A picture as a JPEG file's bytes."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG")
    return buffer.getvalue()


RECIPE = {
    "backbone": "resnet10",
    "weights": "none",
    "output_stride": 16,
    "multi_grid": False,
    "width": 8,
    "representation": 8,
    "crop": 64,
    "batch": 2,
    "epochs": 2,
    "precision": "float32",
}


def use_small_recipe(params: Path, dataset: str) -> None:
    """Let a data set's own recipe build a network that trains in seconds; what else it says stays."""
    values = yaml.safe_load(params.read_text())
    recipe = values["recipes"][dataset]
    recipe.update(RECIPE)
    recipe.setdefault("overrides", {}).update(
        {
            "u2pl.warm_start_epochs": 1,
            "cutmix.warm_start_epochs": 1,
            "u2pl.queue": 40,
            "u2pl.queue_background": 60,
            "u2pl.M": 4,
            "u2pl.N": 8,
        }
    )
    params.write_text(yaml.safe_dump(values))
