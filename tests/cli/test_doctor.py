import json
import shutil
import socket
from pathlib import Path

import pytest
from u2pl_cli.app import run

from u2pl.project import Project
from u2pl.training import doctor


def examined(capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, dict[str, str]]]:
    status = run(["doctor", "--json"])
    return status, {finding["what"]: finding for finding in json.loads(capsys.readouterr().out)}


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("U2PL_ROOT", raising=False)


def test_a_project_is_looked_over(
    tiny_project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tiny_project.root)
    monkeypatch.delenv("U2PL_TRACKING")
    monkeypatch.setenv("HF_HUB_CACHE", str(tiny_project.root / "hub"))
    (tiny_project.root / "hub/models--timm--resnet18.a1_in1k").mkdir(parents=True)
    status, found = examined(capsys)
    assert "timm:resnet18.a1_in1k in" in found["timm's weights"]["found"]
    assert status == any(finding["state"] == "problem" for finding in found.values())
    assert found["project"]["found"] == str(tiny_project.root)
    assert "1_4" in found["data tiny"]["found"]
    assert "u2pl" in found["params.yaml"]["found"] and found["torch"]["state"] == "ok"
    assert found["tracking"]["found"].endswith("mlflow.db")
    assert all(finding["advice"] for finding in found.values() if finding["state"] == "note")


def test_damaged_settings_a_dead_store_and_a_full_disk_are_problems(
    tiny_project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tiny_project.root)
    monkeypatch.delenv("U2PL_TRACKING")
    tiny_project.params.write_text("recipe: [\n")
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{port}")
    usage = shutil.disk_usage(tiny_project.root)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage._replace(free=2**29))
    status, found = examined(capsys)
    assert status == 1
    for what in ("params.yaml", "tracking", "disk"):
        assert found[what]["state"] == "problem", what
    assert "is not valid YAML" in found["params.yaml"]["found"]
    assert "does not answer" in found["tracking"]["found"] and "secret" not in json.dumps(found)


def test_elsewhere_it_says_how_to_make_a_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run(["doctor"])
    said = capsys.readouterr().out
    assert (
        "note    project: none here." in said and "u2pl init" in said and ".." not in said.replace("...", "")
    )


def test_what_goes_wrong_with_one_look_is_said_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def _memory() -> None:
        raise RuntimeError("no such thing")

    monkeypatch.setattr(doctor, "_memory", _memory)
    status, found = examined(capsys)
    assert status == 1 and found["memory"]["found"] == "RuntimeError: no such thing"
    assert found["clock"]["state"] == "ok"
