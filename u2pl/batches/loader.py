"""Training batches: decided by the seed and the step alone, and where a method chooses images, by its state."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
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
from u2pl.batches.suitability import check_counts
from u2pl.batches.transforms import AugmentedImage, augment, normalise, resize_image, resize_mask
from u2pl.data.prepared import Split
from u2pl.errors import UserError
from u2pl.settings import Recipe

LABELED, UNLABELED = 0, 1
"""The two streams of images that every method may have; a method's own ones have the numbers after them."""

CACHE_BYTES = 2**30
"""Decoded pictures kept in memory: decoding them again each time costs a small machine most of its time."""

Key = tuple[int, int]
"""Stream, and position in it."""


@dataclass(frozen=True)
class Stream:
    """Further images that come with each step, as many as there are labelled ones."""

    labeled: bool
    """Whether they are labelled images, or unlabelled ones."""
    scale: tuple[float, float] | None = None
    """Least and greatest random scale; None: the recipe's."""
    share: float = 1.0
    """Probability that an image comes; in place of the others there is nothing but ignored pixels."""
    chosen: bool = False
    """Whether the method names the images, step by step, instead of seeded permutations."""


class Choice(NamedTuple):
    """An image that a method asks for."""

    number: int
    """In the split's list of labelled or of unlabelled images."""
    note: int
    """Comes back with the image."""


Chooser = Callable[[int, np.random.Generator], Sequence[Choice]]
"""Of the number of images to choose from and a generator, which is the step's own: an image for each of the batch's,
of all processes. Called right before the step that they are for."""


class Images(NamedTuple):
    """The images of one stream."""

    image: Tensor
    """float32 (B, 3, crop, crop), normalised."""
    mask: Tensor
    """int64 (B, crop, crop). Of unlabelled images the truth, ignored pixels where none is opened: to measure with,
    never to train on."""
    valid: Tensor
    """bool (B, crop, crop), False on padding that is to take no part."""
    number: Tensor
    """int64 (B,), on the CPU: place of each image in the list that the stream draws from; of unlabelled ones, the
    split's."""
    note: Tensor
    """int64 (B,), on the CPU: what the method noted with an image that it chose; else 0."""

    def part(self, images: slice) -> "Images":
        """Some of the images."""
        return Images(*(tensor[images] for tensor in self))


class Batch(NamedTuple):
    """What one step sees."""

    labeled: Images
    unlabeled: Images | None
    """None where the method takes none."""
    extra: Mapping[str, Images] = {}
    """The method's own streams, by name."""


class CollatedBatch(NamedTuple):
    """A batch as the loader's workers hand it over: labelled images, then unlabelled ones, then further streams."""

    image: Tensor
    """uint8 or float32 (N, crop, crop, 3), from 0 to 255."""
    mask: Tensor
    """uint8 (N, crop, crop)."""
    rows: Tensor
    """bool (N, crop), False where a row is padding."""
    columns: Tensor
    """bool (N, crop), likewise."""
    stream: Tensor
    """int64 (N,): number of the stream, each stream's images together."""
    number: Tensor
    """int64 (N,), as `Images.number`."""
    note: Tensor
    """int64 (N,), as `Images.note`."""
    use_padding: bool
    """Whether padding takes part."""
    names: tuple[str, ...]
    """Of the method's own streams."""

    def to(self, device: torch.device) -> Batch:
        """The batch on the device it is to be used on, normalised there."""

        def moved(tensor: Tensor) -> Tensor:
            # Pinned, so that the copy does not hold up the steps that are still being computed.
            return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)

        rows, columns = moved(self.rows), moved(self.columns)
        image, mask = normalise(moved(self.image), rows, columns), moved(self.mask).long()
        # Where padding takes part, said of the few lines and not of all pixels.
        valid = (rows | self.use_padding)[:, :, None] & (columns | self.use_padding)[:, None, :]
        everything = Images(image, mask, valid, self.number, self.note)
        kinds, counts = self.stream.unique_consecutive(return_counts=True)
        ends = counts.cumsum(0).tolist()
        parts = {
            kind: everything.part(slice(end - count, end))
            for kind, count, end in zip(kinds.tolist(), counts.tolist(), ends, strict=True)
        }
        extra = {name: parts[UNLABELED + 1 + k] for k, name in enumerate(self.names)}
        return Batch(parts[LABELED], parts.get(UNLABELED), extra)

    def with_more(self, more: "CollatedBatch") -> "CollatedBatch":
        """These and then more."""
        image, mask, rows, columns, stream, number, note = (
            torch.cat([one, other]) for one, other in zip(self[:7], more[:7], strict=True)
        )
        return CollatedBatch(image, mask, rows, columns, stream, number, note, self.use_padding, self.names)


class Batches:
    """The batches of steps `start_step` to `end_step` - 1, each step's the same wherever one starts.

    Position p of a stream is image p mod n of an endless sequence of seeded permutations of its n images,
    augmented with a generator seeded by (seed, stream, p). Step k takes positions k x batch onwards; of several
    processes each reads its own part of them. Chosen images come from where the method says instead.

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
        extra: Mapping[str, Stream] | None = None,
        choose: Chooser | None = None,
    ):
        """Nothing is read before the first batch is asked for.

        Args:
            extra: further streams.
            choose: names the images of the one that is chosen.

        Raises:
            UserError: fewer labelled images than a batch needs, or no unlabelled ones where they are wanted.
        """
        check_counts(split, recipe.batch, unlabeled)
        extra = extra or {}
        chosen = sum(stream.chosen for stream in extra.values())
        if chosen > 1:
            raise ValueError("a method can choose the images of one stream alone")
        choose = choose if chosen else None
        ready = [k for k, stream in enumerate(extra.values(), UNLABELED + 1) if not stream.chosen]
        kinds = [LABELED, *([UNLABELED] if unlabeled else []), *ready]
        self._choose, self._seed, self._workers = choose, seed, workers
        self._sampler = _BatchSampler(range(start_step, end_step), recipe.batch, tuple(kinds))
        readers = max(1, workers) + (choose is not None and workers > 0)
        self._dataset = _AugmentedImages(
            split, recipe, seed, unlabeled, tuple(extra.values()), CACHE_BYTES // readers
        )
        self._collate = partial(_collate, use_padding=recipe.padding_unlabeled == "use", names=tuple(extra))
        self._loader = DataLoader(
            self._dataset,
            batch_sampler=self._sampler,
            collate_fn=self._collate,
            num_workers=workers,
            # Its own generator: a loader otherwise draws from the global one, and a resumed run would differ.
            generator=torch.Generator(),
        )

    def __len__(self) -> int:
        return len(self._sampler)

    def __iter__(self) -> Iterator[CollatedBatch]:
        with ThreadPoolExecutor(max(1, self._workers)) as readers:
            for step, batch in zip(self._sampler.steps, self._loader, strict=True):
                yield _readable(batch) if self._choose is None else self._with_chosen(batch, step, readers)

    def _with_chosen(
        self, batch: "CollatedBatch | _Unreadable", step: int, readers: ThreadPoolExecutor
    ) -> CollatedBatch:
        """The batch and the images that the method chooses for it, read here: no worker can know them before."""
        assert self._choose is not None
        number = self._dataset.chosen
        images = len(self._dataset.names[number])
        choices = self._choose(images, np.random.default_rng([self._seed, number, step, 3]))
        positions = self._sampler.positions(step)
        chosen = [choices[position - step * self._sampler.batch] for position in positions]
        samples = readers.map(partial(self._dataset.read, number), positions, chosen)
        return _readable(batch).with_more(_readable(self._collate(list(samples))))


@dataclass(frozen=True)
class _BatchSampler:
    """What each step is made of: the next `batch` positions of each stream, or this process's share of them."""

    steps: range
    batch: int
    streams: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[Key]]:
        for step in self.steps:
            yield [(stream, position) for stream in self.streams for position in self.positions(step)]

    def positions(self, step: int) -> range:
        """Positions of a step that belong to this process."""
        each = self.batch // processes.size()
        first = step * self.batch + processes.rank() * each
        return range(first, first + each)


class _Unreadable(NamedTuple):
    """Instead of an image that cannot be read: an error raised in a worker would arrive as a traceback."""

    message: str


class _Sample(NamedTuple):
    """An augmented image and where it comes from."""

    stream: int
    number: int
    note: int
    augmented: AugmentedImage


def _readable(batch: CollatedBatch | _Unreadable) -> CollatedBatch:
    if isinstance(batch, _Unreadable):
        raise UserError(batch.message)
    return batch


def _collate(
    samples: list[_Sample | _Unreadable], use_padding: bool, names: tuple[str, ...]
) -> CollatedBatch | _Unreadable:
    readable: list[_Sample] = []
    for sample in samples:
        if isinstance(sample, _Unreadable):
            return sample
        readable.append(sample)
    image, mask, rows, columns = (
        torch.stack(tensors) for tensors in zip(*(sample.augmented for sample in readable), strict=True)
    )
    stream, number, note = torch.tensor([sample[:3] for sample in readable]).unbind(dim=1)
    return CollatedBatch(image, mask, rows, columns, stream, number, note, use_padding, names)


class _AugmentedImages(Dataset[_Sample | _Unreadable]):
    """Augmented images by stream and position."""

    def __init__(
        self,
        split: Split,
        recipe: Recipe,
        seed: int,
        unlabeled: bool,
        extra: tuple[Stream, ...],
        cache_bytes: int,
    ):
        labeled = split.labeled
        if unlabeled and recipe.labeled_order == "oversampled":
            labeled = _oversampled(labeled, len(split.unlabeled), seed)
        self.streams = (Stream(labeled=True), Stream(labeled=False), *extra)
        self.names = (
            labeled,
            split.unlabeled,
            *(split.labeled if stream.labeled else split.unlabeled for stream in extra),
        )
        self.recipe, self.seed, self.ignore_index = recipe, seed, split.ignore_index
        self.pictures = _ImageCache(split, recipe.resize, cache_bytes)

    @property
    def chosen(self) -> int:
        """Number of the stream whose images the method chooses."""
        return next(number for number, stream in enumerate(self.streams) if stream.chosen)

    def __getitem__(self, key: Key) -> _Sample | _Unreadable:
        stream, position = key
        turn, place = divmod(position, len(self.names[stream]))
        # A fourth number keeps these generators apart from the augmentation's.
        order = _permutation((self.seed, stream, turn, 1), len(self.names[stream]))
        return self.read(stream, position, Choice(int(order[place]), 0))

    def read(self, number: int, position: int, choice: Choice) -> _Sample | _Unreadable:
        """An image of a stream, augmented as the position says."""
        stream, recipe = self.streams[number], self.recipe
        rng = np.random.default_rng([self.seed, number, position])
        if stream.share < 1 and rng.random() >= stream.share:
            return _Sample(number, *choice, self._blank())
        try:
            # Nothing is trained on the mask of an unlabelled image, and none is opened unless to measure by.
            with_mask = stream.labeled or recipe.unlabeled_truth
            image, mask = self.pictures.read(self.names[number][choice.number], with_mask)
        except UserError as error:
            return _Unreadable(str(error))
        augmented = augment(
            image,
            mask,
            crop=recipe.crop,
            scale=stream.scale or recipe.scale,
            interpolation=recipe.interpolation,
            ignore_index=self.ignore_index,
            # Nothing is known about what lies beyond an unlabelled image: its padding has no truth to measure with.
            padding_label=0 if stream.labeled and recipe.padding_label == "class0" else self.ignore_index,
            rng=rng,
        )
        return _Sample(number, *choice, augmented)

    def _blank(self) -> AugmentedImage:
        crop = self.recipe.crop
        return AugmentedImage(
            torch.zeros(crop, crop, 3, dtype=getattr(torch, self.recipe.interpolation)),
            torch.full((crop, crop), self.ignore_index, dtype=torch.uint8),
            *(torch.zeros(crop, dtype=torch.bool) for _ in range(2)),
        )


def _oversampled(names: list[str], count: int, seed: int) -> list[str]:
    """`count` names, drawn without replacement from the list repeated until it has as many (released code)."""
    repeated = names * ceil(count / len(names))
    return [repeated[k] for k in _permutation((seed, LABELED, 0, 2), len(repeated))[:count]]


@lru_cache(maxsize=8)
def _permutation(seed: tuple[int, ...], count: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).permutation(count)


class _ImageCache:
    """Pictures and masks at the recipe's size, kept in memory until that is full.

    None is thrown out for another: where every pass reads each once, the newest is the one needed last.
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
        both = image, mask
        # Another thread may have read the same meanwhile: it is kept once, and takes its room once.
        if size <= self.room and self.kept.setdefault(key, both) is both:
            self.room -= size
        return both
