"""A real MLflow server on loopback that can be killed and started again, and what a store holds."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from u2pl.project import Project
from u2pl.tracking.mirror import MIRRORED, Store
from u2pl.tracking.models import MODEL


class Server:
    """`mlflow server` on a port of its own; what it keeps lies in `folder` and outlives it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return when it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self.folder}/server.db"]
        command += ["--artifacts-destination", str(self.folder / "files")]
        # Without job execution: a second process that nobody here asks for work.
        quick = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env=quick, start_new_session=True
            )
        wait_until(lambda: answers(f"{self.address}/health"), 180)

    def kill(self) -> None:
        """SIGKILL to it and its worker; nothing if it does not run."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def wait_until(condition: Callable[[], object], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.2)


def contents(project: Project, uri: str | None = None) -> dict[str, Any]:
    """All that the store says of each run, by the run's name and its parent's; ids are left out.

    Parameters, tags, the whole history of each metric, status and times, and the bytes of each file.
    """
    store = Store(project, uri)
    runs = store.client.search_runs([store.experiment])
    names = {run.info.run_id: run.info.run_name for run in runs}
    found: dict[str, Any] = {}
    for run in runs:
        tags = dict(run.data.tags)
        parent = names.get(tags.pop("mlflow.parentRunId", ""))
        tags.pop(MODEL, None)
        histories = {
            metric: [
                (point.step, point.value, point.timestamp)
                for point in store.client.get_metric_history(run.info.run_id, metric)
            ]
            for metric in run.data.metrics
        }
        with tempfile.TemporaryDirectory() as folder:
            store.client.download_artifacts(run.info.run_id, "", folder)
            files = {
                path.relative_to(folder).as_posix(): path.read_bytes()
                for path in Path(folder).rglob("*")
                if path.is_file()
            }
        key = f"{run.info.run_name} under {parent}"
        assert key not in found, f"{key} is there twice"
        found[key] = {
            "status": run.info.status,
            "times": (run.info.start_time, run.info.end_time),
            "params": run.data.params,
            # The marks name files in the order in which they were sent.
            "tags": {k: json.loads(v) if k == MIRRORED else v for k, v in tags.items()},
            "inputs": sorted(
                (each.dataset.name, each.dataset.digest, sorted((tag.key, tag.value) for tag in each.tags))
                for each in run.inputs.dataset_inputs
            ),
            "metrics": {metric: sorted(points) for metric, points in histories.items()},
            "files": files,
        }
    return found
