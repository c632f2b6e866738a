"""What a shell completes: names of runs, from the names of folders alone."""

import os


def run_names(incomplete: str) -> list[str]:
    """Names of the project's runs that begin with what was typed; none outside a project."""
    return _names("", incomplete)


def removed_names(incomplete: str) -> list[str]:
    """The same of runs that were removed and can be brought back."""
    return _names(".removed", incomplete)


def _names(place: str, incomplete: str) -> list[str]:
    from u2pl.errors import UserError
    from u2pl.project import Project

    try:
        with os.scandir(Project.find().runs / place) as entries:
            names = [entry.name for entry in entries]
    except (UserError, OSError):
        return []
    return sorted(name for name in names if name.startswith(incomplete) and not name.startswith("."))
