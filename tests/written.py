"""The files of a run, whole, for tests that train nothing."""

from collections.abc import Mapping
from typing import Any

RECIPE = {"backbone": "resnet10", "batch": 2, "crop": 32, "epochs": 3, "evaluation": "whole", "lr": 0.001}
_SHARED = (
    "name",
    "dataset",
    "split",
    "method",
    "seed",
    "overrides",
    "flavor",
    "recipe",
    "hyper",
    "fingerprint",
)


def run(name: str, **changes: Any) -> dict[str, Any]:
    """The contents of run.json; `changes` replaces entries."""
    facts = {"dataset": "tiny", "split": "1/4", "method": "mt", "seed": 0, "recipe": RECIPE, "hyper": {}}
    described = {**facts, "name": name, "overrides": {}, "flavor": "paper", "fingerprint": "f" * 16} | changes
    made = {
        "facts": {"recipe_version": 1, "data": "1", **{key: described[key] for key in facts}},
        "parent": None,
        "uid": "0" * 32,
        "created": "2025-10-09T08:53:20+00:00",
        "tags": {"host": "here", "threads": 2},
    }
    return made | described


def metrics(run: Mapping[str, Any], miou: float = 50.0, **changes: Any) -> dict[str, Any]:
    """The contents of metrics.json of a run whose run.json, or description, is given."""
    result = {
        "protocol": {"evaluation": "whole image", "network": "teacher", "checkpoint": "last"},
        "split_source": "seeded 0",
        "labeled": 4,
        "unlabeled": 12,
        "miou": {"reported": miou, "last": miou - 1, "best": miou + 1, "best_epoch": 0},
        "iou": {"ground": miou, "square": miou},
        "steps": 2,
        "epochs": 1,
        "seconds": 1.5,
        "images_per_second": 20.0,
    }
    return {key: run[key] for key in _SHARED} | result | changes
