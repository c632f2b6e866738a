"""Links to MLflow: none that leads nowhere."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from fabricated import street_plan, write_results
from tracking.mlflow_server import Server, free_port

from u2pl.files import sha256, write_json
from u2pl.project import Project
from u2pl.reporting import links as module
from u2pl.reporting.links import Links, links
from u2pl.reporting.results import collect

RUN = "camvid-1_8-suponly-s0"


@contextmanager
def server(status: int, wait: float = 0.0) -> Iterator[str]:
    """What answers every question with `status`."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(wait)
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{served.server_address[1]}"
        served.shutdown()


def found_for(project: Project, store: str, run: str = "abc") -> Links:
    """The links of two tracked runs, of which one was trained again since."""
    plan = street_plan(project)
    if not project.results.exists():
        write_results(project, plan)
    for name, fingerprint in (("suponly", sha256("0suponly")[:16]), ("mt", "0" * 16)):
        where = {"store": store, "experiment": "1", "run": run, "fingerprint": fingerprint}
        write_json(project.runs / f"camvid-1_8-{name}-s0/tracking.json", where)
    return links(project, collect(project, plan, "table1").results)


@pytest.mark.parametrize(
    ("status", "linked"), [(200, True), (401, True), (403, True), (404, False), (500, False)]
)
def test_a_run_is_linked_where_a_server_answers_that_knows_it_or_asks_who_wants_to_know(
    project: Project, status: int, linked: bool
) -> None:
    with server(status) as address:
        found = found_for(project, f"{address.replace('//', '//name:secret@')}/base/")
    assert found.addresses == ({RUN: f"{address}/base/#/experiments/1/runs/abc"} if linked else {})
    assert found.runs == {RUN: "abc"}
    assert found.commands == []


def test_a_server_that_is_gone_is_not_linked(project: Project) -> None:
    found = found_for(project, f"http://127.0.0.1:{free_port()}")
    assert (found.addresses, found.runs) == ({}, {RUN: "abc"})


def test_a_server_that_hangs_costs_seconds_and_is_not_linked(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.2)
    with server(200, wait=2) as address:
        started = time.monotonic()
        assert found_for(project, address).addresses == {}
        assert time.monotonic() - started < 2


def test_a_store_in_a_file_comes_with_the_command_that_serves_it(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOCAL", f"http://127.0.0.1:{free_port()}")
    found = found_for(project, f"sqlite:///{project.root}/mlflow.db")
    assert found.commands == ["mlflow ui --backend-store-uri sqlite:///mlflow.db"]
    assert (found.addresses, found.runs) == ({}, {RUN: "abc"})


def test_a_store_that_no_browser_opens_has_neither(project: Project) -> None:
    assert found_for(project, "databricks") == Links(runs={RUN: "abc"})


@pytest.mark.slow
@pytest.mark.mlflow
def test_a_real_mlflow_is_linked_for_the_run_it_has_and_not_for_another(
    project: Project, tmp_path: Path
) -> None:
    real = Server(tmp_path)
    try:
        real.start()
        from mlflow import MlflowClient

        run = MlflowClient(real.address).create_run("0").info.run_id
        assert found_for(project, real.address, run).addresses == {
            RUN: f"{real.address}/#/experiments/1/runs/{run}"
        }
        assert found_for(project, real.address, "0" * 32).addresses == {}
    finally:
        real.kill()
