"""Segments anybody's images with a trained network, and writes what it sees as pictures."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from u2pl.data.description import Description, describe
from u2pl.data.pictures import SUFFIXES, BadFile, read_image, write_png
from u2pl.data.transforms import normalise, resize_image
from u2pl.engine.inference import sliding_logits
from u2pl.engine.results import load_network, run_path
from u2pl.errors import UsageError, UserError
from u2pl.files import read_json
from u2pl.models.deeplab import DeepLabV3Plus, upsample
from u2pl.project import Project

WHOLE = 2**21
"""Most pixels of an image that goes through the network in one piece; of a batch too."""
WINDOW = 769
"""Least side of the windows of larger ones."""
BATCH = 8
AHEAD = 2 * BATCH
"""Images that are decoded while others are computed."""
OVERLAY = 0.5
"""Share of the class's colour in an overlay."""

Pixels = NDArray[np.uint8]
Progress = Callable[[str, int, int], None]


class Item(NamedTuple):
    """An image, and what its results are called: a relative path without suffix."""

    path: Path
    name: str


@dataclass
class Summary:
    """What was done."""

    folder: Path
    images: int = 0
    pixels: dict[str, int] = field(default_factory=dict)
    """Class -> predicted pixels."""
    skipped: list[tuple[Path, str]] = field(default_factory=list)
    """Files that could not be read, and why."""


def find_images(inputs: Sequence[Path], out: Path) -> list[Item]:
    """The images that paths mean: files, and all that folders hold but what is written to `out`.

    A result is called like its image. Where two would have the same name, each keeps its suffix in it; where that does
    not help, the later ones get a number.

    Raises:
        UserError: a path does not exist, or there is no image at all.
    """
    written = [(out / kind).resolve() for kind in ("masks", "colors", "overlays")]
    found: dict[Path, str] = {}
    for path in inputs:
        if path.is_dir():
            top = [path.resolve().name] if len(inputs) > 1 else []
            for file in sorted(path.rglob("*")):
                ours = any(file.resolve().is_relative_to(folder) for folder in written)
                if file.is_file() and file.suffix.lower() in SUFFIXES and not ours:
                    name = Path(*top, file.relative_to(path)).as_posix()
                    found.setdefault(file.resolve(), name)
        elif path.is_file():
            found.setdefault(path.resolve(), path.name)
        else:
            raise UserError(f"There is no file or folder {path}. Name images, or folders with images.")
    if not found:
        raise UserError(
            f"There is no image in {', '.join(map(str, inputs))}. Images end in {', '.join(SUFFIXES)}."
        )
    return list(map(Item, found, _names(found.values())))


def _names(files: Iterable[str]) -> list[str]:
    """Names without suffix where that leaves them different, also where upper and lower case count alike."""
    files = list(files)
    stems = [file[: -len(Path(file).suffix)] if Path(file).suffix else file for file in files]
    common = Counter(map(str.lower, stems))
    names: list[str] = []
    taken: set[str] = set()
    for file, stem in zip(files, stems, strict=True):
        base = name = stem if common[stem.lower()] == 1 else file
        number = 1
        while name.lower() in taken:
            number += 1
            name = f"{base}-{number}"
        taken.add(name.lower())
        names.append(name)
    return names


def predict(
    project: Project,
    run: str,
    inputs: Sequence[Path],
    out: Path,
    *,
    window: int | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Summary:
    """Write masks/NAME.png, colors/NAME.png and overlays/NAME.png below `out` for every image.

    Args:
        project: where the run and the description of its data set are.
        run: name or folder of a finished run.
        inputs: images, and folders of images.
        out: folder of the results.
        window: side of the windows, for images of any size; None: as the run is evaluated by windows, or for large
            images alone.
        progress: told how many images are done.

    Raises:
        UserError: there is no such run or image, or `out` is no folder. A file that cannot be read is none of these:
            it is left out, and the summary has it.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file. Name a folder with --out.")
    path = run_path(project, run)
    description = _description(project, path)
    items = find_images(inputs, out)
    network, recipe = load_network(path, len(description.classes))
    if recipe.evaluation == "sliding" and window is None:
        window = recipe.crop
    segment = _Segmenter(network, recipe.resize, window, max(recipe.crop, WINDOW))
    summary = Summary(out)
    counts = np.zeros(len(description.classes), dtype=np.int64)
    readable = _readable(items, summary.skipped)
    for batch in _batches(readable, segment.at_once):
        for (item, picture), classes in zip(batch, segment([picture for _, picture in batch]), strict=True):
            _write(out, item.name, picture, classes, description)
            counts += np.bincount(classes.reshape(-1), minlength=len(counts))
        summary.images += len(batch)
        progress("segmenting images", summary.images + len(summary.skipped), len(items))
    progress("segmenting images", len(items), len(items))
    summary.pixels = dict(zip(description.classes, counts.tolist(), strict=True))
    return summary


def _description(project: Project, run: Path) -> Description:
    """The classes and colours of the data set that a run was trained on."""
    dataset = read_json(run / "run.json")["dataset"]
    path = project.data(dataset) / "dataset.json"
    if not path.is_file():
        raise UserError(
            f"The classes and colours of {dataset!r} are not known here: {path} is missing. Prepare the data set with "
            "u2pl prepare, or copy that file from where the run was trained."
        )
    description = describe(read_json(path), str(path))
    # An unfinished run has no metrics; it is refused where its network is loaded.
    metrics = run / "metrics.json"
    if metrics.is_file() and list(read_json(metrics)["iou"]) != description.classes:
        raise UserError(
            f"The classes of {dataset!r} have changed since {run.name} was trained, so its predictions would get the "
            "wrong names and colours. Train it again, or prepare the data set as it was."
        )
    return description


def _readable(items: Sequence[Item], skipped: list[tuple[Path, str]]) -> Iterator[tuple[Item, Pixels]]:
    """Every image that can be decoded, some of them ahead; the others go to `skipped`."""

    def read(item: Item) -> Pixels | BadFile:
        try:
            return read_image(item.path)
        except BadFile as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        waiting = iter(items)
        ahead = [(item, pool.submit(read, item)) for item in islice(waiting, AHEAD)]
        while ahead:
            item, future = ahead.pop(0)
            picture = future.result()
            ahead += [(following, pool.submit(read, following)) for following in islice(waiting, 1)]
            if isinstance(picture, BadFile):
                skipped.append((item.path, picture.kind))
            else:
                yield item, picture


def _batches(
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


@dataclass(frozen=True)
class _Segmenter:
    """A network, and how it looks at images of any size."""

    network: DeepLabV3Plus
    resize: float
    window: int | None
    """Of all images; None: large ones alone have windows."""
    window_of_large: int

    def at_once(self, picture: Pixels) -> int:
        """How many images as large as this one make a batch."""
        height, width = picture.shape[:2]
        return max(1, min(BATCH, WHOLE // (height * width)))

    @torch.no_grad()
    def __call__(self, pictures: Sequence[Pixels]) -> Sequence[Pixels]:
        """The likeliest class of each pixel, uint8 (H, W), at the size of the pictures, which are all of one."""
        device = next(self.network.parameters()).device
        small = np.stack([resize_image(picture, self.resize) for picture in pictures])
        images = normalise(torch.from_numpy(small).to(device))
        window = self.window
        if window is None and images.shape[2] * images.shape[3] > WHOLE:
            window = self.window_of_large
        if window is None:
            logits = self.network(images, represent=False).logits
        else:
            logits = sliding_logits(self.network, images, window)
        classes: Pixels = upsample(logits, pictures[0].shape[:2]).argmax(dim=1).to(torch.uint8).cpu().numpy()
        return list(classes)


def _write(out: Path, name: str, picture: Pixels, classes: Pixels, description: Description) -> None:
    write_png(out / "masks" / f"{name}.png", classes)
    write_png(out / "colors" / f"{name}.png", classes, description.colors)
    write_png(out / "overlays" / f"{name}.png", overlay(picture, classes, description))


def overlay(picture: Pixels, classes: Pixels, description: Description) -> Pixels:
    """The picture with the colours of its classes laid over it, (H, W, 3); a background stays as it is."""
    colors: NDArray[np.float32] = np.array(description.colors, np.float32)[classes]
    share = np.full(len(description.colors), OVERLAY, np.float32)
    if description.background:
        share[0] = 0
    blended = picture + (colors - picture) * share[classes][..., None]
    return np.rint(blended).astype(np.uint8)
