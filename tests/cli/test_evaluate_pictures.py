import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from u2pl.data.catalog.cityscapes import CLASSES
from u2pl.files import read_json, write_json
from u2pl.models.deeplab import DeepLabV3Plus
from u2pl.runs.results import load_network

Command = Callable[..., CompletedProcess[str]]
RUN = "tiny-1_4-suponly-s0"
VAL = ("16", "17", "18", "19")


@pytest.fixture
def project(trained: Path, tmp_path: Path) -> Path:
    """A copy of the project with one finished run, and the validation pictures once more in kept/images, kept/masks."""
    root = Path(shutil.copytree(trained, tmp_path / "project"))
    for part in ("images", "masks"):
        (root / "kept" / part).mkdir(parents=True)
        for name in VAL:
            shutil.copy(root / "pictures" / part / f"{name}.png", root / "kept" / part)
    return root


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def scores(u2pl: Command, project: Path, *words: str, run: str = RUN, images: str = "kept/images") -> dict:
    done = u2pl("evaluate", run, "--images", images, *words, "--json", cwd=project)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def painted(path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels.astype(np.uint8)).save(path)


@pytest.mark.slow
def test_the_validation_pictures_in_a_folder_have_the_score_of_the_validation_and_replace_nothing(
    project: Path, u2pl: Command
) -> None:
    before = contents(project)
    found = scores(u2pl, project)
    own = read_json(project / "runs" / RUN / "metrics.json")
    assert found["iou"] == own["iou"] and found["miou"] == {"reported": own["miou"]["reported"]}
    assert found["protocol"] == own["protocol"]
    assert found["pictures"]["count"] == 4 and found["pictures"]["images"] == str(project / "kept/images")
    after = contents(project)
    assert {name: after[name] for name in before} == before
    new = sorted(after.keys() - before.keys())
    (metrics,) = (Path(name) for name in new if name.endswith("metrics.json"))
    folder = metrics.parent
    assert folder.name == "whole" and folder.parent.name.startswith("kept_images-")
    assert folder.parent.parent == Path("runs") / RUN / "evaluations/pictures"
    assert all(Path(name).is_relative_to(folder) for name in new if not name.endswith(".lock"))
    assert json.loads(after[str(metrics)]) == found
    rows = pd.read_csv(project / folder / "iou.csv").set_index("class")
    assert rows["iou"].to_dict() == own["iou"]

    said = u2pl("evaluate", RUN, "--images", "kept/images", cwd=project)
    assert said.returncode == 0, said.stderr
    words = " ".join(said.stdout.split())
    assert f"mIoU {own['miou']['reported']:.2f} % on 4 pictures in {project}/kept/images" in words
    assert (
        "no validation result, and no number of the tables" in words
        and f"are in {project / folder}." in words
    )
    assert "square" in words


@pytest.mark.slow
def test_folders_and_protocols_have_results_of_their_own(project: Path, u2pl: Command) -> None:
    shutil.copytree(project / "kept", project / "more/kept")
    (project / "more/kept/images/16.png").unlink()
    by_default, fewer = scores(u2pl, project), scores(u2pl, project, images="more/kept/images")
    centre = scores(u2pl, project, "--evaluation", "center", "--flip", "--scales", "1,0.5", "--worst", "2")
    assert centre["protocol"]["evaluation"].startswith("centre crop of 32, scales 0.5 1 with flip")
    assert fewer["pictures"]["count"] == 3
    assert len({found["miou"]["reported"] for found in (by_default, fewer, centre)}) == 3
    written = [
        read_json(path) for path in (project / "runs" / RUN).glob("evaluations/pictures/*/*/metrics.json")
    ]
    assert len(written) == 3 and all(found in written for found in (by_default, fewer, centre))
    (table,) = (project / "runs" / RUN).glob("evaluations/pictures/*/*/worst/worst.csv")
    names = pd.read_csv(table, dtype=str)["image"].tolist()
    assert len(names) == 2 and set(names) < set(VAL)
    assert (table.parent / f"{names[0]}.truth.png").is_file()


@pytest.mark.slow
def test_pictures_and_masks_of_other_kinds_and_places_count_alike(project: Path, u2pl: Command) -> None:
    colors = np.array(read_json(project / "data/tiny/dataset.json")["colors"])
    expected = scores(u2pl, project)["iou"]
    images, masks = project / "all/street/été", project / "truth/street/été"
    images.mkdir(parents=True)
    masks.mkdir(parents=True)
    for name, suffix in zip(VAL, (".png", ".bmp", ".tif", ".webp"), strict=True):
        with Image.open(project / f"kept/images/{name}.png") as picture:
            picture.save(images / f"{name}.v2{suffix}", **({"lossless": True} if suffix == ".webp" else {}))
        shutil.copy(project / f"kept/masks/{name}.png", masks / f"{name}.v2.png")
    (images / "notes.txt").write_text("no picture")
    mask = np.array(Image.open(masks / "17.v2.png"))
    mask[mask == 255] = 0
    painted(masks / "17.v2.png", mask)
    as_indices = scores(u2pl, project, "--masks", "truth", images="all")
    painted(masks / "17.v2.png", colors[mask])
    as_colors = scores(u2pl, project, "--masks", "truth", images="all")
    assert as_indices["iou"] == as_colors["iou"] != expected
    shutil.copy(project / "kept/masks/17.png", masks / "17.v2.png")
    assert scores(u2pl, project, "--masks", "truth", images="all")["iou"] == expected


@pytest.mark.slow
def test_a_run_whose_data_are_elsewhere_needs_its_weights_and_classes_alone(
    project: Path, u2pl: Command, tmp_path: Path
) -> None:
    expected = scores(u2pl, project)
    bare = tmp_path / "bare"
    (bare / "runs" / RUN).mkdir(parents=True)
    for name in ("params.yaml", "dvc.yaml", f"runs/{RUN}/run.json", f"runs/{RUN}/weights.pt"):
        shutil.copy(project / name, bare / name)
    shutil.move(project / "kept", bare / "kept")
    unknown = u2pl("evaluate", RUN, "--images", "kept/images", cwd=bare)
    assert (
        unknown.returncode == 1 and "The classes and colours of 'tiny' are not known here" in unknown.stderr
    )
    (bare / "data/tiny").mkdir(parents=True)
    shutil.copy(project / "data/tiny/dataset.json", bare / "data/tiny")
    found = scores(u2pl, bare)
    for key in ("iou", "miou", "protocol"):
        assert found[key] == expected[key]


def run_on(project: Path, dataset: str, classes: int) -> str:
    """A finished run on a built-in data set that is not here: a network of random weights."""
    _, recipe = load_network(project / "runs" / RUN, 4)
    torch.manual_seed(0)
    network = DeepLabV3Plus(classes, recipe, representation=False)
    run = read_json(project / "runs" / RUN / "run.json") | {"dataset": dataset, "name": f"{dataset}-run"}
    run["facts"]["dataset"] = dataset
    folder = project / "runs" / run["name"]
    folder.mkdir()
    write_json(folder / "run.json", run)
    torch.save({"network": "student", "epoch": 0, "state": network.state_dict()}, folder / "weights.pt")
    return run["name"]


@pytest.mark.slow
def test_masks_are_read_as_those_of_the_runs_data_set_or_as_its_classes(project: Path, u2pl: Command) -> None:
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 19, (64, 64))
    label_ids = np.array([label_id for label_id, _ in CLASSES.values()])
    for name in VAL:
        (project / f"kept/masks/{name}.png").unlink()
        painted(project / f"kept/masks/{name}.png", label_ids[classes])
    city = run_on(project, "cityscapes", 19)
    as_labels = scores(u2pl, project, run=city)
    for name in VAL:
        painted(project / f"kept/masks/{name}.png", classes)
    as_classes = scores(u2pl, project, "--class-numbers", run=city)
    misread = scores(u2pl, project, run=city)
    assert as_labels["iou"] == as_classes["iou"] and next(iter(as_labels["iou"])) == "road"
    assert misread["iou"] != as_labels["iou"]

    for name in VAL:
        painted(project / f"kept/masks/{name}.png", np.where(classes < 8, classes, 255))
    houses = scores(u2pl, project, run=run_on(project, "facade", 8))
    assert next(iter(houses["iou"])) == "building" and len(houses["iou"]) == 8


def without_masks(project: Path) -> None:
    shutil.rmtree(project / "kept/masks")


def without_two(project: Path) -> None:
    (project / "kept/masks/16.png").unlink()
    (project / "kept/masks/18.png").unlink()


def of_another_size(project: Path) -> None:
    painted(project / "kept/masks/17.png", np.zeros((10, 20)))


def with_another_class(project: Path) -> None:
    painted(project / "kept/masks/17.png", np.full((64, 64), 9))


def emptied(project: Path) -> None:
    shutil.rmtree(project / "kept/images")
    (project / "kept/images").mkdir()


def void(project: Path) -> None:
    for name in VAL:
        painted(project / f"kept/masks/{name}.png", np.full((64, 64), 255))


def damaged(project: Path) -> None:
    (project / "kept/images/19.png").write_bytes(b"no picture")


def named_in_latin_1(project: Path) -> None:
    for part in ("images", "masks"):
        (project / "kept" / part / "16.png").rename(
            os.fsdecode(os.fsencode(project / "kept" / part) + b"/caf\xe9.png")
        )


def twice(project: Path) -> None:
    shutil.copy(project / "kept/images/19.png", project / "kept/images/19.bmp")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "words", "status", "said"),
    [
        (without_masks, [], 1, "beside kept/images is no folder called masks. Name theirs with --masks."),
        (without_two, [], 1, "missing mask of a picture: 2 (16; 18)"),
        (of_another_size, [], 1, "mask of another size than its image: 1 (17 (20 x 10, image 64 x 64))"),
        (with_another_class, [], 1, "kept/masks/17.png (9; classes are 0 to 3, ignored is 255)"),
        (emptied, [], 1, "There is no picture in kept/images. Pictures end in .png"),
        (void, [], 1, "No pixel of the masks in"),
        (damaged, [], 1, "truncated or damaged image: 1 (kept/images/19.png"),
        (named_in_latin_1, [], 1, "is not in UTF-8, nor those of 0 others. Rename them first."),
        (twice, [], 1, "several images for one name: 1 (19.bmp, 19.png)"),
        (None, ["--masks", "nowhere"], 2, "nowhere is no folder. Name the folder of the pictures' masks"),
        (None, ["--into", "results"], 2, "Leave --into out"),
        (None, ["--evaluation", "centre"], 2, "Did you mean 'center'?"),
        (None, ["--scales", "two"], 2, "A scale is a number"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_cannot_be_scored_is_told_at_once_and_leaves_no_result(
    project: Path,
    u2pl: Command,
    change: Callable[[Path], None] | None,
    words: list[str],
    status: int,
    said: str,
) -> None:
    if change:
        change(project)
    done = u2pl("evaluate", RUN, "--images", "kept/images", *words, cwd=project)
    told = " ".join(done.stderr.split())
    assert done.returncode == status and said in told, told
    assert "Traceback" not in told and "defect" not in told and done.stdout == ""
    assert not (project / "runs" / RUN / "evaluations/pictures").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--masks", "kept/masks"], "are for --images"),
        (["--class-numbers"], "are for --images"),
        (["--images", "nowhere"], "nowhere is no folder. Name a folder of pictures with --images."),
    ],
)
def test_masks_go_with_pictures(project: Path, u2pl: Command, words: list[str], said: str) -> None:
    done = u2pl("evaluate", RUN, *words, cwd=project)
    assert done.returncode == 2 and said in " ".join(done.stderr.split())
