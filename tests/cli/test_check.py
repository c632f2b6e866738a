import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from PIL import Image
from tiny import DESCRIPTION, draw_tiny, make_project
from u2pl_cli.app import run

from u2pl.exchange import model_file
from u2pl.exchange.model import load
from u2pl.files import read_json, sha256_of
from u2pl.project import Project
from u2pl.trust.findings import LABELED, UNLABELED, VAL
from u2pl.trust.report import examine

Command = Callable[..., CompletedProcess[str]]
RUN = "tiny-1_2-suponly-s0"


def split_lists(project: Path) -> dict[str, list[str]]:
    folder = project / "data/tiny/splits/1_2"
    return {part: (folder / f"{part}.txt").read_text().split() for part in ("labeled", "unlabeled", "val")}


@pytest.fixture(scope="session")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of 24 training and 12 validation images with a finished run that was checked.

    A labelled image is an unlabelled one too, mirrored; a validation image is a labelled one, brighter; of another
    validation image the mask has two classes exchanged; an unlabelled image is noise.
    """
    from u2pl.data.prepare import prepare
    from u2pl.settings import RunSpec
    from u2pl.training.trainer import train

    root = make_project(tmp_path_factory.mktemp("checked")).root
    pictures = root / "pictures"
    draw_tiny(pictures, train=24, val=12)
    assert DESCRIPTION["images"] == "images"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("U2PL_TRACKING", "none")
        prepare(Project(root), str(pictures / "tiny.yaml"), "1/2")
        lists = split_lists(root)

        def pixels(folder: str, name: str) -> np.ndarray:
            return np.array(Image.open(pictures / folder / f"{name}.png"))

        def save(folder: str, name: str, array: np.ndarray) -> None:
            Image.fromarray(np.ascontiguousarray(array)).save(pictures / folder / f"{name}.png")

        for folder in ("images", "masks"):
            save(folder, lists["unlabeled"][0], pixels(folder, lists["labeled"][0])[:, ::-1])
            save(folder, lists["val"][0], pixels(folder, lists["labeled"][1]))
        brighter = pixels("images", lists["val"][0]).astype(float) * 1.2 + 5
        save("images", lists["val"][0], brighter.clip(0, 255).astype(np.uint8))
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
        save("images", lists["unlabeled"][1], noise)
        mask = pixels("masks", lists["val"][5])
        save("masks", lists["val"][5], np.array([1, 0, 3, 2])[mask % 4].astype(np.uint8))
        prepare(Project(root), str(pictures / "tiny.yaml"), "1/2")
        assert split_lists(root) == lists
        train(Project(root), RunSpec("tiny", "1/2", "suponly", overrides={"epochs": 6}, name=RUN))
        before = state(root / "runs" / RUN)
        examine(Project(root), RUN)
        after = state(root / "runs" / RUN)
    assert {name: after[name] for name in before if name != f"{RUN}.u2pl"} == {
        name: before[name] for name in before if name != f"{RUN}.u2pl"
    }
    return root


def state(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): sha256_of(path) for path in folder.rglob("*") if path.is_file()
    }


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_what_was_planted_is_found(checked: Path) -> None:
    lists, folder = split_lists(checked), checked / "runs" / RUN / "check"
    pairs = [
        (r["image"], r["other"], r["list"], r["other_list"]) for r in rows(folder / "near_duplicates.csv")
    ]
    leak = (lists["val"][0], lists["labeled"][1], VAL, LABELED)
    assert pairs[0] == leak  # first, since it is a leak
    assert (lists["labeled"][0], lists["unlabeled"][0], LABELED, UNLABELED) in pairs
    assert rows(folder / "near_duplicates.csv")[1]["done_to_other"] == "mirrored"
    masks = [r for r in rows(folder / "masks.csv") if r["list"] == VAL]
    assert masks[0]["image"] == lists["val"][5] and float(masks[0]["score"]) < 0.2
    scores = [float(r["score"]) for r in rows(folder / "masks.csv")]
    assert scores == sorted(scores) and len(scores) == len(lists["val"]) + len(lists["labeled"])
    first = rows(folder / "regions.csv")[0]
    assert first["image"] == lists["val"][5] and {first["given"], first["predicted"]} == {"ground", "square"}
    assert int(first["width"]) <= 64 and 0.5 <= float(first["confidence"]) <= 1
    assert lists["unlabeled"][1] in [r["image"] for r in rows(folder / "novel.csv")]
    assert sum(int(r["pixels"]) for r in rows(folder / "reliability.csv")) > 10_000
    assert len(rows(folder / "images.csv")) == 12
    with Image.open(folder / "masks.png") as sheet:
        assert sheet.height > 500


def test_the_tables_say_what_the_json_says(checked: Path) -> None:
    facts = read_json(checked / "runs" / RUN / "check/check.json")
    assert facts["images"] == {LABELED: 12, UNLABELED: 12, VAL: 12}
    assert len(facts["calibration"]["bins"]) == 15 and facts["calibration"]["images"] == 12
    assert facts["masks"][0]["regions"][0]["given"] in DESCRIPTION["classes"]
    assert facts["image_threshold"]["images"] == 12 and len(facts["words"]) == 4
    assert all(len(sentence) > 40 for sentence in facts["words"])


def test_the_facts_go_with_the_model_file_and_leave_it_readable(checked: Path, tmp_path: Path) -> None:
    path = checked / "runs" / RUN
    file = path / f"{RUN}.u2pl"
    facts = model_file.read_trust(file)
    assert facts is not None and facts == model_file.trust_of_run(path)
    assert facts["weights"] == sha256_of(path / "weights.pt")
    # An earlier version reads the first entry of the header and all tensors: nothing is added to these.
    from safetensors import safe_open

    with safe_open(file, framework="np") as opened:
        assert "u2pl.trust" in opened.metadata() and not [name for name in opened.keys() if "trust" in name]  # noqa: SIM118
    assert "trust" not in model_file.read_facts(file)
    assert load(file, "cpu").name == RUN
    copied = model_file.write_of_run(Project(checked), path, tmp_path / "copy.u2pl")
    assert model_file.read_trust(copied) == facts


def test_what_was_found_of_other_weights_is_not_believed(checked: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(checked / "runs" / RUN, tmp_path / RUN))
    facts = read_json(path / "trust.json")
    (path / "trust.json").write_text(json.dumps({**facts, "weights": "0" * 64}))
    assert model_file.trust_of_run(path) is None
    (path / "trust.json").unlink()
    assert model_file.trust_of_run(path) is None


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0},
        {"temperature": "hot"},
        {"weights": "../x"},
        {"novelty": {"count": 1}},
        {"novelty": {"count": 2, "size": 3, "neighbour": 1, "threshold": 1.0, "features": "AAAA"}},
        {"novelty": {"count": 1, "size": 1, "neighbour": 1, "threshold": 1.0, "features": "AAA="}},
    ],
)
def test_damaged_facts_are_one_sentence(
    checked: Path, tmp_path: Path, change: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    source = checked / "runs" / RUN / f"{RUN}.u2pl"
    with safe_open(source, framework="np") as opened:
        metadata = dict(opened.metadata())
    metadata["u2pl.trust"] = json.dumps({**json.loads(metadata["u2pl.trust"]), **change})
    save_file(load_file(source), tmp_path / "bad.u2pl", metadata)
    photos = str(checked / "pictures/images/01.png")
    assert (
        run(["predict", str(tmp_path / "bad.u2pl"), photos, "--review", "--out", str(tmp_path / "out")]) == 1
    )
    said = capsys.readouterr().err
    assert "u2pl check RUN" in said and "Traceback" not in said and said.count("\n") == 1


@pytest.mark.slow
def test_the_command_says_it_all_and_where_the_rest_is(checked: Path, u2pl: Command, tmp_path: Path) -> None:
    lists = split_lists(checked)
    done = u2pl("check", RUN, "--out", str(tmp_path / "found"), cwd=checked)
    assert done.returncode == 0, done.stderr
    for words in (
        "expected calibration error",
        "expected mIoU",
        "near duplicate among those trained on",
        "near_duplicates.csv",
        "masks.csv",
        "novel.csv",
        f"Next: u2pl predict {RUN} PHOTOS --review",
    ):
        assert words in " ".join(done.stdout.split()), words
    assert lists["val"][5] in done.stdout
    assert "looking at images: 36 of 36" in done.stderr
    again = u2pl("check", RUN, "--json", cwd=checked)
    facts = json.loads(again.stdout)
    assert facts["run"] == RUN and (tmp_path / "found/check.json").is_file()
    assert {**facts, "folder": ""} == {**read_json(tmp_path / "found/check.json"), "folder": ""}


@pytest.mark.slow
def test_with_few_images_it_says_what_cannot_be_told(trained: Path, tmp_path: Path, u2pl: Command) -> None:
    """Four labelled and four validation images."""
    root = Path(shutil.copytree(trained, tmp_path / "project"))
    done = u2pl("check", "tiny-1_4-suponly-s0", cwd=root)
    assert done.returncode == 0, done.stderr
    assert "With 4 validation images, fewer than 10" in " ".join(done.stdout.split())
    assert "With 4 labelled images nobody can tell" in done.stdout
    missing = u2pl("check", "tiny-1_4-supply-s0", cwd=root)
    assert missing.returncode == 2 and "Did you mean" in missing.stderr
    (root / "file").touch()
    refused = u2pl("check", "tiny-1_4-suponly-s0", "--out", "file", cwd=root)
    assert refused.returncode == 2 and "is a file" in refused.stderr


@pytest.mark.slow
def test_a_review_puts_first_what_should_be_looked_at_without_the_project(
    checked: Path, tmp_path: Path, u2pl: Command
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in split_lists(checked)["val"][1:5]:
        shutil.copy(checked / f"pictures/images/{name}.png", photos)
    noise = np.random.default_rng(5).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save(photos / "a noise.png")
    (photos / "broken.png").write_bytes(b"")
    model = shutil.copy(checked / "runs" / RUN / f"{RUN}.u2pl", tmp_path / "model.u2pl")
    done = u2pl("predict", str(model), "photos", "--review", "--out", "photos", cwd=tmp_path)
    assert done.returncode == 1 and "1 of 6 files could not be read" in done.stderr
    table = rows(tmp_path / "photos/review/review.csv")
    assert len(table) == 5 and table[0]["file"] == "photos/a noise.png"
    assert table[0]["look"] == "yes" and "unlike the images with labels" in table[0]["reasons"]
    assert float(table[0]["novelty"]) > 1
    assert [row["look"] for row in table] == sorted((row["look"] for row in table), reverse=True)
    count = sum(row["look"] == "yes" for row in table)
    assert f"{count} of 5 should be looked at" in done.stdout
    with Image.open(tmp_path / "photos/review/review.png") as sheet:
        assert sheet.mode == "RGB"
    # Its own pictures are not segmented the next time; without --review all is as ever.
    (photos / "broken.png").unlink()
    plain = u2pl("predict", str(model), "photos", "--out", "photos", "--json", cwd=tmp_path)
    facts = json.loads(plain.stdout)
    assert facts["images"] == 5 and "review" not in facts
    masks = {path.name: path.read_bytes() for path in (photos / "masks").iterdir()}
    told = u2pl("predict", str(model), "photos", "--out", "photos", "--json", "--review", cwd=tmp_path)
    review = json.loads(told.stdout)["review"]
    assert review["look"] == count and review["images"][0]["file"] == "photos/a noise.png"
    assert {path.name: path.read_bytes() for path in (photos / "masks").iterdir()} == masks


def test_a_model_that_was_not_checked_has_no_review(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "tiny-1_4-suponly-s0"
    monkeypatch.chdir(shutil.copytree(trained, tmp_path / "project"))
    for model in (name, f"runs/{name}/{name}.u2pl"):
        if not Path(model).exists():
            assert run(["export", name, "--out", f"runs/{name}"]) == 0 or model == name
        assert run(["predict", model, "pictures/images", "--review", "--out", "out"]) == 1
        assert "u2pl check" in capsys.readouterr().err
    assert not Path("out").exists()


def test_a_folder_called_review_that_is_somebody_elses_is_left_alone(
    checked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checked)
    (tmp_path / "review").mkdir()
    shutil.copy(checked / "pictures/images/01.png", tmp_path / "review/review.png")
    assert run(["predict", RUN, "pictures/images", "--review", "--out", str(tmp_path)]) == 2
    assert "did not write" in capsys.readouterr().err
    from u2pl.exchange.predictor import find_images

    assert [item.name for item in find_images([tmp_path], tmp_path)] == ["review/review"]
