"""PASCAL VOC 2012 with the extra masks of SBD: 10,582 training and 1,449 validation images in 21 classes.

The 1,464 training images of VOC have fine masks; 9,118 more have the coarser masks of the Semantic Boundaries
Dataset (Hariharan et al., 2011). The pictures of both are among VOC's.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from u2pl.data.description import Description, Progress, default_color, read_mask
from u2pl.data.fetch import Remote, download, unpack_once, was_unpacked
from u2pl.data.inspection import BadFile
from u2pl.data.layout import BuiltIn, Layout, check_count, folders, only
from u2pl.data.lists import read_names
from u2pl.errors import UserError

CLASSES = [
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
]

DESCRIPTION = Description(
    name="voc",
    classes=CLASSES,
    colors=[default_color(k) for k in range(len(CLASSES))],
    ignore_color=(224, 224, 192),
    palette="indices",
    background=True,
)


class Counts(NamedTuple):
    """How many images the data set has."""

    train: int
    val: int
    augmented: int
    """VOC's training images, and those of SBD that are not in VOC's validation set."""


COUNTS = Counts(1464, 1449, 10582)

VOC = Remote(
    "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
    "md5:6cd6e144f989b92b3379bac3b3de84fd",
)
SBD = Remote(
    "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",
    "md5:82b4d87ceb2ed10f6038a1cba92111cb",
)
WANTED = {
    VOC.name: ("/JPEGImages/", "/SegmentationClass/", "/ImageSets/Segmentation/"),
    SBD.name: ("/cls/", "/dataset/train.txt", "/dataset/val.txt"),
}
"""What is unpacked of each archive: a member whose path has one of these in it."""
TOP = {VOC.name: "VOCdevkit", SBD.name: "benchmark_RELEASE"}
"""The folder that each archive holds."""

INSTEAD = (
    "Where the data lies already, name its folder with --root: VOCdevkit/VOC2012, and beside or in it "
    "SegmentationClassAug or SBD's benchmark_RELEASE."
)

BULK = {"JPEGImages", "Annotations", "SegmentationClass", "SegmentationObject", "img", "cls", "inst"}
"""Folders of thousands of files that hold no other folder."""


def fetch(own: Path, progress: Progress) -> None:
    """Download both archives (2.0 and 1.4 GB) and unpack what is needed of them; what is there already is kept."""
    for remote in (VOC, SBD):
        if not was_unpacked(own, remote.name, TOP[remote.name]):
            archive = own.parent / "downloads" / remote.name
            download(remote, archive, progress, INSTEAD)
            _unpack(remote, archive, own, progress)
            archive.unlink()  # unpacked and complete; the space is wanted


def _unpack(remote: Remote, archive: Path, own: Path, progress: Progress) -> None:
    def wanted(member: str) -> bool:
        return any(part in f"/{member}" for part in WANTED[remote.name])

    unpack_once(archive, own, wanted, TOP[remote.name], progress)


def locate(root: Path, own: Path, progress: Progress) -> Layout:
    """VOC and the additional masks, wherever they are below `root`; archives there are unpacked into `own`.

    Raises:
        UserError: something is missing (then what was found is said too), or the numbers of images are not VOC's.
    """
    pascal, augmented, sbd = _search(root, own, progress)
    if pascal is None:
        inside = ", ".join(sorted(path.name for path in root.iterdir() if not path.name.startswith("."))[:6])
        raise UserError(
            f"There is no PASCAL VOC 2012 in {root} (it holds {inside or 'nothing'}): no folder with JPEGImages and "
            f"ImageSets/Segmentation, and no {VOC.name}. Name the folder that holds VOCdevkit with --root, or leave "
            "--root out to download everything (3.4 GB)."
        )
    sets = pascal / "ImageSets" / "Segmentation"
    train, val = read_names(sets / "train.txt"), read_names(sets / "val.txt")
    check_count("names in train.txt", sets, len(train), COUNTS.train)
    check_count("names in val.txt", sets, len(val), COUNTS.val)
    if augmented:
        names = {path.stem for path in augmented.glob("*.png")}
        extra = augmented
    elif sbd:
        names = {*read_names(sbd / "train.txt"), *read_names(sbd / "val.txt")}
        extra = sbd / "cls"
    else:
        raise UserError(
            f"Found PASCAL VOC 2012 in {pascal}, but not the masks of its augmented training set. Missing in {root}: a "
            f"folder SegmentationClassAug, or SBD (benchmark_RELEASE/dataset, from {SBD.url}), or its archive "
            f"{SBD.name}. Put one of them there, or leave out --root to download everything (3.4 GB)."
        )
    pool = sorted({*train, *names} - set(val))
    check_count("augmented training images", extra, len(pool), COUNTS.augmented)
    own_masks = pascal / "SegmentationClass"
    fine = {*train, *val} if own_masks.is_dir() else set[str]()

    def mask(name: str) -> list[Path]:
        if name in fine:
            return only(own_masks / f"{name}.png")
        return only(extra / f"{name}{'.png' if augmented else '.mat'}")

    missing = [name for name in (*pool, *val) if not mask(name)]
    if missing:
        raise UserError(
            f"{len(missing):,} of the {len(pool) + len(val):,} masks of PASCAL VOC are not in {extra} and {own_masks}, "
            f"{missing[0]} among them. Copy or unpack them again, or name another folder with --root."
        )
    return Layout(
        train=pool,
        val=val,
        images=lambda name: only(pascal / "JPEGImages" / f"{name}.jpg"),
        masks=mask,
        read_mask=_read_mask,
        pools={"classic": train, "blender": pool},
        fine=train,
        found=(
            f"Found PASCAL VOC 2012 in {pascal}: {len(train):,} training and {len(val):,} validation images.",
            f"Found {len(pool) - len(train):,} more training images with masks in {extra}.",
        ),
    )


def _search(root: Path, own: Path, progress: Progress) -> tuple[Path | None, Path | None, Path | None]:
    """VOC2012, SegmentationClassAug and SBD's dataset folder, each if it can be found or unpacked."""
    pascal, augmented, sbd = _find(root)
    for remote, missing in ((VOC, pascal is None), (SBD, augmented is None and sbd is None)):
        archive = next((f / remote.name for f in folders(root, 1, BULK) if (f / remote.name).is_file()), None)
        if missing and archive and not was_unpacked(own, archive.name, TOP[remote.name]):
            if not remote.is_right(archive):
                raise UserError(
                    f"{archive} is not the archive it should be ({remote.checksum}); it may be cut off. Download it "
                    f"again from {remote.url}, or take it away."
                )
            _unpack(remote, archive, own, progress)
        if missing and archive:
            here, _, masks = _find(own)
            pascal, sbd = pascal or here, sbd or masks
    return pascal, augmented, sbd


def _find(root: Path) -> tuple[Path | None, Path | None, Path | None]:
    pascal = augmented = sbd = None
    for folder in folders(root, 4, BULK):
        if (folder / "JPEGImages").is_dir() and (folder / "ImageSets/Segmentation/train.txt").is_file():
            if pascal is None or (folder.name == "VOC2012" and pascal.name != "VOC2012"):
                pascal = folder
        elif folder.name == "SegmentationClassAug" and not (folder / folder.name).is_dir():
            augmented = augmented or folder
        elif (
            (folder / "cls").is_dir() and (folder / "train.txt").is_file() and (folder / "val.txt").is_file()
        ):
            sbd = sbd or folder
    return pascal, augmented, sbd


def _read_mask(path: Path) -> NDArray[np.uint8]:
    return _read_mat(path) if path.suffix == ".mat" else _read_png(path)


_read_png: Callable[[Path], NDArray[np.uint8]] = partial(read_mask, description=DESCRIPTION)


def _read_mat(path: Path) -> NDArray[np.uint8]:
    """The classes of an SBD mask: field Segmentation of MATLAB's struct GTcls.

    Raises:
        BadFile: missing, damaged, or another kind of file.
    """
    from scipy.io import loadmat

    try:
        values: Any = loadmat(path, variable_names=["GTcls"])["GTcls"]["Segmentation"][0, 0]
        mask = np.asarray(values)
    except FileNotFoundError:
        raise BadFile("missing mask", path) from None
    except Exception as error:  # a damaged file makes scipy raise whatever its bytes lead to
        raise BadFile("truncated or damaged mask", path, f"{type(error).__name__}: {error}") from None
    if mask.ndim != 2 or mask.dtype != np.uint8 or mask.size == 0:
        raise BadFile("mask that holds no picture of classes", path, f"{mask.dtype} {mask.shape}")
    strange = set(np.flatnonzero(np.bincount(mask.reshape(-1))).tolist()) - {*range(len(CLASSES)), 255}
    if strange:
        raise BadFile("mask value that is neither a class nor ignored", path, str(sorted(strange)[:5]))
    return mask


DATASET = BuiltIn(
    DESCRIPTION,
    locate=locate,
    fetch=fetch,
    source="u2pl",
    pools=("classic", "blender"),
    counts={
        "train": COUNTS.augmented,
        "val": COUNTS.val,
        "classic": COUNTS.train,
        "blender": COUNTS.augmented,
    },
)
