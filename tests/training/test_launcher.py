import tempfile
from pathlib import Path

import filelock
import pytest

from u2pl.training import launcher


def test_logs_of_launchers_that_were_killed_are_swept_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in ("u2pl-logs-dead", "u2pl-logs-alive", "u2pl-logs-not_ours", "u2pl-mine"):
        (tmp_path / name).mkdir()
    (tmp_path / "u2pl-logs-dead" / "u2pl.lock").touch()
    (tmp_path / "u2pl-mine" / "u2pl.lock").touch()
    with filelock.FileLock(tmp_path / "u2pl-logs-alive" / "u2pl.lock"):
        launcher._sweep()
    assert {path.name for path in tmp_path.iterdir()} == {
        "u2pl-logs-alive",
        "u2pl-logs-not_ours",
        "u2pl-mine",
    }
