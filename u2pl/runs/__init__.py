"""Folders of runs: what a run leaves on disk, its stored evaluation, and whether it is stale.

The room is called too: `u2pl.runs()` is the frame of a project's runs, `u2pl.runs.frames.runs`.
"""

import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from u2pl.project import Project


class _Room(ModuleType):
    """A module that can be called: to import anything below it makes it, and nothing else, `u2pl.runs`."""

    def __call__(self, project: "Project | str | Path | None" = None) -> "pd.DataFrame":
        """A row a run of the project; see `u2pl.runs.frames.runs`."""
        from u2pl.runs import frames

        return frames.runs(project)


sys.modules[__name__].__class__ = _Room
