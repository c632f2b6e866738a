"""Segments anybody's images with a trained network, and writes the predictions as pictures."""

import errno
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from u2pl.data.description import Description
from u2pl.data.inspection import BadFile, opened
from u2pl.data.pictures import SUFFIXES, plain, read_image, write_png
from u2pl.errors import UsageError, UserError
from u2pl.exchange.model import BATCH, Model, Pixels, Pooled, at_once

AHEAD, AHEAD_BYTES = 2 * BATCH, 2**28
"""Images that are decoded while others are computed: how many at most, and until they take how much memory."""
OVERLAY = 0.5
"""Share of the class's colour in an overlay."""

KINDS = ("overlays", "colors", "masks")
"""Folders of results, in the order in which they are made: where there are masks of ours, there are overlays."""

REVIEW = ("review/review.csv", "review/review.png")
"""What `predict --review` writes beside them; where there is the first, the second is ours."""

Progress = Callable[[str, int, int], None]


class Item(NamedTuple):
    """An image, as it was named, and what its results are called: a relative path without suffix."""

    path: Path
    name: str


Observer = Callable[[Item, Pixels, Tensor, Pooled], None]
"""Told of an image its picture (H, W, 3), the logits (C, H, W), and the encoder's features, (M,) and (D,)."""


@dataclass
class Summary:
    """What was done."""

    folder: Path
    images: int = 0
    pixels: dict[str, int] = field(default_factory=dict)
    """Class -> predicted pixels."""
    skipped: list[tuple[Path, str]] = field(default_factory=list)
    """Files that could not be read, and why."""

    @property
    def shares(self) -> dict[str, float]:
        """Class -> share of the predicted pixels, 0 to 1; of none at all, 0."""
        total = sum(self.pixels.values()) or 1
        return {name: count / total for name, count in self.pixels.items()}


def find_images(inputs: Sequence[Path], out: Path) -> list[Item]:
    """The images that paths mean: files, and all that folders hold but what is written to `out`.

    A result is called like its image. Where two would have the same name, each keeps its suffix in it; where that does
    not help, the later ones get a number.

    Raises:
        UserError: a path does not exist, there is no image at all, or one lies where results are written.
    """
    written = [(out / kind).resolve() for kind in KINDS]
    if (out / REVIEW[0]).is_file():
        written.append((out / REVIEW[1]).resolve())

    def is_result(file: Path) -> bool:
        return any(file.is_relative_to(folder) for folder in written)

    found: dict[Path, tuple[Path, str]] = {}
    for path in inputs:
        if path.is_dir():
            top = [path.resolve().name] if len(inputs) > 1 else []
            for file in sorted(path.rglob("*")):
                # In this order: a link to itself does not exist, and cannot be resolved. A pipe is left out later, with
                # a word on it.
                if file.suffix.lower() not in SUFFIXES or file.is_dir() or not file.exists():
                    continue
                if not is_result(file.resolve()):
                    name = Path(*top, file.relative_to(path)).as_posix()
                    found.setdefault(file.resolve(), (file, name))
        elif path.exists():
            if is_result(path.resolve()):
                raise UsageError(f"{path} lies where results are written. Name another folder with --out.")
            found.setdefault(path.resolve(), (path, path.name))
        else:
            raise UserError(f"There is no file or folder {path}. Name images, or folders with images.")
    if not found:
        raise UserError(
            f"There is no image in {', '.join(map(str, inputs))}. Images end in {', '.join(SUFFIXES)}."
        )
    paths, names = zip(*found.values(), strict=True)
    return list(map(Item, paths, _names(names)))


def _names(files: Iterable[str]) -> list[str]:
    """Names without suffix where that leaves them different, on every file system.

    Some take upper and lower case, or the two ways to write an accented letter, for the same.
    """
    files = list(files)

    def key(name: str) -> str:
        return plain(name).lower()

    stems = [file.removesuffix(Path(file).suffix) for file in files]
    common = Counter(map(key, stems))
    folders = {key(str(folder)) for file in files for folder in PurePosixPath(file).parents}
    names: list[str] = []
    taken: set[str] = set()
    for file, stem in zip(files, stems, strict=True):
        base = name = stem if common[key(stem)] == 1 else file
        number = 1
        # A folder may be called like a result: a.png/ beside a.jpg.
        while key(name) in taken or key(f"{name}.png") in folders:
            number += 1
            name = f"{base}-{number}"
        taken.add(key(name))
        names.append(name)
    return names


def predict(
    model: Model,
    inputs: Sequence[Path],
    out: Path,
    *,
    window: int | None = None,
    observe: Observer | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Summary:
    """Write masks/NAME.png, colors/NAME.png and overlays/NAME.png below `out` for every image.

    Args:
        model: the network, and what its classes are called and coloured.
        inputs: images, and folders of images.
        out: folder of the results.
        window: side of the windows, for images of any size; None: as the run is evaluated by windows, or for large
            images alone.
        observe: told of every image what the network made of it.
        progress: told how many images are done.

    Raises:
        UserError: there is no such image, or `out` is no folder, cannot be written to, or has masks that
            `predict` did not write. A file that cannot be read is none of these: it is left out, and the summary
            has it.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file. Name a folder with --out.")
    _refuse_masks_of_others(out)
    description, items = model.description, find_images(inputs, out)
    _make_folders(out)
    summary = Summary(out)
    counts = np.zeros(len(description.classes), dtype=np.int64)
    done = 0
    for batch in batches(readable(items, summary.skipped), at_once):
        pictures = [picture for _, picture in batch]
        if observe is None:
            logits = model.logits(pictures, window)
        else:
            logits, features = model.logits_and_features(pictures, window)
            for (item, picture), of_one, *pooled in zip(batch, logits, *features, strict=True):
                observe(item, picture, of_one, Pooled(*pooled))
        predicted = logits.argmax(dim=1).to(torch.uint8).cpu().numpy()
        for (item, picture), classes in zip(batch, predicted, strict=True):
            _write(out, item.name, picture, classes, description)
            counts += np.bincount(classes.reshape(-1), minlength=len(counts))
        summary.images += len(batch)
        done = summary.images + len(summary.skipped)
        progress("segmenting images", done, len(items))
    if done < len(items):  # the last ones could not be read
        progress("segmenting images", len(items), len(items))
    summary.pixels = dict(zip(description.classes, counts.tolist(), strict=True))
    return summary


def _refuse_masks_of_others(out: Path) -> None:
    """Data sets too keep their masks in masks/, and a result is called like the image it belongs to."""
    masks = out / "masks"
    if masks.is_dir() and any(masks.iterdir()) and not (out / "overlays").is_dir():
        raise UsageError(
            f"{masks} holds files that u2pl predict did not write, perhaps the masks of a data set, and results of the "
            "same names would replace them. Name another folder with --out."
        )


def _make_folders(out: Path) -> None:
    try:
        for kind in KINDS:
            (out / kind).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UsageError(
            f"The folder {error.filename} cannot be made ({error.strerror}). Name another one with --out."
        ) from None


def readable(items: Sequence[Item], skipped: list[tuple[Path, str]]) -> Iterator[tuple[Item, Pixels]]:
    """Every image that can be decoded, some of them ahead; the others go to `skipped`."""

    def read(path: Path) -> Pixels | BadFile:
        try:
            return read_image(path)
        except BadFile as error:
            return error

    waiting = deque(items)
    ahead: deque[tuple[Item, int, Future[Pixels | BadFile]]] = deque()
    held = 0
    pool = ThreadPoolExecutor(2)
    try:
        while waiting or ahead:
            while waiting and (not ahead or (len(ahead) < AHEAD and held < AHEAD_BYTES)):
                item = waiting.popleft()
                size = _decoded_bytes(item.path)
                ahead.append((item, size, pool.submit(read, item.path)))
                held += size
            item, size, future = ahead.popleft()
            picture = future.result()
            held -= size
            if isinstance(picture, BadFile):
                skipped.append((item.path, picture.kind))
            else:
                yield item, picture
    finally:
        # Where the disk is full, nobody wants to wait for pictures that have no place.
        pool.shutdown(cancel_futures=True)


def _decoded_bytes(path: Path) -> int:
    """Memory that the picture will take; 0 where its header cannot be read."""
    try:
        with opened(path, "image") as picture:
            return 3 * picture.width * picture.height
    except BadFile:
        return 0


def batches(
    pictures: Iterable[tuple[Item, Pixels]], at_once: Callable[[Pixels], int]
) -> Iterator[list[tuple[Item, Pixels]]]:
    """Neighbours of one size, as many as fit."""
    batch: list[tuple[Item, Pixels]] = []
    for item, picture in pictures:
        if batch and (picture.shape != batch[0][1].shape or len(batch) >= at_once(picture)):
            yield batch
            batch = []
        batch.append((item, picture))
    if batch:
        yield batch


def _write(out: Path, name: str, picture: Pixels, classes: Pixels, description: Description) -> None:
    write_png(out / "overlays" / f"{name}.png", overlay(picture, classes, description))
    write_png(out / "colors" / f"{name}.png", classes, description.colors)
    write_png(out / "masks" / f"{name}.png", classes)


def overlay(picture: Pixels, classes: Pixels, description: Description) -> Pixels:
    """The picture with the colours of its classes laid over it, (H, W, 3); a background stays as it is."""
    colors: NDArray[np.float32] = np.array(description.colors, np.float32)[classes]
    share = np.full(len(description.colors), OVERLAY, np.float32)
    if description.background:
        share[0] = 0
    blended = picture + (colors - picture) * share[classes][..., None]
    return np.rint(blended).astype(np.uint8)
