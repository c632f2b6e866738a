"""Finds, checks and opens an MLflow store."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from u2pl.errors import UserError
from u2pl.files import write_atomically
from u2pl.project import Project
from u2pl.tracking.addresses import SQLITE, sqlite_address, sqlite_file

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

EXPERIMENT = "u2pl"
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # With MLflow's own timeout and retries, one call to a dead server takes four minutes.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


def enabled() -> bool:
    """Whether runs start a side process; the environment variable U2PL_TRACKING=none says no."""
    return os.environ.get("U2PL_TRACKING", "").lower() != "none"


def models_enabled() -> bool:
    """Whether networks are logged beside the numbers; U2PL_TRACKING=no-models says no, since they take room."""
    return os.environ.get("U2PL_TRACKING", "").lower() != "no-models"


@contextmanager
def patience() -> Iterator[None]:
    """For a large file: a server may take longer to answer, unless the user has said how long it may."""
    name = "MLFLOW_HTTP_REQUEST_TIMEOUT"
    said = os.environ.get(name, ENVIRONMENT[name])
    with _variable(name, "120" if said == ENVIRONMENT[name] else said):
        yield


@contextmanager
def only_store(uri: str) -> Iterator[None]:
    """For what MLflow looks up in the store that the environment names, whichever a client was opened for."""
    with _variable("MLFLOW_TRACKING_URI", uri):
        yield


@contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def installed() -> bool:
    """Whether there is an MLflow to import; it is not imported."""
    return find_spec("mlflow") is not None


def default_uri(project: Project) -> str:
    """Address of the store: MLFLOW_TRACKING_URI where it is set, else `mlflow.db` in the project's root.

    A relative SQLite path counts from the root, so that every current folder means the same store.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}mlflow.db"
    found = sqlite_file(uri)
    return sqlite_address(project.root / found[0], found[1]) if found else uri


def database_of(uri: str) -> Path | None:
    """The file of a SQLite store, None for any other store."""
    found = sqlite_file(uri)
    return found[0] if found else None


def artifacts_of(project: Project) -> Path:
    """Where the files of runs lie, if the store is a database."""
    return project.root / "mlartifacts"


def unusable(uri: str, artifacts: Path) -> str | None:
    """Why a SQLite store cannot be used, in words; None where nothing speaks against it, and for any other store.

    MLflow itself would try for two minutes.
    """
    database = database_of(uri)
    if database is None:
        return None
    for folder in (*reversed(database.parents), artifacts):
        if os.path.lexists(folder) and not folder.is_dir():
            return f"{folder} is no folder"
    if not os.path.lexists(database):
        return None
    if database.is_dir():
        return f"{database} is a folder, not a database"
    if not database.exists():
        return f"{database} is a link to a file that is not there"
    if not database.is_file():
        return f"{database} is no file"
    if not all(os.access(path, os.R_OK | os.W_OK) for path in (database, database.parent)):
        return f"{database} or its folder is read-only"
    try:
        with closing(
            sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, timeout=1)
        ) as opened:
            opened.execute("select count(*) from sqlite_master").fetchone()
    except sqlite3.OperationalError:
        return None  # as while another process writes
    except sqlite3.DatabaseError as error:
        return f"{database} is not a database ({error})"
    return None


def prepare_store(uri: str, artifacts: Path) -> str:
    """Id of the experiment `u2pl` at `uri`; the store and the experiment are created where they are missing.

    MLflow builds a fresh SQLite file in many migrations, and two processes doing so at once, or one killed
    in the middle, leave a file that nobody can open. Hence the lock, and the file made beside its place.

    Args:
        uri: address of the store.
        artifacts: folder for the files of runs, where the store is a database; a server decides for itself.

    Raises:
        UserError: it is `unusable`. Whatever else is wrong, MLflow raises.
    """

    def create(file: Path) -> None:
        _experiment(sqlite_address(file), artifacts)

    if problem := unusable(uri, artifacts):
        raise UserError(problem)
    database = database_of(uri)
    if database:
        database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{database}.lock") if database else nullcontext():
        # SQLite itself leaves an empty file where it is to open one that has been deleted.
        if database and not (database.exists() and database.stat().st_size):
            write_atomically(database, create)
        return _experiment(uri, artifacts)


def client_of(uri: str) -> "MlflowClient":
    """An open store; MLflow is imported here."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # Imported here: it costs two seconds of processor time, and only a mirror needs it.
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri)


def _experiment(uri: str, artifacts: Path) -> str:
    client = client_of(uri)
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(EXPERIMENT)
    if found is None:
        is_database = uri.startswith(("sqlite", "postgresql", "mysql", "mssql"))
        location = artifacts.as_uri() if is_database else None
        try:
            return client.create_experiment(EXPERIMENT, artifact_location=location)
        except MlflowException:
            # A server has no lock of ours: another process may have been quicker.
            found = client.get_experiment_by_name(EXPERIMENT)
            if found is None:
                raise
    return found.experiment_id
