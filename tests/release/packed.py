"""What is released, built of the files that git has."""

import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tracked import copy_tracked


@dataclass(frozen=True)
class Packed:
    """The two files of a release."""

    folder: Path

    def make(self) -> None:
        """Build the sdist, and the wheel of the sdist, as `python -m build` does."""
        source = self.folder / "source"  # a copy, so that nothing else is in it, and nothing is left in ours
        copy_tracked(source)
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
