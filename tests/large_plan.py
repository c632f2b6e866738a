"""The paper's plan with all of its runs finished, as large as they would be: 80 epochs, 21 classes, photographs."""

import csv
import json
from pathlib import Path

import numpy as np
from fabricated import make_project, write_results
from PIL import Image

from u2pl.pipeline import ActivePlan, resolve
from u2pl.project import Project

CLASSES = [f"class {k}" for k in range(21)]
EPOCHS = 80
KINDS = {"input": Image.Resampling.BICUBIC, "truth": Image.Resampling.NEAREST}
KINDS |= {"prediction": Image.Resampling.NEAREST, "entropy": Image.Resampling.BICUBIC}
SIZE = (500, 375)


def write_large_plan(root: Path) -> tuple[Project, ActivePlan]:
    """A project in `root` with a result for each run of the plan `paper`."""
    project = make_project(root)
    plan = resolve(project, "paper")
    write_results(project, plan)
    draw = np.random.default_rng(0)
    for folder in sorted(project.results.iterdir()):
        path = folder / "metrics.json"
        metrics = json.loads(path.read_text())
        # Every place of a table has another number, so that no two charts are the same.
        last = metrics["miou"]["last"] % 60 + 20
        metrics["miou"] = {"reported": last, "last": last, "best": last, "best_epoch": EPOCHS - 1}
        metrics |= {"iou": {name: float(last + draw.normal(0, 10)) for name in CLASSES}, "epochs": EPOCHS}
        path.write_text(json.dumps(metrics))
        counts = draw.integers(0, 1000, (21, 21)) + np.eye(21, dtype=int) * 20_000
        rows = [[name, *row] for name, row in zip(CLASSES, counts.tolist(), strict=True)]
        _write(folder / "confusion.csv", [["truth / prediction", *CLASSES], *rows])
        noise = draw.normal(size=(EPOCHS, 3))
        shown = [
            [
                e,
                e * 50,
                last * (1 - 0.9 ** (e + 1)) + noise[e, 0],
                0.8 + noise[e, 1] / 50,
                0.9 + noise[e, 2] / 90,
            ]
            for e in range(EPOCHS)
        ]
        semi = ["train/reliable/share", "train/reliable/accuracy"]
        _write(folder / "history.csv", [["epoch", "step", "val/miou", *semi], *shown])
        for image in range(6):
            for kind, way in KINDS.items():
                blocks = Image.fromarray(draw.integers(0, 255, (12, 16, 3), dtype=np.uint8)).resize(SIZE, way)
                picture = blocks.convert("L") if kind == "entropy" else blocks
                picture.save(folder / "samples" / f"000{image + 1}.{kind}.png", compress_level=1)
    return project, plan


def _write(path: Path, rows: list[list[object]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
