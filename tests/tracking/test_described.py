"""What MLflow is told of a run in words, from records alone: no store is opened."""

from pathlib import Path

import written

from u2pl.tracking import described
from u2pl.tracking.described import note, parameters, tags


def test_settings_of_a_method_have_their_plain_names_too():
    found = parameters(
        written.run("r", method="mt", hyper={"ema_decay": 0.99, "scale": [0.5, 2]}, overrides={})
    )
    assert (found["mt.ema_decay"], found["ema_decay"], found["scale"]) == ("0.99", "0.99", "[0.5, 2]")
    assert found["recipe.lr"] == "0.001" and "lr" not in found


def test_no_setting_of_a_method_hides_what_the_run_is():
    found = parameters(written.run("r", method="mt", hyper={"seed": 7, "recipe.lr": 8}))
    assert (found["seed"], found["mt.seed"], found["recipe.lr"]) == ("0", "7", "0.001")


def test_a_long_value_is_cut_to_what_mlflow_takes():
    assert len(parameters(written.run("r", hyper={"long": "x" * 9000}))["long"]) == 6000


def test_the_commit_is_a_tag_by_mlflows_name_and_nothing_that_is_unknown_is_a_tag():
    found = tags(written.run("r", tags={"host": "here", "revision": "a" * 40, "device": None}))
    assert found["mlflow.source.git.commit"] == "a" * 40
    assert not {"revision", "device"} & found.keys()
    assert "mlflow.source.git.commit" not in tags(written.run("r", tags={"revision": None}))


def test_the_description_of_a_run_says_what_it_was_how_it_ended_and_how_to_have_it_again():
    run = written.run("tiny-1_4-mt-s0", overrides={"recipe.lr": 0.001})
    text = note(run, None, {})
    assert text.startswith(
        "`mt` trained on split `1/4` of `tiny`, seed 0: `resnet10`, 3 epochs, batches of 2."
    )
    assert "Not finished. No page shows it yet; `u2pl report` writes one." in text
    assert "`u2pl train --dataset tiny --split 1/4 --method mt --seed 0 --set recipe.lr=0.001`" in text
    assert "`runs/tiny-1_4-mt-s0`" in text
    text = note(run, written.metrics(run, 51.234), {"reports/index.html": "#/there"})  # type: ignore[arg-type]
    assert "(4 labelled and 12 unlabelled images)" in text
    assert "**51.23 % mIoU**" in text and "Page: [reports/index.html](#/there)." in text
    assert text.index("Page:") < text.index("Set otherwise")


def test_no_name_ends_its_own_quotes_or_its_cell():
    rows = [{"value": "a`|b\nc", "run": "r_1", "miou_reported": None, "miou_last": None, "miou_best": None}]
    text = described.ablation_note("x", rows, {}, {})  # type: ignore[arg-type]
    assert "| `a'/b c` | — | r\\_1 |" in text


def test_a_page_shows_a_run_only_where_its_whole_name_stands_there(tmp_path: Path):
    page = tmp_path / "index.html"
    page.write_text('<a href="#">tiny-s1</a> and tiny-s10. <b>tiny-lr=0.1,x-s2</b>,')
    found = described.shown_by(page)
    assert {"tiny-s1", "tiny-s10", "tiny-lr=0.1,x-s2"} <= found and "tiny" not in found
