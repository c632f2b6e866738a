"""All methods side by side: a whole training step of each, data included, and its peak memory.

Every method has the same recipe and the same images, takes turns with the others in one process, and has left its
warm start behind. "times" is the median of the ratios to the first method in the same round.

    OMP_NUM_THREADS=1 python benchmarks/every_method.py
    python benchmarks/every_method.py --device cuda --dataset voc --crop 513 --batch 4
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

import measure
import torch
from measure import Lap
from train_step import endless, pictures

from u2pl import methods
from u2pl.data.prepared import Split
from u2pl.methods import Step
from u2pl.project import Project
from u2pl.settings import Params
from u2pl.training.learner import Learner
from u2pl.training.trainer import classes_of

ROOT = Path(__file__).resolve().parents[1]
FIRST = "suponly"


def main() -> None:
    parser = measure.arguments(__doc__)
    parser.add_argument("--dataset", default="camvid", help="whose recipe (default: camvid)")
    parser.add_argument("--crop", type=int)
    parser.add_argument("--batch", type=int, help="labelled images, and as many unlabelled ones")
    options = parser.parse_args()
    device = measure.prepared(options)
    with pictures() as split:
        run(options, device, split)


def run(options: argparse.Namespace, device: torch.device, split: Split) -> None:
    given = {"weights": "none", "crop": options.crop, "batch": options.batch}
    overrides = {key: value for key, value in given.items() if value is not None}
    params = Params.read(Project(ROOT))
    names = sorted(methods.names(), key=lambda name: (name != FIRST, name))
    steps = {name: step_of(name, params, options.dataset, overrides, device, split) for name in names}
    times = measure.taking_turns(steps, options.repeats, device)
    spent = {name: [sum(phases.values()) for phases in times[name]] for name in names}
    rows = []
    for name in names:
        ratio = statistics.median(a / b for a, b in zip(spent[name], spent[FIRST], strict=True))
        peak = measure.peak_extra(steps[name], device) / measure.MIB
        ms = statistics.median(spent[name])
        rows.append((name, f"{ms / 1e3:.3f}", f"{min(spent[name]) / 1e3:.3f}", f"{ratio:.2f}", f"{peak:.0f}"))
    recipe = params.resolve(params.spec(options.dataset, "1/2", FIRST, 0, overrides)).recipe
    measure.show(
        f"{recipe.backbone}, crop {recipe.crop}, batch {recipe.batch} + {recipe.batch}, {recipe.precision}",
        ("method", "s a step", "fastest", f"times {FIRST}", "peak extra MiB"),
        rows,
    )


def step_of(
    name: str, params: Params, dataset: str, overrides: dict[str, Any], device: torch.device, split: Split
) -> measure.Step:
    """A method's training step, each call of which takes the next batch."""
    keys = {params.full_key(key, name): value for key, value in overrides.items()}
    resolved = params.resolve(params.spec(dataset, "1/2", name, 0, keys))
    torch.manual_seed(0)
    method = methods.create(name, classes_of(split), resolved.recipe, resolved.hyper).train()
    learner = Learner(method, resolved.recipe, 10**6, device)
    batches = endless(split, method, device)
    epochs = resolved.recipe.epochs

    def step(lap: Lap) -> None:
        place = Step(10**5, epochs - 1, epochs, 1, torch.Generator().manual_seed(0))
        learner.step(next(batches).to(device), place)

    return step


if __name__ == "__main__":
    main()
