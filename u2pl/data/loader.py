"""Batches: what a step sees depends on the seed and the step alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from math import ceil
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from u2pl import processes
from u2pl.data.prepared import Split
from u2pl.data.transforms import View, augment, center_crop, normalise, resize_image, resize_mask
from u2pl.errors import UserError
from u2pl.settings import Recipe

LABELED, UNLABELED = 0, 1
"""The two streams of images."""

CACHE_BYTES = 2**30
"""Decoded pictures kept in memory: decoding them again each time costs a small machine most of its time."""

Key = tuple[int, int]
"""Stream, and position in it."""


class Batch(NamedTuple):
    """What one step sees; the unlabelled part is None where the method takes none."""

    labeled_image: Tensor
    """float32 (B, 3, crop, crop), normalised."""
    labeled_mask: Tensor
    """int64 (B, crop, crop)."""
    unlabeled_image: Tensor | None
    unlabeled_truth: Tensor | None
    """Masks of unlabelled images, ignored pixels where none is opened: to measure with, never to train on."""
    unlabeled_valid: Tensor | None
    """bool (B, crop, crop), False on padding that is to take no part."""


class Views(NamedTuple):
    """A batch as the loader's workers hand it over: labelled images first, then the unlabelled ones."""

    image: Tensor
    """uint8 or float32 (N, crop, crop, 3), from 0 to 255."""
    mask: Tensor
    """uint8 (N, crop, crop)."""
    rows: Tensor
    """bool (N, crop), False where a row is padding."""
    columns: Tensor
    """bool (N, crop), likewise."""
    labeled: int
    """How many are labelled."""
    use_padding: bool
    """Whether padding of the unlabelled ones takes part."""

    def to(self, device: torch.device) -> Batch:
        """The batch on the device it is to be used on, normalised there."""

        def moved(tensor: Tensor) -> Tensor:
            # Pinned, so that the copy does not hold up the steps that are still being computed.
            return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)

        count, rows, columns = self.labeled, moved(self.rows), moved(self.columns)
        image, mask = normalise(moved(self.image), rows, columns), moved(self.mask).long()
        if count == len(image):
            return Batch(image, mask, None, None, None)
        valid = rows[count:, :, None] & columns[count:, None, :] | self.use_padding
        return Batch(image[:count], mask[:count], image[count:], mask[count:], valid)


class Batches:
    """The batches of steps `start_step` to `end_step` - 1, each step's the same wherever one starts.

    Position p of a stream is image p mod n of an endless sequence of seeded permutations of its n images,
    augmented with a generator seeded by (seed, stream, p). Step k takes positions k x batch onwards; of several
    processes each reads its own part of them.

    Over-sampled (recipe.labeled_order), and beside unlabelled images, the n images of the labelled stream are a
    multiset: the list is repeated until it is at least as long as the unlabelled one, and as many entries as that
    has are drawn, once for the run.
    """

    def __init__(
        self,
        split: Split,
        *,
        recipe: Recipe,
        seed: int,
        start_step: int,
        end_step: int,
        unlabeled: bool,
        workers: int,
    ):
        """Nothing is read before the first batch is asked for.

        Raises:
            UserError: fewer labelled images than a batch needs, or no unlabelled ones where they are wanted.
        """
        check_counts(split, recipe.batch, unlabeled)
        self._positions = _Positions(range(start_step, end_step), recipe.batch, unlabeled)
        self._loader = DataLoader(
            _Views(split, recipe, seed, unlabeled, CACHE_BYTES // max(1, workers)),
            batch_sampler=self._positions,
            collate_fn=partial(_collate, use_padding=recipe.padding_unlabeled == "use"),
            num_workers=workers,
            # Its own generator: a loader otherwise draws from the global one, and a resumed run would differ.
            generator=torch.Generator(),
        )

    def __len__(self) -> int:
        return len(self._positions)

    def __iter__(self) -> Iterator[Views]:
        for batch in self._loader:
            if isinstance(batch, _Unreadable):
                raise UserError(batch.message)
            yield batch


def check_counts(split: Split, batch: int, unlabeled: bool) -> None:
    """Check that a split can fill batches.

    Raises:
        UserError: fewer labelled images than a batch needs, or no unlabelled ones where they are wanted.
    """
    count = len(split.labeled)
    if count < batch:
        smaller = f", or --set batch={count}" if count >= 2 else ""
        raise UserError(
            f"Split {split.split!r} of {split.dataset!r} has {count} labelled images, a batch needs {batch}. "
            f"Use a split with more of them{smaller}."
        )
    if unlabeled and not split.unlabeled:
        raise UserError(
            f"Split {split.split!r} of {split.dataset!r} has no unlabelled images, and the method "
            "needs some. Use a split such as 1/8, or --method suponly."
        )


@dataclass(frozen=True)
class _Positions:
    """What each step is made of: the next `batch` positions of each stream, or this process's share of them."""

    steps: range
    batch: int
    unlabeled: bool

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[Key]]:
        streams = (LABELED, UNLABELED) if self.unlabeled else (LABELED,)
        each = self.batch // processes.size()
        for step in self.steps:
            first = step * self.batch + processes.rank() * each
            yield [(stream, first + k) for stream in streams for k in range(each)]


class _Unreadable(NamedTuple):
    """Instead of an image that cannot be read: an error raised in a worker would arrive as a traceback."""

    message: str


def _collate(views: list[tuple[int, View] | _Unreadable], use_padding: bool) -> Views | _Unreadable:
    readable: list[tuple[int, View]] = []
    for view in views:
        if isinstance(view, _Unreadable):
            return view
        readable.append(view)
    image, mask, rows, columns = (
        torch.stack(part) for part in zip(*(view for _, view in readable), strict=True)
    )
    labeled = sum(stream == LABELED for stream, _ in readable)
    return Views(image, mask, rows, columns, labeled, use_padding)


class _Views(Dataset[tuple[int, View] | _Unreadable]):
    """Augmented images by stream and position."""

    def __init__(self, split: Split, recipe: Recipe, seed: int, unlabeled: bool, cache_bytes: int):
        labeled = split.labeled
        if unlabeled and recipe.labeled_order == "oversampled":
            labeled = _oversampled(labeled, len(split.unlabeled), seed)
        self.names = (labeled, split.unlabeled)
        self.recipe, self.seed, self.ignore_index = recipe, seed, split.ignore_index
        # Nothing is known about what lies beyond an unlabelled image: its padding has no truth to measure with.
        self.padding_label = (
            0 if recipe.padding_label == "class0" else split.ignore_index,
            split.ignore_index,
        )
        self.pictures = _Pictures(split, recipe.resize, cache_bytes)

    def __getitem__(self, key: Key) -> tuple[int, View] | _Unreadable:
        stream, position = key
        names = self.names[stream]
        turn, place = divmod(position, len(names))
        # A fourth number keeps these generators apart from the augmentation's.
        order = _permutation((self.seed, stream, turn, 1), len(names))
        try:
            # Nothing is trained on the mask of an unlabelled image, and none is opened unless to measure by.
            with_mask = stream == LABELED or self.recipe.unlabeled_truth
            image, mask = self.pictures.read(names[order[place]], with_mask)
        except UserError as error:
            return _Unreadable(str(error))
        return stream, augment(
            image,
            mask,
            crop=self.recipe.crop,
            scale=self.recipe.scale,
            interpolation=self.recipe.interpolation,
            ignore_index=self.ignore_index,
            padding_label=self.padding_label[stream],
            rng=np.random.default_rng([self.seed, stream, position]),
        )


def _oversampled(names: list[str], count: int, seed: int) -> list[str]:
    """`count` names, drawn without replacement from the list repeated until it has as many (released code)."""
    repeated = names * ceil(count / len(names))
    return [repeated[k] for k in _permutation((seed, LABELED, 0, 2), len(repeated))[:count]]


@lru_cache(maxsize=8)
def _permutation(seed: tuple[int, ...], count: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).permutation(count)


class _Pictures:
    """Pictures and masks at the recipe's size, kept in memory until that is full.

    None is thrown out for another: every pass reads each once, so the newest is the one needed last.
    """

    def __init__(self, split: Split, resize: float, cache_bytes: int):
        self.split, self.resize, self.room = split, resize, cache_bytes
        self.kept: dict[tuple[str, bool], tuple[NDArray[np.uint8], NDArray[np.uint8] | None]] = {}

    def read(self, name: str, with_mask: bool) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
        """The picture, and its mask if that is wanted and there is one."""
        key = (name, with_mask and self.split.has_mask(name))
        if key in self.kept:
            return self.kept[key]
        image = resize_image(self.split.image(name), self.resize)
        mask = resize_mask(self.split.mask(name), self.resize) if key[1] else None
        size = image.nbytes + (0 if mask is None else mask.nbytes)
        if size <= self.room:
            self.room -= size
            self.kept[key] = image, mask
        return image, mask


def validation(split: Split, recipe: Recipe) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Of every validation image the name, the picture at the recipe's size, and the mask it is scored by.

    Shapes: float32 (1, 3, H, W), normalised; int64 (H', W'). Of centre crops both are crop x crop, and the
    picture has the mean colour around it where it is smaller.
    """
    for name in split.val:
        pixels = resize_image(split.image(name), recipe.resize)
        image = normalise(torch.from_numpy(pixels)[None])
        if recipe.evaluation == "center":
            image = center_crop(image, recipe.crop, 0)
        yield name, image, scored_mask(split, recipe, name)


def scored_mask(split: Split, recipe: Recipe, name: str) -> Tensor:
    """The mask a validation image is scored by, int64: whole, at its own size, or the centre crop at the recipe's.

    The padding of a centre crop is ignored, or class 0 where the recipe scores it. A whole image has none. Of an image
    that has no mask all pixels are ignored.
    """
    if split.has_mask(name):
        mask = split.mask(name)
    else:  # of a training image without labels, which can be looked at like any other
        mask = np.full(split.image(name).shape[:2], split.ignore_index, dtype=np.uint8)
    if recipe.evaluation != "center":
        return torch.from_numpy(mask.astype(np.int64))
    small = torch.from_numpy(resize_mask(mask, recipe.resize).astype(np.int64))
    return center_crop(small, recipe.crop, 0 if recipe.score_padding else split.ignore_index)
