"""The repository as git has it, with what is not committed yet."""

import shutil
import subprocess
from pathlib import Path

import pytest
from tiny import REPOSITORY


def tracked() -> list[str]:
    """The files that git has, or would take; the test is skipped where there is no git repository."""
    words = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
    listed = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git repository")
    return [name for name in listed.stdout.split("\0") if name and (REPOSITORY / name).is_file()]


def copy_tracked(folder: Path) -> None:
    """Copy them to a folder, where nothing else of ours is."""
    for name in tracked():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(REPOSITORY / name, target)
