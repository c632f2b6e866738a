"""What runs cost on the disk, from the sizes of their files alone."""

import os
from pathlib import Path

CHECKPOINTS = ("last.pt*", "*.pt.previous", "*.pt.new")
"""What only going on with a run needs; see `RunFolder.sweep`."""


def size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; links in it are not followed; what goes meanwhile has none."""
    try:
        if not path.is_dir():
            return path.lstat().st_size
        with os.scandir(path) as entries:
            return sum(
                size(Path(entry.path))
                if entry.is_dir(follow_symlinks=False)
                else entry.stat(follow_symlinks=False).st_size
                for entry in entries
            )
    except OSError:
        return 0


def checkpoints(folder: Path) -> list[Path]:
    """The files of a run's folder that nothing but going on with the run needs."""
    return sorted({path for pattern in CHECKPOINTS for path in folder.glob(pattern) if path.is_file()})


def in_words(count: int) -> str:
    """`0 B`, `12 kB`, `3.4 MB`, `1.2 GB`: decimal, as disks are sold."""
    amount, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if amount < 999.5 or unit == "TB":
            break
        amount /= 1000
    return f"{amount:.1f} {unit}" if unit in ("MB", "GB", "TB") and amount < 99.5 else f"{amount:.0f} {unit}"
