import json
import platform
from pathlib import Path

import pytest

from u2pl.files import read_json, write_json
from u2pl.project import Project
from u2pl.settings import Params, RunSpec
from u2pl.training import estimate
from u2pl.training.estimate import Counts, Work
from u2pl.training.trainer import train

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def empty(tmp_path: Path) -> Project:
    """A project in which nothing was prepared."""
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).write_bytes((REPOSITORY / name).read_bytes())
    return Project(tmp_path)


@pytest.mark.parametrize(
    ("dataset", "split", "expected"),
    [
        ("voc", "classic-1/16", Counts(92, 10490)),
        ("voc", "classic-full", Counts(1464, 9118)),
        ("voc", "blender-1/4", Counts(2646, 7936)),
        ("voc", "classic-1/16-seeded", Counts(92, 10490)),
        ("voc", "full", Counts(10582, 0)),
        ("cityscapes", "1/8", Counts(372, 2603)),
        ("shapes", "1/8", Counts(60, 420)),
        ("shapes", "full", Counts(480, 0)),
        ("camvid", "1/8", None),
        ("voc", "mine", None),
        ("mine", "1/8", None),
    ],
)
def test_the_size_of_a_split_is_known_before_the_data_are_there(
    empty: Project, dataset: str, split: str, expected: Counts | None
) -> None:
    assert estimate.counts(empty, dataset, split) == expected


def test_a_prepared_split_is_counted_in_its_manifest(empty: Project) -> None:
    counts = {"train": 10, "labeled": 3, "unlabeled": 7, "val": 2}
    manifest = {"dataset": "mine", "split": "1/8", "source": "seeded 0", "counts": counts, "classes": {}}
    manifest |= {"sha256": {}, "data": "", "ignore_index": 255, "background": False}
    write_json(empty.split("mine", "1/8") / "manifest.json", manifest)
    assert estimate.counts(empty, "mine", "1/8") == Counts(3, 7)


@pytest.mark.parametrize(
    ("method", "steps", "images"),
    [
        # 80 epochs of floor(7936 / 16) steps, 16 labelled and 16 unlabelled images in each.
        ("u2pl", 80 * 496, 80 * 496 * 32),
        # Of its own 2646 labelled images alone.
        ("suponly", 80 * 165, 80 * 165 * 16),
    ],
)
def test_the_work_of_a_run_of_the_paper(empty: Project, method: str, steps: int, images: int) -> None:
    work = estimate.work(empty, Params.read(empty), RunSpec("voc", "blender-1/4", method))
    assert work is not None
    assert (work.steps, work.images, work.crop) == (steps, images, 513)


def test_hours_are_pixels_by_speed() -> None:
    work = Work(steps=10, images=3600, kind="a", crop=100)
    assert work.hours({"a": 1e4}) == pytest.approx(1.0)
    assert work.hours({"b": 1e4}) is None


def test_what_training_did_is_what_was_estimated_and_gives_the_speed(tiny_project: Project) -> None:
    spec = RunSpec("tiny", "1/4", "mt", overrides={"recipe.epochs": 1, "mt.warm_start_epochs": 0})
    params = Params.read(tiny_project)
    work = estimate.work(tiny_project, params, spec)
    assert work is not None
    assert work.hours(estimate.speeds(tiny_project)) is None
    path = train(tiny_project, spec)
    metrics = read_json(path / "metrics.json")
    assert metrics["steps"] == work.steps
    hours = work.hours(estimate.speeds(tiny_project))
    assert hours == pytest.approx(work.images / metrics["images_per_second"] / 3600)

    run = read_json(path / "run.json")
    write_json(path / "run.json", run | {"tags": run["tags"] | {"host": "elsewhere"}})
    assert work.hours(estimate.speeds(tiny_project)) is None


@pytest.mark.parametrize("method", ["suponly", "u2pl"])
def test_a_measurement_takes_steps_and_is_kept_for_this_machine(tiny_project: Project, method: str) -> None:
    params, spec = Params.read(tiny_project), RunSpec("tiny", "1/4", method)
    estimate.measure(tiny_project, params, spec)
    work = estimate.work(tiny_project, params, spec)
    assert work is not None
    assert work.hours(estimate.speeds(tiny_project)) > 0
    (kept,) = (tiny_project.runs / ".speed").iterdir()
    assert kept.stem.startswith(f"{platform.node()}-")
    assert list(json.loads(kept.read_text())) == [work.kind]
