import sys
import time

import pytest
from u2pl_cli.progress import training

TRAINED = {"train/loss": 1.5, "images_per_second": 20.0, "memory/peak_gib": 0.5}


def test_a_line_has_a_miou_where_the_epoch_was_validated(capsys: pytest.CaptureFixture[str]):
    with training("mine") as observe:
        observe("epoch", 6, 6, TRAINED | {"val/miou": 40.0})
        observe("epoch", 6, 6, TRAINED)
    validated, other = capsys.readouterr().err.splitlines()
    assert validated == "mine: step 6/6, loss 1.500, mIoU 40.0 %, 20 images/s, 0.5 GiB"
    assert other == "mine: step 6/6, loss 1.500, 20 images/s, 0.5 GiB"


def test_the_bar_keeps_the_newest_miou_over_epochs_without_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    with training("mine") as observe:
        observe("epoch", 2, 6, TRAINED)
        observe("epoch", 4, 6, TRAINED | {"val/miou": 40.0})
        observe("step", 5, 6, {"loss": 1.25})
        observe("epoch", 6, 6, TRAINED)
    shown = capsys.readouterr().err
    assert "6/6" in shown and "mIoU 40.0  loss 1.250" in shown


def test_a_line_in_the_midst_of_an_epoch_says_how_long_it_will_go_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with training("mine") as observe:
        now = 30.0
        observe("begun", 1, 101, {})
        now = 50.0
        observe("step", 11, 101, {"loss": 1.0})
        now = 55.0
        observe("step", 16, 101, {"loss": 1.0})
        now = 70.0
        observe("epoch", 21, 101, TRAINED)
        observe("epoch", 101, 101, TRAINED)
    begun, step, epoch, end = capsys.readouterr().err.splitlines()
    assert begun == "mine: the first of 101 steps took 30 s, about 50 min 00 s at that pace"
    assert step == "mine: step 11/101, loss 1.000, about 3 min 00 s left"
    assert epoch == "mine: step 21/101, loss 1.500, 20 images/s, 0.5 GiB, about 2 min 40 s left"
    assert end == "mine: step 101/101, loss 1.500, 20 images/s, 0.5 GiB"


def test_before_a_long_run_a_sentence_says_what_a_step_takes(capsys: pytest.CaptureFixture[str]):
    found = {"step_gib": 9.14, "available_gib": 10.45, "at_once": 16, "largest": 18}
    with training("mine") as observe:
        observe("memory", 0, 6, {f"memory/{name}": value for name, value in found.items()})
    assert capsys.readouterr().err == (
        "A step takes 9.1 of 10.4 GiB with 16 images at once; about 18 would fit.\n"
    )
