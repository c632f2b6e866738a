"""Pseudo-labels of a batch at full resolution (Eqs. 5 and 6): ours beside the formulas one after another.

The other version is softmax, entropy, maximum, and NumPy's percentile on the host. Logits lie in memory
channel after channel (nchw), and pixel after pixel as the network's upsampling leaves them (nhwc).

What is measured how: see benchmarks/measure.py. NumPy's own memory is not counted; a percentile needs
a few copies of the entropies, which is less than the versions' peaks elsewhere.
"""

from collections.abc import Callable

import measure
import numpy as np
import torch
from measure import Lap, Limit, Machine
from torch import Tensor

from u2pl.losses import partition

IGNORE = 255
LAYOUTS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}


def ours(logits_BCHW: Tensor, valid_BHW: Tensor, alpha: float, lap: Lap) -> tuple[Tensor, Tensor]:
    """Pseudo-labels, and gamma_t."""
    label, entropy, _ = partition.predict(logits_BCHW)
    lap("predict")
    gamma = partition.gamma_t(entropy, valid_BHW, alpha)
    lap("gamma_t")
    label = partition.pseudo_label(label, entropy, gamma, IGNORE)
    lap("pseudo_label")
    return label, gamma


def straightforward(logits_BCHW: Tensor, valid_BHW: Tensor, alpha: float, lap: Lap) -> tuple[Tensor, Tensor]:
    """The same, formula by formula."""
    prob = logits_BCHW.softmax(dim=1)
    entropy = -(prob * torch.log(prob + 1e-10)).sum(dim=1)
    _, label = prob.max(dim=1)
    lap("softmax, entropy, maximum")
    gamma = np.percentile(entropy[valid_BHW].cpu().numpy(), 100 * (1 - alpha))
    lap("percentile on the host")
    label[entropy >= gamma] = IGNORE
    lap("filter")
    return label, torch.tensor(gamma, device=label.device)


def make_logits(batch: int, classes: int, size: int, device: torch.device, seed: int) -> Tensor:
    """Logits of a teacher that is sure of some pixels and torn about others, (B, C, H, W)."""
    generator = torch.Generator(device).manual_seed(seed)
    logits = torch.randn(batch, classes, size, size, device=device, generator=generator)
    sure = 8 * torch.rand(batch, 1, size, size, device=device, generator=generator)
    truth = torch.randint(classes, (batch, 1, size, size), device=device, generator=generator)
    return logits.scatter_add(1, truth, sure)


def check(logits_BCHW: Tensor, valid_BHW: Tensor, alpha: float) -> str:
    """What both versions answer, in a sentence."""
    (label_a, gamma_a), (label_b, gamma_b) = (
        version(logits_BCHW, valid_BHW, alpha, measure.no_lap) for version in (ours, straightforward)
    )
    different = int((label_a != label_b).sum())
    share = float((label_a == IGNORE).float().mean())
    return (
        f"gamma_t {float(gamma_a):.6f} and {float(gamma_b):.6f}; {share:.2%} of the labels ignored by ours; "
        f"{different} of {label_a.numel()} labels differ"
    )


def limits(logits_BCHW: Tensor) -> list[Limit]:
    """What no version can leave out; the percentile is not among it."""
    pixels = logits_BCHW[:, 0].numel()
    return [
        Limit("read the logits once", "B", logits_BCHW.nbytes),
        Limit("write labels (int64) and entropies", "B", pixels * (8 + 4)),
        Limit("an exponential of each logit", "exp", logits_BCHW.numel()),
    ]


def main() -> None:
    """Measure and print."""
    parser = measure.arguments(__doc__)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, default=513)
    parser.add_argument("--classes", type=int, default=21)
    parser.add_argument("--alpha", type=float, default=0.2, help="alpha_t, the share of unreliable pixels")
    options = parser.parse_args()
    device = measure.prepared(options)
    machine = Machine(device)
    print(machine)

    logits = make_logits(options.batch, options.classes, options.size, device, options.seed)
    shape = f"batch {options.batch}, {options.classes} classes, {options.size} x {options.size}"
    for name, layout in LAYOUTS.items():
        given = logits.contiguous(memory_format=layout)
        valid = torch.ones_like(given[:, 0], dtype=torch.bool)
        print(f"\nCheck, {name}: {check(given, valid, options.alpha)}")

        def step(
            version: Callable[..., object], given: Tensor = given, valid: Tensor = valid
        ) -> measure.Step:
            return lambda lap: version(given, valid, options.alpha, lap)

        steps = {"ours": step(ours), "straightforward": step(straightforward)}
        times = measure.show_comparison(f"Pseudo-labels, {shape}, {name}", steps, options.repeats, device)
        for version in steps:
            measure.show_phases(f"Phases, {version}, {name}", times[version])
        measure.show_limits(f"Limits, {name}", limits(given), machine, times["ours"])


if __name__ == "__main__":
    main()
