"""Files that an option names for results: what cannot be written is said before the work, not after it."""

import os
from pathlib import Path

from u2pl.errors import UsageError


def check_target(path: Path | None, option: str) -> None:
    """Check that a file can be written, as far as that can be known before.

    Raises:
        UsageError: it is a folder, something on the way is no folder, or may not be written to.
    """
    if path is None:
        return
    if path.exists() and not path.is_file():
        raise UsageError(
            f"{option} names a file to write, and {path} is none. Name a file in it: {path / 'NAME'}"
        )
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir():
        raise UsageError(f"{option} {path} cannot be written: {above} is no folder. Name another file.")
    if not os.access(path if path.exists() else above, os.W_OK):
        raise UsageError(f"{option} {path} may not be written. Make it writable, or name another file.")
