"""Pictures and masks by name, with what is needed to score predictions of them: classes, colours, the void value."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from u2pl.data.pictures import Color, read_image, read_indices


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """Images of a data set; those in `val` are scored."""

    dataset: str
    classes: list[str]
    colors: list[Color]
    ignore_index: int
    background: bool
    val: list[str]
    images: Mapping[str, Path]
    masks: Mapping[str, Path]
    """Only of images that have one."""

    def image(self, name: str) -> NDArray[np.uint8]:
        """The picture, uint8 (H, W, 3), RGB.

        Raises:
            UserError: the file is missing or damaged.
        """
        return read_image(self.images[name])

    def has_mask(self, name: str) -> bool:
        """Whether the image has a mask; also an unlabelled one may, which serves to measure alone."""
        return name in self.masks

    def mask(self, name: str) -> NDArray[np.uint8]:
        """The mask, uint8 (H, W): class indices and `ignore_index`.

        Raises:
            UserError: the file is missing or damaged.
        """
        return read_indices(self.masks[name])
