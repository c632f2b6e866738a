"""A project under a real DVC."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tiny import REPOSITORY

from u2pl.project import Project


def put_under_dvc(project: Project, plan: str) -> None:
    """Make the project a repository of git and DVC, with a plan called `tiny` that is not active yet."""
    root = project.root
    for name in (".gitignore", ".dvcignore"):
        shutil.copy(REPOSITORY / name, root)
    (root / ".dvc").mkdir()
    shutil.copy(REPOSITORY / ".dvc" / "config", root / ".dvc")
    subprocess.run(["git", "init", "--quiet", str(root)], check=True)
    (root / "pipelines/plans/tiny.yaml").write_text(plan, encoding="utf-8")


def environment(project: Project) -> dict[str, str]:
    """In which `dvc` finds this u2pl, and keeps its own files in the project."""
    return os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(project.root / ".site"),
    }
