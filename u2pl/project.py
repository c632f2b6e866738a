"""Where things lie in a project folder; every path starts at its root, never at the current folder."""

import os
import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PureWindowsPath

from u2pl.errors import UserError

NAME_BYTES = 200
"""Longest name, which others make longer names of: file systems take 255."""
_STRANGE = re.compile(r"[^\w.=+,-]")
_NAME = re.compile(r"\w[\w.=+,-]*")


def slug(text: str) -> str:
    """`text` as a file name: `/` becomes `_` (split `1/8` is folder `1_8`)."""
    return text.replace("/", "_").replace(" ", "_")


def safe_name(text: str) -> str:
    """`text` as a name that a shell, DVC and a file system take as it is: `slug`, of letters, digits and `_.=+,-`.

    A hash of `text` stands at the end where other characters had to be replaced, or the name was too long.
    """
    name = slug(text)
    safe = _STRANGE.sub("_", name)
    if not _NAME.match(safe):
        safe = f"_{safe}"
    if safe == name and len(name.encode()) <= NAME_BYTES:
        return name
    digest = f"-{sha256(text.encode()).hexdigest()[:8]}"
    short = safe.encode()[: NAME_BYTES - len(digest)].decode(errors="ignore")
    return short + digest


def is_name(text: str) -> bool:
    """Whether `text` is a name as `safe_name` makes them: what stands in a command line without quotes."""
    return bool(_NAME.fullmatch(text)) and len(text.encode()) <= NAME_BYTES


def is_inside(path: str) -> bool:
    """Whether a relative path cannot lead out of the folder it is relative to, on any system."""
    windows = PureWindowsPath(path)
    return bool(windows.parts) and not windows.anchor and ".." not in windows.parts


@dataclass(frozen=True)
class Project:
    """A folder with `params.yaml` and `dvc.yaml`; `data/`, `runs/`, `results/` and `reports/` grow inside it."""

    root: Path

    @classmethod
    def find(cls, start: Path | None = None) -> "Project":
        """The project that `start` (default: the current folder) lies in, or the one `U2PL_ROOT` names.

        Raises:
            UserError: no folder from `start` upwards holds a params.yaml beside a dvc.yaml, or the current one is gone.
        """
        named = os.environ.get("U2PL_ROOT")
        try:
            start = Path(named) if named else (start or Path.cwd())
            here = start.resolve()
        except FileNotFoundError:
            raise UserError("The current folder is gone. Change to one that is there: cd FOLDER") from None
        for folder in (here, *here.parents):
            if (folder / "params.yaml").is_file() and (folder / "dvc.yaml").is_file():
                return cls(folder)
        raise UserError(
            f"No u2pl project at {start} or above it: a project holds params.yaml and dvc.yaml. "
            "Run the command inside a clone of the repository, or set U2PL_ROOT to it."
        )

    def relative(self, path: Path) -> str:
        """A path as settings write it: below the project from its root, elsewhere absolute."""
        path = path.resolve()
        return str(path.relative_to(self.root) if path.is_relative_to(self.root) else path)

    @property
    def params(self) -> Path:
        """Every hyper-parameter."""
        return self.root / "params.yaml"

    @property
    def pipelines(self) -> Path:
        """Tables, plans and the active plan."""
        return self.root / "pipelines"

    @property
    def active_plan(self) -> Path:
        """The generated list of stages that `dvc repro` runs."""
        return self.pipelines / "plan.yaml"

    @property
    def runs(self) -> Path:
        """Work folders, one a run."""
        return self.root / "runs"

    def data(self, dataset: str) -> Path:
        """What `prepare` wrote for a data set."""
        return self.root / "data" / slug(dataset)

    def split(self, dataset: str, split: str) -> Path:
        """The lists and the manifest of one split."""
        return self.data(dataset) / "splits" / slug(split)
