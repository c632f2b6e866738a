"""Where a run comes from: the command that makes it again, and the git commit it was made at. Knows no torch."""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from u2pl.escaping import command_line


def train_command(run: Mapping[str, Any]) -> str:
    """The command line that trains the run again."""
    words = ["u2pl", "train"]
    for key in ("dataset", "split", "method", "seed", *(["name"] if run.get("named") else [])):
        words += [f"--{key}", str(run[key])]
    for key, value in run["overrides"].items():
        words += ["--set", f"{key}={value}"]
    return command_line(*words)


def import_command(run: Mapping[str, Any]) -> str:
    """The command line that imports the run's checkpoint again."""
    words = ["u2pl", "import", run["imported"]["file"], "--as", run["name"]]
    for key in ("dataset", "split", "method"):
        words += [f"--{key}", run[key]]
    words += ["--network", run["imported"]["network"]]
    for key, value in run["overrides"].items():
        words += ["--set", f"{key}={value}"]
    return command_line(*words)


def revision(folder: Path, digits: int = 12) -> str | None:
    """The git commit of the repository that a folder lies in, None outside one."""
    try:
        command = ["git", "-C", str(folder), "rev-parse", f"--short={digits}", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
