"""Results that nobody measured, for tests of what is made from results."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from u2pl.files import sha256
from u2pl.pipeline import ActivePlan, planned_names, resolve, spec_of
from u2pl.project import Project

REPOSITORY = Path(__file__).parents[1]
STREET = """
dataset: camvid
roots: {camvid: ../shared/camvid}
reports: reports/camvid
seeds: [0]
tables: {table1: {splits: {classic-1/8: 1/8}}}
"""
DEMO = """
dataset: shapes
reports: reports
seeds: [0]
tables:
  table1: {splits: {classic-1/16: 1/16, classic-1/8: 1/8, classic-1/4: 1/4}}
  table4: {splits: {blender-1/8: 1/8}}
  table7: {splits: {blender-1/8: 1/8}}
"""
RECIPE = yaml.safe_load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))["recipe"]
LABELED = {"1/16": 30, "1/8": 60, "1/4": 120, "classic-1/8": 183, "classic-1/4": 366, "blender-1/8": 1323}
HYPER = {"alpha0": 0.2, "negatives": "unreliable"}
CLASSES = ["background", "disk", "ring", "square"]


def make_project(root: Path) -> Project:
    """A project with this repository's settings, tables and plans, but a smaller demo and Table 1; no results."""
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(REPOSITORY / name, root)
    shutil.copytree(REPOSITORY / "pipelines", root / "pipelines")
    (root / "pipelines/plans/demo.yaml").write_text(DEMO)
    table1 = root / "pipelines/tables/table1.yaml"
    rows = table1.read_text(encoding="utf-8").splitlines(keepends=True)
    table1.write_text(
        "".join(row for row in rows if "PseudoSeg, m" not in row and "PC²Seg, m" not in row), "utf-8"
    )
    return Project(root)


def write_result(
    folder: Path, *, last: float, split: str, method: str, seed: int = 0, **changes: Any
) -> None:
    """A results folder such as `u2pl evaluate` writes; `changes` replaces entries of metrics.json."""
    labeled = LABELED.get(split, 92)
    metrics = {
        "name": folder.name,
        "dataset": "shapes",
        "split": split,
        "method": method,
        "seed": seed,
        "overrides": {},
        "flavor": "paper",
        "recipe": {
            **RECIPE,
            "backbone": "resnet10",
            "crop": 96,
            "epochs": 12,
            "batch": 8,
            "scale": [0.5, 2.0],
            "lr": 0.01,
        },
        "hyper": HYPER,
        "fingerprint": sha256(f"{seed}{method}")[:16],
        "protocol": {
            "evaluation": "whole image",
            "network": "student" if method == "suponly" else "teacher",
            "checkpoint": "last",
        },
        "split_source": "u2pl" if changes.get("dataset") in ("voc", "cityscapes") else "seeded 2",
        "labeled": labeled,
        "unlabeled": max(0, 480 - labeled),
        "miou": {"reported": last, "last": last, "best": last + 1.25, "best_epoch": 9},
        "iou": {
            name: None if name == "ring" and split == "1/16" else last - 5 * i
            for i, name in enumerate(CLASSES)
        },
        "steps": 600,
        "epochs": 12,
        "seconds": 34.5,
        "images_per_second": 140.0,
        "revision": "0123456789abcdef0123456789abcdef01234567",
    }
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(metrics | changes))
    with (folder / "history.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        semi = ["train/loss/unsupervised", "train/reliable/share", "train/reliable/accuracy"]
        semi = semi if method != "suponly" else []
        writer.writerow(["epoch", "step", "val/miou", "train/loss/supervised", *semi])
        for epoch in range(12):
            done = epoch + 1
            values = [0.7**done, 0.8 + done / 60, 0.9 + done / 200] if epoch else [""] * 3
            miou, loss = last * (1 - 0.7**done), 0.8**done
            writer.writerow([epoch, done * 50, miou, loss, *values[: len(semi)]])
    with (folder / "confusion.csv").open("w", newline="") as file:
        rows = [[name, *(80 if i == k else 10 * i for i in range(4))] for k, name in enumerate(CLASSES)]
        csv.writer(file).writerows([["truth / prediction", *CLASSES], *rows])
    draw = np.random.default_rng(sum(map(ord, folder.name)))
    for image in ("0001", "0002", "0003"):
        for kind in ("input", "truth", "prediction", "entropy"):
            path = folder / "samples" / f"{image}.{kind}.png"
            path.parent.mkdir(exist_ok=True)
            blocks = draw.integers(0, 255, (6, 6, 3), dtype=np.uint8)
            blocks = blocks[..., 0] if kind == "entropy" else blocks
            Image.fromarray(blocks).resize((48, 48), Image.Resampling.NEAREST).save(path)


def street_plan(project: Project) -> ActivePlan:
    """A plan of one table with one split and one seed."""
    (project.pipelines / "plans" / "street.yaml").write_text(STREET)
    return resolve(project, "street")


def write_results(project: Project, plan: ActivePlan, **changes: Any) -> None:
    """A result for every run of the plan: the further down in a comparison, the better; in an ablation, the worse."""
    ablations = {stage.shows for stage in plan.ablations.values()}
    places: dict[bool, dict[str, int]] = {True: {}, False: {}}
    names = planned_names(project, plan)
    for key, shows in plan.shown_in.items():
        run, table = plan.runs[key], shows[0]
        ablated = table in ablations
        # Comparisons are counted through, ablations each from its own beginning.
        place = places[ablated].setdefault(table if ablated else "", 0)
        places[ablated][table if ablated else ""] += 1
        write_result(
            project.results / key,
            name=names[key],
            last=60.5 - place if ablated else 45 + 2 * place + 0.31 * run.seed,
            split=run.split,
            method=run.method,
            seed=run.seed,
            dataset=run.dataset,
            overrides=(overrides := dict(spec_of(run).overrides)),
            **{
                "hyper": HYPER | {key.rpartition(".")[2]: value for key, value in overrides.items()},
                **changes,
            },
        )
