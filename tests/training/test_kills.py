"""Training that is killed again and again comes to the same end, to the bit."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = Path(__file__).with_name("kills.py")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["u2pl", "gct"])
def test_kills_at_random_moments_change_nothing(tmp_path: Path, method: str):
    """In a step, in an evaluation, while a checkpoint is being written; with a bank, and with three optimisers."""
    # In a process of its own, which forks: this one has threads by now.
    done = subprocess.run(
        [sys.executable, str(KILLS), "--kills", "20", "--method", method],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["kills"] == 20 and said["differences"] == []
    assert all(said["killed in"].get(phase, 0) > 0 for phase in ("step", "evaluation", "checkpoint"))
