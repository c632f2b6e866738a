"""The command lines that make a run again; known without torch."""

import shlex
from collections.abc import Mapping
from typing import Any


def train_command(run: Mapping[str, Any]) -> str:
    """The command line that trains the run again."""
    words = ["u2pl", "train"]
    for key in ("dataset", "split", "method", "seed", *(["name"] if run.get("named") else [])):
        words += [f"--{key}", str(run[key])]
    for key, value in run["overrides"].items():
        words += ["--set", f"{key}={value}"]
    return shlex.join(words)


def import_command(run: Mapping[str, Any]) -> str:
    """The command line that imports the run's checkpoint again."""
    words = ["u2pl", "import", run["imported"]["file"], "--as", run["name"]]
    for key in ("dataset", "split", "method"):
        words += [f"--{key}", run[key]]
    words += ["--network", run["imported"]["network"]]
    for key, value in run["overrides"].items():
        words += ["--set", f"{key}={value}"]
    return shlex.join(words)
