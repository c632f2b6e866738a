import json
import math
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from u2pl.errors import UserError
from u2pl.files import read_json
from u2pl.project import Project
from u2pl.runs.folder import RunFolder

A, B = "a" * 16, "b" * 16
"""Fingerprints."""
RECIPE = {"backbone": "resnet10", "batch": 2, "crop": 32, "epochs": 3, "evaluation": "whole", "lr": 0.1}
FACTS = {
    "recipe_version": 1,
    "dataset": "tiny",
    "split": "1/4",
    "method": "mt",
    "seed": 0,
    "recipe": RECIPE,
    "hyper": {},
    "data": "1",
}
DESCRIPTION = {
    "name": "run",
    "dataset": "tiny",
    "split": "1/4",
    "method": "mt",
    "seed": 0,
    "overrides": {},
    "flavor": "paper",
    "recipe": RECIPE,
    "hyper": {},
    "fingerprint": A,
    "facts": FACTS,
    "parent": None,
}


def claim(root: Path, *, fresh: bool = False, **changed: object) -> RunFolder:
    return RunFolder.claim(Project(root), "run", {**DESCRIPTION, **changed}, fresh=fresh)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return claim(tmp_path)


def test_a_new_folder_says_whose_it_is(folder: RunFolder):
    run = folder.run()
    assert run | DESCRIPTION == run
    assert len(run["uid"]) == 32
    assert run["created"].endswith("+00:00")
    assert run["tags"]["torch"] == torch.__version__


def test_claiming_again_keeps_who_it_is(folder: RunFolder, tmp_path: Path):
    uid = folder.run()["uid"]
    folder.release()
    assert claim(tmp_path).run()["uid"] == uid


def test_moving_a_run_aside_keeps_its_files_and_makes_a_new_one(folder: RunFolder, tmp_path: Path):
    (folder.path / "samples").mkdir()
    (folder.path / "samples" / "a.png").write_text("a")
    uid = folder.run()["uid"]
    folder.release()
    new = claim(tmp_path, fresh=True, fingerprint=B)
    assert new.run()["uid"] != uid
    aside = tmp_path / "runs" / ".old" / f"run-{A}"
    assert read_json(aside / "run.json")["uid"] == uid
    assert (aside / "samples" / "a.png").read_text() == "a"
    assert not (new.path / "samples").exists()


def test_after_a_refusal_the_folder_is_free(folder: RunFolder, tmp_path: Path):
    folder.release()
    with pytest.raises(UserError, match=r"(?s)seed: 0 -> 1.*--fresh"):
        claim(tmp_path, fingerprint=B, facts={**FACTS, "seed": 1})
    assert claim(tmp_path).run()["fingerprint"] == A


def test_events_are_lines_of_json_without_values_that_are_not_finite(folder: RunFolder):
    folder.event("start", 0, 0)
    folder.event("step", 3, 1, {"loss": 0.5, "bad": math.nan, "worse": math.inf})
    lines = [json.loads(line) for line in (folder.path / "events.jsonl").read_text().splitlines()]
    assert [(e["event"], e["step"], e["epoch"]) for e in lines] == [("start", 0, 0), ("step", 3, 1)]
    assert lines[1]["metrics"] == {"loss": 0.5}
    assert lines[0]["time"] <= lines[1]["time"]


def test_a_history_has_the_columns_of_all_its_rows(folder: RunFolder):
    folder.write_history([{"epoch": 0, "a": 1.5}, {"epoch": 1, "a": 2.5, "b": 3}])
    assert (folder.path / "history.csv").read_text().splitlines() == ["epoch,a,b", "0,1.5,", "1,2.5,3"]


def test_what_was_saved_is_loaded_and_the_one_before_is_kept(folder: RunFolder):
    assert folder.load("last.pt") is None
    for step in (1, 2, 3):
        folder.save("last.pt", {"step": step, "tensor": torch.full((2,), step)})
    state = folder.load("last.pt")
    assert state is not None
    assert state["step"] == 3
    assert torch.equal(state["tensor"], torch.tensor([3, 3]))
    assert sorted(p.name for p in folder.path.glob("*last*")) == ["last.pt", "last.pt.previous"]


@pytest.mark.parametrize("damage", ["half", "empty", "missing", "noise"])
def test_a_damaged_state_falls_back_to_the_one_before_and_says_so(
    folder: RunFolder, damage: str, caplog: pytest.LogCaptureFixture
):
    for step in (1, 2):
        folder.save("last.pt", {"step": step, "tensor": torch.zeros(5000)})
    last = folder.path / "last.pt"
    content = {"half": last.read_bytes()[:9000], "empty": b"", "noise": b"\x80\x02" * 500}
    if damage == "missing":
        last.unlink()
    else:
        last.write_bytes(content[damage])
    state = folder.load("last.pt")
    assert state is not None
    assert state["step"] == 1
    assert ("last.pt cannot be read" in caplog.text) == (damage != "missing")


def test_where_both_are_damaged_nothing_starts_over_in_silence(folder: RunFolder):
    for name in ("last.pt", "last.pt.previous"):
        (folder.path / name).write_text("x")
    with pytest.raises(UserError, match="Delete that folder"):
        folder.load("last.pt")


class Trap:
    """Unpickling it would run code."""

    def __reduce__(self):
        return (pytest.fail, ("a checkpoint ran code",))


def test_a_checkpoint_cannot_run_code(folder: RunFolder):
    torch.save({"step": Trap()}, folder.path / "last.pt")
    with pytest.raises(UserError, match="Delete that folder"):
        folder.load("last.pt")


FULL = """
import resource, sys
from pathlib import Path
import torch
from u2pl.runs.folder import RunFolder
from u2pl.errors import UserError

folder = RunFolder(Path(sys.argv[1]))
folder.save("last.pt", {"step": 1})
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    folder.save("last.pt", {"step": 2, "tensor": torch.zeros(100_000)})
except UserError as error:
    print(error)
print(folder.load("last.pt")["step"], sorted(path.name for path in folder.path.iterdir()))
"""


@pytest.mark.skipif(
    not hasattr(resource, "RLIMIT_FSIZE"), reason="this system cannot limit the size of files"
)
def test_a_full_disk_is_an_error_in_words_and_costs_no_earlier_checkpoint(tmp_path: Path):
    """A limit on the size of files stands for the disk: writing ends half-way with an error in both cases."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)],
        capture_output=True,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGXFSZ, signal.SIG_IGN),
    )
    assert done.returncode == 0, done.stderr
    error, left = done.stdout.splitlines()
    assert "Cannot write" in error
    assert left == "1 ['last.pt']"
