"""Where the runs are in MLflow, from what tracking left in their work folders; a link only where MLflow answers."""

import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

from u2pl.errors import UserError
from u2pl.project import Project
from u2pl.reporting.results import Result
from u2pl.runs.records import TrackedRun
from u2pl.tracking.addresses import SQLITE, hidden, sqlite_address
from u2pl.typed_files import read

LOCAL = "http://127.0.0.1:5000"
"""Where `mlflow ui` serves if nothing else is said."""
PATIENCE = 2
"""Seconds that a server has for its answer."""


@dataclass(frozen=True)
class Links:
    """Where the runs of a report are tracked; empty where nothing is known."""

    runs: dict[str, str] = field(default_factory=dict)
    """Name of a run -> what MLflow calls it."""
    addresses: dict[str, str] = field(default_factory=dict)
    """Name of a run -> address of its page, where a server that knows it answers."""
    commands: list[str] = field(default_factory=list)
    """What would serve the others."""


def links(project: Project, results: Iterable[Result]) -> Links:
    """The links of all runs whose work folder still holds the run that the result is of."""
    found, answers = Links(), cache(_answers)
    for result in results:
        try:
            where = read(TrackedRun, project.runs / result.name / "tracking.json")
            store = hidden(where["store"], where["store"])
            same = where["fingerprint"] == result.metrics["fingerprint"]
            page = f"/#/experiments/{where['experiment']}/runs/{where['run']}"
        except (OSError, UserError):
            continue  # never tracked, or trained on another machine
        server = _server(store)
        if not same:
            continue
        found.runs[result.name] = where["run"]
        if server is not None and answers(server) and _knows(server, where["run"]):
            found.addresses[result.name] = server + page
        elif server == LOCAL and (command := _command(project, store)) not in found.commands:
            found.commands.append(command)
    return found


def _answers(server: str) -> bool:
    """Whether anything serves there, asked once for all runs."""
    return _status(server) is not None


def _knows(server: str, run: str) -> bool:
    """Whether it is an MLflow that has the run, or one that wants to know first who asks."""
    return _status(f"{server}/api/2.0/mlflow/runs/get?run_id={run}") in (200, 401, 403)


def _status(address: str) -> int | None:
    """What HTTP answers; None for no answer."""
    try:
        with urlopen(address, timeout=PATIENCE) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code
    except (OSError, ValueError):
        return None


def _server(store: str) -> str | None:
    """The address that serves `store`, without a name or password in it; None if no browser can open it."""
    try:
        parts = urlsplit(store)
    except ValueError:
        return None
    if parts.scheme in ("http", "https"):
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
    return None if store.startswith("databricks") else LOCAL


def _command(project: Project, store: str) -> str:
    """What serves a store that is no server, typed in the project's folder."""
    inside = sqlite_address(f"{project.root}/")
    return f"mlflow ui --backend-store-uri {shlex.quote(store.replace(inside, SQLITE))}"
