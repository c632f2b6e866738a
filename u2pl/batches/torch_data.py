"""A prepared split as torch data sets, for somebody's own loop."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from u2pl.data.image_set import ImageSet
from u2pl.data.prepared import open_split
from u2pl.project import Project

Transform = Callable[[Tensor, Tensor], Any]


class Pictures(Dataset[Any]):
    """Images of a data set with their masks, at their own sizes.

    Each is (image, mask): uint8 (3, H, W) RGB and int64 (H, W) with class indices, `ignore_index` where there is none;
    or whatever `transform` makes of the two.
    """

    def __init__(self, images: ImageSet, names: Sequence[str], *, labels: bool, transform: Transform | None):
        self.images, self.names = images, list(names)
        self.labels, self.transform = labels, transform

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Any:
        name = self.names[index]
        image = torch.from_numpy(self.images.image(name)).permute(2, 0, 1)
        if self.labels:
            mask = torch.from_numpy(self.images.mask(name)).long()
        else:
            # Where an unlabelled image has a mask, nobody is to see it by mistake.
            mask = torch.full(image.shape[1:], self.images.ignore_index)
        return (image, mask) if self.transform is None else self.transform(image, mask)


class Data(NamedTuple):
    """A split's three lists."""

    labeled: Pictures
    unlabeled: Pictures
    val: Pictures
    classes: list[str]
    ignore_index: int


def open_data(
    dataset: str,
    split: str,
    *,
    folder: str | Path | None = None,
    transform: Transform | None = None,
    val_transform: Transform | None = None,
) -> Data:
    """A split that `u2pl prepare` made, as torch data sets.

    Args:
        dataset: its name.
        split: likewise.
        folder: of the project, or below it; None: the current one.
        transform: of training images.
        val_transform: of validation images.

    Raises:
        UserError: it is not prepared, or the files have changed since.
    """
    found = open_split(Project.find(None if folder is None else Path(folder)), dataset, split)
    return Data(
        Pictures(found, found.labeled, labels=True, transform=transform),
        Pictures(found, found.unlabeled, labels=False, transform=transform),
        Pictures(found, found.val, labels=True, transform=val_transform),
        found.classes,
        found.ignore_index,
    )
