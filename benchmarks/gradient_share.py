"""Which loss moves the network, and whether they pull the same way: gradients of each loss of an unfinished run.

Goes on from the run's last checkpoint for some steps, without updating anything, and prints the length of each loss's
gradient, already weighted, as a share of the sum of lengths, on the encoder and on all parameters; and the cosine of
each with the supervised one. A run that is stopped with Ctrl-C leaves such a checkpoint. Nothing is written.

    python benchmarks/gradient_share.py facade-1_16-u2pl-s0 --steps 20
"""

import argparse
import statistics

import torch

from u2pl.data.prepared import open_split
from u2pl.project import Project
from u2pl.runs.records import read_run
from u2pl.settings import Params, RunSpec
from u2pl.training.loop import Run
from u2pl.training.machine import Machine
from u2pl.training.step import losses_of, targets_of


def gradients(run: Run, index: int) -> dict[str, torch.Tensor]:
    """Name of a loss -> its gradient, all parameters after one another, of the step with this number."""
    (batch,) = run._batches(index, index + 1)
    step, method = run._place(index), run.method
    parameters = [p for p in method.parameters() if p.requires_grad]
    targets = targets_of(method, batch.to(run.device), step)
    found: dict[str, torch.Tensor] = {}
    for losses in losses_of(method, targets, step):
        for name, loss in losses.items():
            if not loss.requires_grad:
                continue
            grads = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
            flat = torch.cat(
                [
                    (torch.zeros_like(p) if g is None else g).flatten()
                    for g, p in zip(grads, parameters, strict=True)
                ]
            )
            found[name] = found.get(name, 0) + flat
    return found


def main() -> None:
    """Print one line a loss."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("run")
    options.add_argument("--steps", type=int, default=20)
    given = options.parse_args()
    project = Project.find()
    path = project.runs / given.run
    facts = read_run(path)
    spec = RunSpec(facts["dataset"], facts["split"], facts["method"], facts["seed"], facts["overrides"])
    resolved = Params.read(project).resolve(spec)
    run = Run(resolved, open_split(project, spec.dataset, spec.split), Machine())
    state = torch.load(path / "last.pt", map_location=run.device, weights_only=True)
    run.learner.load_state_dict(state["learner"])
    run.method.train()
    start = state["progress"]["step"]
    encoder = torch.cat(
        [
            torch.full((p.numel(),), ".backbone." in f".{name}")
            for name, p in run.method.named_parameters()
            if p.requires_grad
        ]
    ).to(run.device)
    shares: dict[str, list[tuple[float, float, float]]] = {}
    for index in range(start, start + given.steps):
        found = gradients(run, index)
        whole = sum(float(g.norm()) for g in found.values())
        inside = sum(float(g[encoder].norm()) for g in found.values())
        for name, g in found.items():
            cosine = torch.nn.functional.cosine_similarity(g[encoder], found["supervised"][encoder], dim=0)
            shares.setdefault(name, []).append(
                (float(g[encoder].norm()) / inside, float(g.norm()) / whole, float(cosine))
            )
    print(f"{given.run}, steps {start} to {start + given.steps} of {run.steps}")
    print(f"{'loss':14}{'share, encoder':>16}{'share, all':>12}{'cosine':>9}")
    for name, values in shares.items():
        on_encoder, on_all, cosine = (statistics.fmean(column) for column in zip(*values, strict=True))
        print(f"{name:14}{on_encoder:16.3f}{on_all:12.3f}{cosine:9.3f}")


if __name__ == "__main__":
    main()
