"""Files that an option names for results: what may not be written is said before the work, not after it."""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

from u2pl.errors import UsageError, UserError
from u2pl.project import Project
from u2pl.runs.records import Comparison
from u2pl.typed_files import read


def check_target(project: Project, path: Path | None, option: str, is_ours: Callable[[Path], bool]) -> None:
    """Check that a file can be written, as far as that can be known before, and that nothing of anybody's is lost.

    Args:
        project: whose runs are not to be written over.
        path: the file; None: there is nothing to check.
        option: that names it.
        is_ours: whether a file that is there is one that the option has written before.

    Raises:
        UsageError: it is a folder or a file of another kind, lies among the runs, something on the way is no folder,
            or may not be written to.
    """
    if path is None:
        return
    if path.exists() and not path.is_file():
        raise UsageError(
            f"{option} names a file to write, and {path} is none. Name a file in it: {path / 'NAME'}"
        )
    if path.resolve().is_relative_to(project.runs.resolve()):
        raise UsageError(
            f"{option} {path} lies in {project.runs}, among the files of runs. Name a file elsewhere, such as "
            f"models/{path.name}"
        )
    if path.exists() and path.stat().st_size and not is_ours(path):
        raise UsageError(
            f"{option} would replace {path}, which is nothing that it has written. Name another file, or move that one."
        )
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir():
        raise UsageError(f"{option} {path} cannot be written: {above} is no folder. Name another file.")
    if not os.access(path if path.exists() else above, os.W_OK):
        raise UsageError(f"{option} {path} may not be written. Make it writable, or name another file.")


def is_weights(path: Path) -> bool:
    """Whether a file is an archive as PyTorch writes them."""
    return zipfile.is_zipfile(path)


def is_comparison(path: Path) -> bool:
    """Whether a file is a comparison that `u2pl ablate --record` wrote."""
    try:
        read(Comparison, path)
    except (OSError, UserError):
        return False
    return True
