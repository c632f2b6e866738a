"""Puts the files of a new project into the wheel; everything else stands in pyproject.toml."""

from pathlib import Path
from shutil import copy2

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
# The same as in u2pl/pipeline/new_project.py, which cannot be imported here: it needs what is installed with it.
FILES = ("params.yaml", "dvc.yaml", ".dvcignore", "pipelines/**/*.yaml", "pipelines/plots/*.json")


class WithProjectFiles(build_py):
    """Copies what `u2pl init` makes a project of to u2pl/project_files/."""

    def run(self) -> None:
        """As setuptools does, and more."""
        super().run()
        if self.editable_mode:  # the repository itself has them
            return
        for pattern in FILES:
            for path in ROOT.glob(pattern):
                target = Path(self.build_lib) / "u2pl" / "project_files" / path.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                copy2(path, target)


setup(cmdclass={"build_py": WithProjectFiles})
