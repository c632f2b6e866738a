"""A folder of pictures with masks that belongs to no prepared data set: found, checked, and read as class indices."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from u2pl.data.catalog import built_in
from u2pl.data.check import DataSetFiles, Journal, check, notes
from u2pl.data.description import Description, Progress, read_mask
from u2pl.data.image_set import ImageSet
from u2pl.data.layout import Layout
from u2pl.data.pictures import SUFFIXES, Finder
from u2pl.data.problems import report
from u2pl.errors import UsageError, UserError


@dataclass(frozen=True)
class PictureFolder:
    """Where pictures and their masks lie, and how the masks are read."""

    images: Path
    masks: Path
    class_numbers: bool
    """Whether they hold the classes' numbers, from 0 on, even where the data set's own masks hold other values."""


def picture_folder(images: Path, masks: Path | None, *, class_numbers: bool = False) -> PictureFolder:
    """The folder of pictures, with that of their masks: the given one, or `masks` beside the pictures.

    Raises:
        UserError: one of them is not there.
    """
    if not images.is_dir():
        raise UsageError(f"{images} is no folder. Name a folder of pictures with --images.")
    if masks is None:
        # Of the folder itself, and not of what it is called from here: `.` has no folder beside it.
        beside = images.resolve().parent / "masks"
        if not beside.is_dir():
            raise UserError(
                f"There are no masks to score by: beside {images} is no folder called masks. Name theirs with --masks."
            )
        masks = beside
    if not masks.is_dir():
        raise UsageError(f"{masks} is no folder. Name the folder of the pictures' masks with --masks.")
    return PictureFolder(images, masks, class_numbers)


@contextmanager
def opened(
    folder: PictureFolder, description: Description, progress: Progress
) -> Iterator[tuple[ImageSet, tuple[str, ...]]]:
    """The pictures, all of which are to be scored, and what was taken for granted of them, in sentences.

    Every picture and mask is looked at first. The masks' class indices lie in a temporary folder meanwhile.

    Args:
        folder: where the files are.
        description: of the data set whose classes are meant.
        progress: told how many pictures were looked at.

    Raises:
        UserError: there is no picture, or no labelled pixel; or, all at once, pictures without a mask, masks of another
            size or with values that are no class, and files that cannot be read.
    """
    images = _pictures(folder)
    built = built_in().get(description.name)
    own = built.read_mask if built and not folder.class_numbers else None
    if folder.class_numbers:
        description = description.model_copy(update={"zero": "class", "values": {}, "palette": "indices"})
    layout = Layout(
        train=[],
        val=list(images),
        images=lambda name: images[name],
        masks=Finder(folder.masks, "{name}").find,
        read_mask=own or partial(read_mask, description=description),
    )
    with TemporaryDirectory(prefix="u2pl-") as temporary:
        # Files are named as the user would name them, from where the command was started.
        files = DataSetFiles(description, layout, Path.cwd(), Path(temporary))
        with Journal(Path(temporary) / "checked", None) as journal:
            needs_mask = dict.fromkeys(images, "a picture")
            records, problems = check(files, layout.val, needs_mask, {}, journal, progress)
        if problems:
            raise UserError(
                report(
                    f"The pictures in {folder.images} cannot be scored with the masks in {folder.masks}:",
                    problems,
                    "Mend these files or move them elsewhere, then run the same command again.",
                )
            )
        if not any(any(record.pixels) for record in records.values()):
            raise UserError(
                f"No pixel of the masks in {folder.masks} has a class: all are void. Name other ones with --masks."
            )
        found = ImageSet(
            dataset=description.name,
            classes=description.classes,
            colors=description.colors,
            ignore_index=description.ignore_index,
            background=description.background,
            val=layout.val,
            images={name: path for name, (path,) in images.items()},
            masks={name: files.index_mask(name) for name in images},
        )
        yield found, notes(records.values(), description)


def _pictures(folder: PictureFolder) -> dict[str, list[Path]]:
    """Name -> its files, for the pictures in the folder and below it; masks may lie there too.

    Raises:
        UserError: there are none, or some have names that no list or table can hold.
    """
    masks, images = folder.masks.resolve(), folder.images.resolve()
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.images.rglob("*")):
        if path.suffix.lower() not in SUFFIXES or path.is_dir():
            continue
        if masks != images and path.resolve().is_relative_to(masks) and not images.is_relative_to(masks):
            continue
        name = path.relative_to(folder.images).as_posix().removesuffix(path.suffix)
        found.setdefault(name, []).append(path)
    if not found:
        raise UserError(f"There is no picture in {folder.images}. Pictures end in {', '.join(SUFFIXES)}.")
    paths = [folder.images, folder.masks, *(path for files in found.values() for path in files)]
    strange = [path for path in paths if not _is_text(str(path))]
    if strange:
        raise UserError(
            f"The name of {strange[0]} is not in UTF-8, nor those of {len(strange) - 1} others. Rename them first."
        )
    return found


def _is_text(path: str) -> bool:
    """Whether a path can be written down; old archives have names in other alphabets."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
