"""Training for real, while its tracking store is missing, dies, comes back, hangs or is deleted."""

import inspect
import json
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from tracking.mlflow_server import Server, contents, free_port, wait_until

from u2pl.files import read_json
from u2pl.project import Project
from u2pl.settings import Params
from u2pl.tracking.mirror import Store, sync
from u2pl.tracking.sidecar import Sidecar
from u2pl.tracking.store import ENVIRONMENT
from u2pl.training import trainer

pytestmark = [
    pytest.mark.mlflow,
    # MLflow asks SQLAlchemy for a loader that SQLAlchemy is about to retire.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"),
]

TRAIN = ("train", "--dataset", "tiny", "--split", "1/4", "--method", "suponly")
NAME = "tiny-1_4-suponly-s0"

HELD = """
import sys
from contextlib import contextmanager
from u2pl.tracking import sidecar
from u2pl_cli import progress
from u2pl_cli.app import run

@contextmanager
def held(name):
    def observe(event, step, steps, metrics):
        if event == "epoch":
            print(step, flush=True)
            sys.stdin.readline()
    yield observe

progress.training = held
sidecar.POLL_SECONDS = 0.5
status = run(sys.argv[1:])
print([name for name in sys.modules if name.partition(".")[0] == "mlflow"])
sys.exit(status)
"""


class HeldTraining:
    """`u2pl train` in a process of its own, which stops at the end of each epoch until it is let go on."""

    def __init__(self, project: Project):
        self.project, self.folder = project, project.runs / NAME
        self._process = subprocess.Popen(
            [sys.executable, "-c", HELD, *TRAIN],
            cwd=project.root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.reaches(6)

    def reaches(self, step: int) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == f"{step}\n"

    def go_on(self, to: int) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self.reaches(to)

    def finish(self) -> str:
        """Let it end, which must be well and without MLflow in its process; what it wrote on stderr."""
        output, error = self._process.communicate("\n", timeout=90)
        assert self._process.returncode == 0, error
        assert output.splitlines()[-1] == "[]"
        assert read_json(self.folder / "metrics.json")["steps"] == 18
        return error

    def failures(self) -> int:
        """How often the side process has failed to reach the store."""
        return len((self.folder / "tracking.log").read_text().splitlines())

    def validations(self) -> int:
        """How many epochs' mIoU the server holds; 0 where it holds no run yet."""
        store = Store(self.project)
        found = store.client.search_runs([store.experiment], f"tags.`u2pl.name` = '{NAME}'")
        return sum(len(store.client.get_metric_history(run.info.run_id, "val/miou")) for run in found)

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def project(tiny_project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Tracked, unlike those of other tests, and without what another test may have trained in the template."""
    for name in ("U2PL_TRACKING", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    shutil.rmtree(tiny_project.runs, ignore_errors=True)
    return tiny_project


@pytest.fixture
def training(project: Project) -> Iterator[Callable[[], HeldTraining]]:
    started: list[HeldTraining] = []

    def start() -> HeldTraining:
        started.append(HeldTraining(project))
        return started[-1]

    yield start
    for held in started:
        held.stop()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    yield made
    made.kill()


def as_rebuilt(project: Project) -> dict:
    """What a fresh store holds into which the run folders are mirrored at once."""
    uri = f"sqlite:///{project.root}/rebuilt/store.db"
    assert sync(project, uri).problems == []
    return contents(project, uri)


def warnings(error: str) -> list[str]:
    """The lines of stderr beside those that show progress."""
    return [
        line for line in error.splitlines() if not re.match(r"tiny-\S+: (step \d+/\d+|no step yet)", line)
    ]


@pytest.mark.slow
def test_a_server_may_come_late_and_be_killed_and_come_back_and_be_killed_for_good(
    project, training, server, u2pl, monkeypatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
    held = training()
    wait_until(held.failures, 180)
    server.start()
    wait_until(lambda: held.validations() == 1, 180)

    server.kill()
    before = held.failures()
    held.go_on(to=12)
    wait_until(lambda: held.failures() > before, 180)
    server.start()
    wait_until(lambda: held.validations() == 2, 180)

    server.kill()
    held.go_on(to=18)
    (warning,) = warnings(held.finish())
    assert warning.startswith(f"Tracking is behind for {NAME} (") and warning.endswith(
        "; run: u2pl track sync"
    )
    refused = u2pl("track", "sync", cwd=project.root)
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"Error: The tracking store {server.address} cannot be opened: ")

    server.start()
    assert u2pl("track", "sync", cwd=project.root).returncode == 0
    once = contents(project)
    assert [run["status"] for run in once.values()] == ["FINISHED"]
    assert once == as_rebuilt(project)
    assert u2pl("track", "sync", cwd=project.root).returncode == 0
    assert contents(project) == once


def validations_in(database: Path) -> int:
    """How many epochs' mIoU a SQLite store holds; read without MLflow, which would go on to read a deleted file."""
    if not database.exists():
        return 0
    with closing(sqlite3.connect(database)) as opened, suppress(sqlite3.OperationalError):
        return int(opened.execute("select count(*) from metrics where key = 'val/miou'").fetchone()[0])
    return 0


@pytest.mark.slow
def test_a_store_that_is_deleted_while_a_run_goes_on_is_built_again_by_that_run(project, training):
    database = project.root / "mlflow.db"
    held = training()
    wait_until(lambda: validations_in(database) == 1, 180)
    for step in (12, 18):  # twice, since the second time finds what MLflow remembers of the first
        database.rename(database.with_suffix(f".{step}"))
        held.go_on(to=step)
        wait_until(lambda expected=step // 6: validations_in(database) == expected, 180)
    assert warnings(held.finish()) == []
    assert contents(project) == as_rebuilt(project)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["no server", "no folder", "no database"])
def test_a_store_that_cannot_be_opened_from_the_start_costs_one_line(project, u2pl, kind: str):
    (project.root / "file").write_text("This is no database, however long one looks at it.\n")
    address = {
        "no server": f"http://127.0.0.1:{free_port()}",
        "no folder": f"sqlite:///{project.root}/file/store.db",
        "no database": f"sqlite:///{project.root}/file",
    }[kind]
    done = u2pl(*TRAIN, cwd=project.root, U2PL_TRACKING="", MLFLOW_TRACKING_URI=address)
    assert done.returncode == 0
    (warning,) = warnings(done.stderr)
    assert warning.endswith("run: u2pl track sync")
    assert f"Everything about it is in {project.runs / NAME}" in done.stdout


def test_training_waits_for_a_hanging_store_when_it_is_over_and_not_before(project, monkeypatch, caplog):
    """What it does with the side process: it starts one, and closes it when all is written."""
    written = []

    class Watched:
        def __init__(self, sidecar: Sidecar, folder: Path):
            self.sidecar, self.folder = sidecar, folder

        @classmethod
        def start(cls, project: Project, folder: Path) -> "Watched":
            return cls(Sidecar.start(project, folder), folder)

        def close(self) -> str | None:
            last = json.loads((self.folder / "events.jsonl").read_text().splitlines()[-1])
            written.append((last["event"], (self.folder / "metrics.json").exists()))
            return self.sidecar.close(timeout=0.5)

    monkeypatch.setattr(trainer, "Sidecar", Watched)
    with socket.socket() as silent:  # accepts connections and never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        trainer.train(project, Params.read(project).spec("tiny", "1/4", "suponly", 0, {}))
    assert written == [("end", True)]
    (record,) = caplog.records
    assert "the store did not answer within 0.5 seconds" in record.message
    assert inspect.signature(Sidecar.close).parameters["timeout"].default <= 30
