"""Where things lie in a project folder; every path starts at its root, never at the current folder."""

import os
from dataclasses import dataclass
from pathlib import Path

from u2pl.errors import UserError


def slug(text: str) -> str:
    """`text` as a file name: `/` becomes `_` (split `1/8` is folder `1_8`)."""
    return text.replace("/", "_").replace(" ", "_")


@dataclass(frozen=True)
class Project:
    """A folder with `params.yaml` and `dvc.yaml`; `data/`, `runs/`, `results/` and `reports/` grow inside it."""

    root: Path

    @classmethod
    def find(cls, start: Path | None = None) -> "Project":
        """The project that `start` (default: the current folder) lies in, or the one `U2PL_ROOT` names.

        Raises:
            UserError: no folder from `start` upwards holds a params.yaml beside a dvc.yaml.
        """
        named = os.environ.get("U2PL_ROOT")
        start = Path(named) if named else (start or Path.cwd())
        for folder in (start.resolve(), *start.resolve().parents):
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
