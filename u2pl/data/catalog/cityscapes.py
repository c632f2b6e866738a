"""Cityscapes: 2,975 training and 500 validation images, 2048 x 1024, in 19 classes (Cordts et al., 2016)."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from u2pl.data.description import Color, Description, Progress
from u2pl.data.fetch import unpack_once, was_unpacked
from u2pl.data.inspection import BadFile, read_raw_mask
from u2pl.data.layout import BuiltIn, Layout, check_count, folders
from u2pl.errors import UserError

CLASSES: Mapping[str, tuple[int, Color]] = {
    "road": (7, (128, 64, 128)),
    "sidewalk": (8, (244, 35, 232)),
    "building": (11, (70, 70, 70)),
    "wall": (12, (102, 102, 156)),
    "fence": (13, (190, 153, 153)),
    "pole": (17, (153, 153, 153)),
    "traffic light": (19, (250, 170, 30)),
    "traffic sign": (20, (220, 220, 0)),
    "vegetation": (21, (107, 142, 35)),
    "terrain": (22, (152, 251, 152)),
    "sky": (23, (70, 130, 180)),
    "person": (24, (220, 20, 60)),
    "rider": (25, (255, 0, 0)),
    "car": (26, (0, 0, 142)),
    "truck": (27, (0, 0, 70)),
    "bus": (28, (0, 60, 100)),
    "train": (31, (0, 80, 100)),
    "motorcycle": (32, (0, 0, 230)),
    "bicycle": (33, (119, 11, 32)),
}
"""In the order of the train ids: label id, and colour. Every other label id is void."""

LABEL_IDS = 34
"""Label ids are 0 to 33; the licence plate's -1 is 255 in a picture."""

VOID = 255


class Counts(NamedTuple):
    """How many images the data set has."""

    train: int
    val: int


COUNTS = Counts(2975, 500)

IMAGE, MASK = "_leftImg8bit.png", "_gtFine_labelIds.png"
ARCHIVES = {"leftImg8bit": "leftImg8bit_trainvaltest.zip", "gtFine": "gtFine_trainvaltest.zip"}
"""Folder -> the archive it comes in."""

NEEDS = (
    f"leftImg8bit and gtFine. Cityscapes can only be had after registration at www.cityscapes-dataset.com: download "
    f"{ARCHIVES['leftImg8bit']} (11 GB) and {ARCHIVES['gtFine']} (241 MB) there, into one folder; "
    "they need not be unpacked."
)


def _train_ids() -> NDArray[np.uint8]:
    table = np.full(256, VOID, dtype=np.uint8)
    for train_id, (label_id, _) in enumerate(CLASSES.values()):
        table[label_id] = train_id
    return table


TRAIN_IDS = _train_ids()
"""Label id -> train id, (256,) uint8."""


def locate(root: Path, own: Path, progress: Progress) -> Layout:
    """The pictures and masks below `root`; archives there are unpacked into `own`.

    Raises:
        UserError: a part is missing, or the numbers of images are not those of Cityscapes.
    """
    where = {part: _part(part, root, own, progress) for part in ARCHIVES}
    missing = [part for part, folder in where.items() if folder is None]
    if missing:
        found = "".join(f"Found {folder}. " for folder in where.values() if folder)
        inside = ", ".join(sorted(path.name for path in root.iterdir() if not path.name.startswith("."))[:6])
        raise UserError(
            f"There is no {' and no '.join(missing)} in {root} (it holds {inside or 'nothing'}). {found}Missing: "
            f"{' and '.join(ARCHIVES[part] for part in missing)}, or what is in them, from www.cityscapes-dataset.com "
            "(after registration). Put it there, or name another folder with --root."
        )
    pictures, masks = ((where[part] or root) for part in ARCHIVES)
    images = {
        part: {path.name.removesuffix(IMAGE): path for path in sorted((pictures / part).glob(f"*/*{IMAGE}"))}
        for part in ("train", "val")
    }
    check_count("training images", pictures, len(images["train"]), COUNTS.train)
    check_count("validation images", pictures, len(images["val"]), COUNTS.val)
    every = {**images["train"], **images["val"]}

    def mask(name: str) -> list[Path]:
        path = masks / every[name].relative_to(pictures).with_name(name + MASK)
        return [path] if path.is_file() else []

    return Layout(
        train=list(images["train"]),
        val=list(images["val"]),
        images=lambda name: [every[name]],
        masks=mask,
        read_mask=read_mask,
        ending=IMAGE.removesuffix(".png"),
        found=(
            f"Found {len(every):,} images in {pictures}.",
            f"Found {sum(map(bool, map(mask, every))):,} masks in {masks}.",
        ),
    )


def _part(part: str, root: Path, own: Path, progress: Progress) -> Path | None:
    """The folder leftImg8bit or gtFine, found or unpacked; None where there is neither."""
    for folder in folders(root, 2, {"train", "val", "test", *ARCHIVES}):
        if folder.name == part and (folder / "train").is_dir():
            return folder
    for folder in folders(root, 1, ARCHIVES):
        if (folder / ARCHIVES[part]).is_file():
            unpack_once(folder / ARCHIVES[part], own, _is_wanted, part, progress)
            return own / part
    return own / part if was_unpacked(own, ARCHIVES[part], part) else None


def _is_wanted(member: str) -> bool:
    """Whether a member of an archive is used: pictures and label ids, not the test images, which have no masks."""
    return member.endswith((IMAGE, MASK)) and ("/train/" in member or "/val/" in member)


def read_mask(path: Path) -> NDArray[np.uint8]:
    """The train ids in a picture of label ids, uint8 (H, W), 255 where the pixel is void.

    Raises:
        BadFile: missing, damaged, or with values that are no label ids.
    """
    ids = read_raw_mask(path).values
    if ids.ndim != 2 or ids.dtype != np.uint8:
        raise BadFile("mask that holds no label ids", path, f"{ids.dtype} {ids.shape}")
    present = np.flatnonzero(np.bincount(ids.reshape(-1), minlength=256))
    strange = present[(present >= LABEL_IDS) & (present != VOID)]
    if len(strange):
        raise BadFile("mask value that is no label id", path, ", ".join(map(str, strange[:5])))
    train_ids: NDArray[np.uint8] = TRAIN_IDS[ids]
    return train_ids


DATASET = BuiltIn(
    Description(
        name="cityscapes",
        classes=list(CLASSES),
        colors=[color for _, color in CLASSES.values()],
        ignore_color=(0, 0, 0),
    ),
    locate=locate,
    read_mask=read_mask,
    source="u2pl",
    counts={"train": COUNTS.train, "val": COUNTS.val},
    needs=NEEDS,
)
