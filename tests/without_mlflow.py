"""Makes an environment that has everything of this one but MLflow: python tests/without_mlflow.py FOLDER."""

import sys
import sysconfig
import venv
from pathlib import Path


def make_environment(folder: Path) -> Path:
    """The Python of a new environment in `folder`, whose packages are links to this environment's.

    Not installed, rather than hidden: neither a module nor a distribution of that name is found, and every
    process that is started from there has none either. What is in `folder` already is deleted.
    """
    venv.create(folder, clear=True, symlinks=True)
    packages = Path(sysconfig.get_path("purelib", "venv", vars={"base": str(folder)}))
    for item in Path(sysconfig.get_path("purelib")).iterdir():
        if not item.name.startswith("mlflow"):
            (packages / item.name).symlink_to(item)
    return folder / "bin" / "python"


if __name__ == "__main__":
    make_environment(Path(sys.argv[1]))
