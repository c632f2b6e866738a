"""What is released, built of the files that git has."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from tiny import REPOSITORY


def tracked() -> list[str]:
    """The files that git has, or would take."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=REPOSITORY, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("what is released is what git has, and this is no git repository")
    return [name for name in listed.stdout.split("\0") if name and (REPOSITORY / name).is_file()]


@dataclass(frozen=True)
class Packed:
    """The two files of a release."""

    folder: Path

    def make(self) -> None:
        """Build the sdist, and the wheel of the sdist, as `python -m build` does."""
        source = self.folder / "source"  # a copy, so that nothing else is in it, and nothing is left in ours
        for name in tracked():
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, target)
        words = [sys.executable, "-m", "build", "--no-isolation", "--outdir", self.folder / "dist", source]
        done = subprocess.run(words, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    @property
    def sdist(self) -> Path:
        """The source distribution."""
        (found,) = self.folder.glob("dist/*.tar.gz")
        return found

    @property
    def wheel(self) -> Path:
        """The wheel."""
        (found,) = self.folder.glob("dist/*.whl")
        return found

    def sources(self) -> dict[str, bytes]:
        """What the sdist has, without the folder that all of it is in."""
        with tarfile.open(self.sdist) as archive:
            return {
                member.name.partition("/")[2]: archive.extractfile(member).read()
                for member in archive
                if member.isfile()
            }

    def installed(self) -> dict[str, bytes]:
        """What the wheel brings into site-packages."""
        with zipfile.ZipFile(self.wheel) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
