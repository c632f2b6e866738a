"""How far training by several processes is from training by one: the largest differences after some steps.

    python benchmarks/processes.py

Three steps of U²PL from the end of the warm start on, float32, on a CPU with gloo, batch norm's statistics fixed, the
same batch of 4 + 4 images cut into 1, 2 or 4.
"""

import os
import sys
import tempfile
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import measure
import torch
from methods import parting
from torch import Tensor

ROWS = (
    ("losses", ("supervised", "unsupervised", "contrastive")),
    ("gamma_t", ("gamma_t",)),
    ("lambda_u", ("lambda_u",)),
    ("centres", ("centres",)),
    ("bank", ("bank.storage",)),
    ("pushed", ("bank.pushed_C",)),
    ("weights", ("student", "teacher")),
)


def apart(one: dict[str, Tensor], other: dict[str, Tensor], words: tuple[str, ...]) -> float:
    """Largest absolute difference of all that has one of the words in its name."""
    keys = [key for key in one if any(word in key for word in words)]
    assert keys and one.keys() == other.keys()
    return max((one[key].double() - other[key].double()).abs().max().item() for key in keys)


def main() -> None:
    kinds = [("u2pl", 0), ("u2pl", 1), ("groups", 0), ("released", 0)]
    whole = {kind: parting.train(kind) for kind in dict(kinds)}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for size in (2, 4):
            # Of four processes each has one image of either kind: there is nothing to cut.
            chosen = kinds if size == 2 else [kind for kind in kinds if kind[1] == 0]
            torch.multiprocessing.spawn(parting.work, (size, chosen, Path(folder)), nprocs=size)
            saved = [
                torch.load(Path(folder) / f"{size}-{rank}.pt", weights_only=True) for rank in range(size)
            ]
            for kind in chosen:
                name = f"{kind[0]}, {size}" + (", micro-batches of 1 + 1" if kind[1] else "")
                worst = [max(apart(whole[kind[0]], one[kind], words) for one in saved) for _, words in ROWS]
                rows.append((name, *(f"{value:.1e}" for value in worst)))
    measure.show("Largest absolute differences from one process", ["", *(name for name, _ in ROWS)], rows)


if __name__ == "__main__":
    main()
