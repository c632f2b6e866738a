"""Suggests which images to label next, and writes a folder that can be handed to whoever labels them."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Annotated

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from u2pl.annotations import write as annotations
from u2pl.data.check import sha256_of_pixels
from u2pl.data.description import Progress
from u2pl.data.pictures import read_image, write_png
from u2pl.data.prepared import Split, open_split
from u2pl.data.splits import text
from u2pl.errors import UsageError, UserError
from u2pl.exchange.model import Model
from u2pl.files import write_csv, write_json, write_text
from u2pl.labeling import candidates, choice, premasks, sheet
from u2pl.labeling.candidates import Candidates
from u2pl.labeling.packed import Packed
from u2pl.project import Project
from u2pl.runs.records import read_run
from u2pl.runs.stored_evaluation import run_path
from u2pl.typed_files import Count, DatasetName, Finite, FolderName, ImageName, SplitName, read

RECORD = "suggestion.json"


@with_config(ConfigDict(extra="forbid"))
class Record(TypedDict):
    """suggestion.json: what was suggested, and by what."""

    dataset: DatasetName
    split: SplitName
    run: FolderName
    by: str
    seed: Count
    blank: Finite
    premasks: dict[ImageName, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]]
    """Of each image in the order of its rank, the hash of its pre-mask's class indices."""


@dataclass(frozen=True)
class Suggested:
    """An image to label, and why."""

    name: str
    file: Path
    rank: int
    entropy: float
    """Mean over its pixels, nats."""
    rare_class: str
    """The class that it has most of, measured by the average candidate."""
    rare_share: float
    """Expected share of its pixels that are of this class, 0 to 1."""
    times_average: float
    """That share, as a multiple of the average candidate's."""
    why: str


@dataclass(frozen=True)
class Suggestion:
    """What `suggest` wrote."""

    folder: Path
    dataset: str
    split: str
    run: str
    by: str
    images: list[Suggested]
    candidates: int
    have_masks: bool
    """Whether the candidates have masks that count for nothing, as in a benchmark."""
    unreadable: list[tuple[str, str]]
    blank: float
    """Share of the pixels that were left blank, 0 to 1."""


def newest_run(project: Project) -> str:
    """The run that was finished last.

    Raises:
        UserError: there is none.
    """
    finished = [path for path in project.runs.glob("*/weights.pt") if (path.parent / "run.json").is_file()]
    if not finished:
        raise UserError("There is no finished run yet. Train one: u2pl train --dataset shapes --split 1/8")
    return max(finished, key=lambda path: (path.stat().st_mtime_ns, path.parent.name)).parent.name


def suggest(
    project: Project,
    run: str,
    number: int,
    *,
    by: str = choice.DEFAULT,
    seed: int = 0,
    out: Path | None = None,
    blank: float = 0.2,
    progress: Progress = lambda what, done, total: None,
) -> Suggestion:
    """Choose images to label next, and write pictures, pre-masks and lists of them.

    Args:
        project: where the run is.
        run: a finished one, by its name or folder.
        number: how many images.
        by: a key of `choice.CRITERIA`.
        seed: of the criterion `random`.
        out: folder that is to be made; None: suggestions/RUN in the project, with a number where that is there.
        blank: share of the pixels of all pre-masks that are left blank, those of the highest entropy.
        progress: told how far it is.

    Raises:
        UserError: there is no such run, or it is not finished, its split is not prepared, or nothing is left to label.
        UsageError: there is something where the folder is to be.
    """
    path = run_path(project, run)
    facts = read_run(path)
    split = open_split(project, facts["dataset"], facts["split"])
    check_out(out)
    if not candidates.open_names(split)[0]:
        raise UserError(
            f"Every training image of {split.dataset!r} is labelled in split {split.split!r}. Add further images to "
            "its list of training images, prepare it again, and train on that."
        )
    model = Model.of_run(project, run)
    found = candidates.find(model, split, progress)
    chosen = choice.choose(found.pool, number, by, seed)
    if not chosen:
        raise UserError(
            f"None of the {len(found.unreadable)} unlabelled images can be read: {found.unreadable[0][0]} "
            f"({found.unreadable[0][1]}). Mend or replace them."
        )
    images = _explained(found, chosen, split, by)
    with _reserved(project, path.name, out) as (folder, temporary):
        hashes, share = _write_pictures(model, split, images, temporary, folder, blank, progress)
        _write_lists(images, temporary)
        record: Record = {
            "dataset": split.dataset,
            "split": split.split,
            "run": path.name,
            "by": by,
            "seed": seed,
            "blank": blank,
            "premasks": hashes,
        }
        write_json(temporary / RECORD, record)
        temporary.rename(folder)
    return Suggestion(
        folder,
        split.dataset,
        split.split,
        path.name,
        by,
        images,
        len(found.looks),
        found.have_masks,
        found.unreadable,
        share,
    )


def recorded(folder: Path) -> Record | None:
    """What a folder that `suggest` wrote holds; None: it is none."""
    try:
        return read(Record, folder / RECORD)
    except FileNotFoundError:
        return None


def check_out(out: Path | None) -> None:
    """Check that a folder can be made, or is empty.

    Raises:
        UsageError: it is neither.
    """
    if out is not None and not _is_free(out):
        raise UsageError(f"{out} is there already, and not empty. Name another folder with --out.")


@contextmanager
def _reserved(project: Project, run: str, out: Path | None) -> Iterator[tuple[Path, Path]]:
    """Where the folder goes, which no other process takes for the same, and a temporary one to be renamed to it.

    A lock says that it is taken: of a process that was killed nobody holds it, and what that left is deleted.

    Raises:
        UsageError: there is something where `out` is to be, or another process writes it.
    """
    check_out(out)
    numbered = (
        project.root / "suggestions" / (run if number == 1 else f"{run}-{number}") for number in count(1)
    )
    for folder in numbered if out is None else [out.resolve()]:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_name(f".{folder.name}.lock"), blocking=False)
        temporary = folder.with_name(f".{folder.name}.tmp")
        try:
            lock.acquire()
        except Timeout:
            continue
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            if _is_free(folder):
                yield folder, temporary
                return
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()
    raise UsageError(f"Another u2pl suggest is writing to {out}. Name another folder with --out.")


def _is_free(folder: Path) -> bool:
    """Whether nothing is there, or an empty folder."""
    return not os.path.lexists(folder) or (folder.is_dir() and not any(folder.iterdir()))


def _explained(found: Candidates, chosen: Sequence[int], split: Split, by: str) -> list[Suggested]:
    pool = found.pool
    mean = pool.expected.mean(axis=0)
    times = np.divide(pool.expected, mean, out=np.zeros_like(pool.expected), where=mean > 0)
    closest = _closest(pool, chosen)
    images = []
    for rank, at in enumerate(chosen, 1):
        rare = int(times[at].argmax())
        below = float((pool.entropy < pool.entropy[at]).mean())
        why = [
            f"entropy {pool.entropy[at]:.2f}, above that of {below:.0%} of the images",
            f"{split.classes[rare]} {pool.expected[at, rare]:.1%}, {times[at, rare]:.1f} times the average",
        ]
        if by in ("suggestive", "coreset"):
            why.append(f"the most similar choice for {closest[rank - 1]} of {len(pool.names)} images")
        if by == "random":  # the rest is to know what one looks at
            why.insert(0, "drawn at random")
        images.append(
            Suggested(
                pool.names[at],
                split.images[pool.names[at]],
                rank,
                float(pool.entropy[at]),
                split.classes[rare],
                float(pool.expected[at, rare]),
                float(times[at, rare]),
                "; ".join(why),
            )
        )
    return images


def _closest(pool: choice.Pool, chosen: Sequence[int]) -> list[int]:
    """Of each chosen image, how many of all resemble it more than any other chosen one, itself among them."""
    (points,) = choice.directions(pool.features)
    nearest = (points[list(chosen)] @ points.T).argmax(axis=0)
    return np.bincount(nearest, minlength=len(chosen)).tolist()


def _write_lists(images: Sequence[Suggested], folder: Path) -> None:
    write_text(folder / "list.txt", text([image.name for image in images]))
    columns = ("rank", "name", "file", "entropy", "rare_class", "share_percent", "times_average", "why")
    rows = (
        (
            *(image.rank, image.name, str(image.file), round(image.entropy, 4), image.rare_class),
            *(round(100 * image.rare_share, 2), round(image.times_average, 2), image.why),
        )
        for image in images
    )
    write_csv(folder / "list.csv", [columns, *rows])


def _segmented(model: Model, image: Suggested) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """Predicted classes (H, W), and levels of their entropy."""
    prediction = model.predict(image.file)
    return prediction.classes, premasks.levels(prediction.entropy, len(model.description.classes))


def _write_pictures(
    model: Model,
    split: Split,
    images: Sequence[Suggested],
    folder: Path,
    final: Path,
    blank: float,
    progress: Progress,
) -> tuple[dict[str, str], float]:
    """Write images/, masks/, cvat/, label_studio/ and the contact sheets; the pre-masks' hashes and blank share.

    What names the folder names the final one, which it becomes.
    """
    description = model.description.model_copy(update={"ignore_index": split.ignore_index})
    counts = np.zeros(premasks.LEVELS, np.int64)
    for done, image in enumerate(images, 1):
        counts += premasks.histogram(_segmented(model, image)[1])
        progress("measuring entropy", done, len(images))
    limit = premasks.threshold(counts, blank)
    entries, written, hashes, blanks, pixels = [], Packed(), {}, 0, 0
    # Once more, and not from memory: many large pictures would not fit.
    for done, image in enumerate(images, 1):
        classes, levels = _segmented(model, image)
        mask = premasks.blanked(classes, levels, limit, split.ignore_index)
        premasks.write(folder / "masks" / f"{image.name}.png", mask, description)
        picture = Path("images") / f"{image.name}{image.file.suffix}"
        (folder / picture).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(image.file, folder / picture)
        lines = [f"{image.rank}  {image.name}", *image.why.split("; ")]
        entries.append(sheet.entry(read_image(image.file), mask, classes, description, lines))
        shown = np.where(mask == split.ignore_index, np.uint8(annotations.BLANK), mask)
        written.append(final / picture, image.name, shown)
        hashes[image.name] = sha256_of_pixels(mask)
        blanks += int((mask == split.ignore_index).sum())
        pixels += mask.size
        progress("segmenting the suggested images", done, len(images))
    for number, page in enumerate(sheet.pages(entries), 1):
        write_png(folder / f"contact_sheet{'' if number == 1 else f'-{number}'}.png", page)
    annotations.cvat(folder / "cvat", written, split.classes, split.colors)
    annotations.label_studio(folder / "label_studio", written, split.classes, split.colors, model=model.name)
    return hashes, blanks / max(1, pixels)
