"""How far the losses are from the paper: the largest deviation from slow references, equation by equation.

The references are those of the tests (tests/losses/reference.py): plain Python, one pixel at a time, in double
precision. Inputs are random and awkward ones (tests/losses/scenes.py): a class that nobody has, one class alone,
nothing but ignored pixels, ties, certain predictions, zero vectors, fewer candidates than draws, fewer classes than
the rank thresholds, alpha_t = 0 and 1, no unreliable pixel, an empty bank. In single precision the references get the
rounded inputs, so that what is seen is the error of computing.

Of sets and labels the elements that differ are counted; a pixel whose entropy is the threshold itself, within
rounding, may fall on either side of it.
"""

import argparse
import importlib
import math
import random
import sys
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from u2pl.losses import contrastive, cross_entropy, partition
from u2pl.losses.memory_bank import MemoryBank

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
reference: Any = importlib.import_module("losses.reference")
scenes: Any = importlib.import_module("losses.scenes")
algorithm: Any = importlib.import_module("losses.algorithm")

IGNORE = scenes.IGNORE
TEMPERATURES = (10, 1, 0.5, 0.1, 0.01)
"""Of Table A6."""
RANKS = ((3, 20), (1, 3), (1, 20), (3, 10), (10, 20), (0, 2))
"""Of Table 5, and one more."""
ALPHAS = (0.2, 0.0, 0.5, 1.0, None)
"""None: every pixel is reliable."""
NEAR = {torch.float64: 1e-9, torch.float32: 1e-5}
"""Entropies so near the threshold may fall on either side."""


class Input(NamedTuple):
    """The k-th input; everything else is made from it."""

    k: int
    dtype: torch.dtype

    def scene(self, part: int = 0) -> Any:
        """Labels, predictions and representations; the parts of an input are alike."""
        rng = random.Random(self.k)
        made = scenes.make(
            seed=3 * self.k + part,
            classes=rng.choice((2, 3, 4, 5, 6, 21)),
            labels=rng.choice(scenes.LABELS),
            logits=rng.choice(scenes.LOGITS),
            features=rng.choice(scenes.FEATURES),
            padded=rng.choice((0.0, 0.3)),
        )
        return made.to(self.dtype)

    def one_of(self, values: tuple[Any, ...]) -> Any:
        """Any of them, independently of the scene."""
        return random.Random(f"{self.k} {values}").choice(values)


def apart(ours: Tensor | Iterable[float], expected: Iterable[float]) -> float:
    """Largest absolute difference; infinite where one of the two is no number and the other is."""
    values = ours.detach().flatten().tolist() if isinstance(ours, Tensor) else list(ours)
    pairs = list(zip(values, expected, strict=True))
    return max(
        (0.0 if a == b else abs(a - b) if math.isfinite(a) else math.inf for a, b in pairs), default=0.0
    )


def different(ours: Iterable[Any], expected: Iterable[Any]) -> int:
    """How many elements differ."""
    return sum(a != b for a, b in zip(ours, expected, strict=True))


def of_mask(mask_CP: Tensor, member: Callable[[int, int], bool]) -> int:
    """How many entries of a mask differ from `member(c, j)`."""
    return sum(
        different(row, (member(c, j) for j in range(len(row)))) for c, row in enumerate(mask_CP.tolist())
    )


# Sec. 3.1 and 3.2


def supervised(given: Input) -> float:
    scene = given.scene()
    logits = scene.logits[: len(scene.label)]
    expected = reference.cross_entropy(scenes.pixels(logits), scene.label.flatten().tolist(), IGNORE)
    return apart(cross_entropy.cross_entropy(logits, scene.label, IGNORE), [expected])


def entropies(given: Input) -> float:
    prob = given.scene().logits.softmax(dim=1)
    return apart(partition.entropy(prob), map(reference.entropy, scenes.pixels(prob)))


def predicted_entropies(given: Input) -> float:
    logits = given.scene().logits
    distributions = map(reference.softmax, scenes.pixels(logits))
    return apart(partition.predict(logits)[1], map(reference.entropy, distributions))


def predicted_labels(given: Input) -> int:
    logits = given.scene().logits
    label = partition.predict(logits).label
    return different(label.flatten().tolist(), map(reference.argmax, scenes.pixels(logits)))


def thresholds(given: Input) -> float:
    scene, alpha = given.scene(), given.one_of(ALPHAS[:-1])
    _, entropy, _ = partition.predict(scene.logits[len(scene.label) :])
    if not scene.valid.any():
        return 0.0
    expected = reference.gamma_t(entropy.flatten().tolist(), scene.valid.flatten().tolist(), alpha)
    return apart(partition.gamma_t(entropy, scene.valid, alpha), [expected])


def pseudo_labels(given: Input) -> int:
    scene, alpha = given.scene(), given.one_of(ALPHAS[:-1])
    logits, valid = scene.logits[len(scene.label) :], scene.valid
    if not valid.any():
        return 0
    guess, entropy, _ = partition.predict(logits)
    gamma = partition.gamma_t(entropy, valid, alpha)
    label = partition.pseudo_label(guess.where(valid, IGNORE), entropy, gamma, IGNORE)
    distributions = [reference.softmax(s) for s in scenes.pixels(logits)]
    exact = [reference.entropy(p) for p in distributions]
    threshold = reference.gamma_t(exact, valid.flatten().tolist(), alpha)
    return sum(
        got != (reference.pseudo_label(p, h, threshold, IGNORE) if counts else IGNORE)
        for got, p, h, counts in zip(
            label.flatten().tolist(), distributions, exact, valid.flatten().tolist(), strict=True
        )
        if not counts or abs(h - threshold) > NEAR[given.dtype]
    )


def schedule(given: Input) -> float:
    epoch, alpha0 = given.k % 80, given.one_of((0.0, 0.1, 0.2, 1.0))
    return apart([partition.alpha_t(alpha0, epoch, 80)], [reference.alpha_t(alpha0, epoch, 80)])


def weights(given: Input) -> float:
    scene = given.scene()
    label = torch.where(scene.valid, scene.label, IGNORE)
    if (label == IGNORE).all():
        return 0.0
    expected = reference.lambda_u(label.flatten().tolist(), scene.valid.flatten().tolist(), 1.5, IGNORE)
    torch.set_default_dtype(given.dtype)  # that of a quotient of two counts
    try:
        return apart(cross_entropy.lambda_u(label, scene.valid, 1.5, IGNORE), [expected])
    finally:
        torch.set_default_dtype(torch.float32)


# Sec. 3.3: sets


def ranks(given: Input) -> int:
    prob = given.scene().prob_CP
    places = zip(*map(reference.order, prob.T.tolist()), strict=True)
    return different(contrastive.ranks(prob).flatten().tolist(), (place for row in places for place in row))


def anchors(given: Input) -> int:
    scene, delta_p = given.scene(), given.one_of((0.3, 0.0, 0.9))
    label, prob = scene.plain_label_P, scene.prob_CP
    sets = [
        reference.all_anchors(label.tolist(), prob.T.tolist(), scene.labeled_P.tolist(), delta_p, c)
        for c in range(scene.classes)
    ]
    return of_mask(contrastive.anchor_mask(label, prob, delta_p), lambda c, j: j in sets[c])


def centers(given: Input) -> float:
    scene = given.scene()
    z, label, prob = algorithm.rows(scene.teacher), scene.plain_label_P, scene.prob_CP
    center_CD, present_C = contrastive.centers(z, contrastive.anchor_mask(label, prob, 0.3))
    worst = 0.0
    for c in range(scene.classes):
        arguments = label.tolist(), prob.T.tolist(), scene.labeled_P.tolist(), 0.3, c
        members = reference.all_anchors(*arguments)
        expected = reference.center(z.tolist(), members) if members else [0.0] * z.shape[1]
        worst = max(worst, apart(center_CD[c], expected), float(bool(present_C[c]) != bool(members)))
    return worst


def labeled_negatives(given: Input) -> int:
    scene, (r_l, _) = given.scene(), given.one_of(RANKS)
    label, prob = scene.plain_label_P, scene.prob_CP
    mask = contrastive.labeled_negative_mask(label, contrastive.ranks(prob), r_l)
    labels, distributions = label.tolist(), prob.T.tolist()
    return of_mask(mask, lambda c, j: reference.labeled_negative(labels[j], distributions[j], r_l, c))


def unlabeled_negatives(given: Input) -> int:
    scene, r = given.scene(), given.one_of(RANKS)
    prob = scene.prob_CP
    generator = torch.Generator().manual_seed(given.k)
    unreliable = torch.rand(prob.shape[1], generator=generator) < given.one_of((0.5, 0.0, 1.0))
    mask = contrastive.unlabeled_negative_mask(unreliable, contrastive.ranks(prob), *r)
    high, distributions = unreliable.tolist(), prob.T.tolist()
    return of_mask(mask, lambda c, j: reference.unlabeled_negative(high[j], distributions[j], *r, c))


def both_negatives(given: Input) -> int:
    scene, r = given.scene(), given.one_of(RANKS)
    label, prob, labeled = scene.plain_label_P, scene.prob_CP, scene.labeled_P
    generator = torch.Generator().manual_seed(given.k)
    unreliable = torch.rand(prob.shape[1], generator=generator) < 0.5
    rank = contrastive.ranks(prob)
    mask = torch.where(
        labeled,
        contrastive.labeled_negative_mask(label, rank, r[0]),
        contrastive.unlabeled_negative_mask(unreliable, rank, *r),
    )
    lists = label.tolist(), prob.T.tolist(), labeled.tolist(), unreliable.tolist()
    sets = [set(reference.negatives(*lists, *r, c)) for c in range(scene.classes)]
    return of_mask(mask, lambda c, j: j in sets[c])


# Eqs. 4 and A1


class Contrast(NamedTuple):
    """One of the two losses, and its reference."""

    ours: Callable[..., Tensor]
    compare: Callable[..., float]
    gradient: Callable[..., list[float]]

    def given(self, given: Input) -> tuple[tuple[Tensor, ...], list[bool], float]:
        """Arguments but for the temperature, classes in use, and the temperature."""
        classes, M, N, D, K = *map(given.one_of, ((2, 3, 5), (1, 4), (1, 3, 20))), 8, 9
        generator = torch.Generator().manual_seed(given.k)

        def randn(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64).to(given.dtype)

        anchor, positive, table = randn(classes, M, D), randn(classes, D), randn(K, D)
        if given.one_of((True, False)):  # what an absent class and an empty ring look like
            positive[0], table[::2] = 0, 0
        index = torch.randint(K, (classes, M, N), generator=generator)
        use = (torch.rand(classes, generator=generator) < 0.8).tolist()
        return (anchor, positive, table, index), use, given.one_of(TEMPERATURES)

    def value(self, given: Input) -> float:
        """How far the loss is off."""
        arguments, use, tau = self.given(given)
        anchor, positive, table, index = arguments
        loss = contrastive.mean_over_classes(self.ours(*arguments, tau), torch.tensor(use), len(use))
        wrong = table[index].tolist()
        expected = reference.contrast(self.compare, anchor.tolist(), positive.tolist(), wrong, use, tau)
        return apart(loss, [expected])

    def slope(self, given: Input) -> float:
        """How far its gradient is off."""
        (anchor, positive, table, index), use, tau = self.given(given)
        anchor.requires_grad_()
        loss_C = self.ours(anchor, positive, table, index, tau)
        contrastive.mean_over_classes(loss_C, torch.tensor(use), len(use)).backward()
        count = index.shape[0] * index.shape[1]
        expected = (
            used * x / count
            for used, zs, right, wrongs in zip(
                use, anchor.tolist(), positive.tolist(), table[index].tolist(), strict=True
            )
            for z, wrong in zip(zs, wrongs, strict=True)
            for x in self.gradient(z, right, wrong, tau)
        )
        assert anchor.grad is not None
        return apart(anchor.grad, expected)


JOINT = Contrast(contrastive.info_nce, reference.joint, reference.joint_gradient)
PAIRWISE = Contrast(contrastive.binary, reference.pairwise, reference.pairwise_gradient)


# Algorithm 1


def steps(given: Input) -> float:
    """L_c of three steps, the first with an empty bank."""
    r, alpha, draws = given.one_of(RANKS), given.one_of(ALPHAS), given.one_of(((2, 5), (40, 3), (1, 60)))
    hyper = reference.Hyper(0.3, *r, tau=0.5)
    capacities = [(1, 4, 50)[given.k % 3] + c for c in range(given.scene().classes)]
    bank = MemoryBank(capacities, 4).to(given.dtype)
    queues = [deque(maxlen=capacity) for capacity in capacities]
    generator = torch.Generator().manual_seed(given.k)
    worst = 0.0
    for part in range(3):
        scene = given.scene(part)
        loss, taken = algorithm.step(scene, bank, hyper, alpha, *draws, generator)
        expected = algorithm.expected(scene, taken, bank, queues, hyper, reference.joint)
        worst = max(worst, apart(loss, [expected]))
    return worst


def queued(given: Input) -> int:
    """Rows of the bank that differ after six pushes, also as devices do it whose counts are not read."""
    capacities = [1 + (given.k + c) % 6 for c in range(3)]
    known, unread = (MemoryBank(capacities, 1).to(given.dtype) for _ in range(2))
    unread._places = lambda total_C, pixels: [min(pixels, capacity) for capacity in capacities]  # type: ignore[method-assign]
    queues = [deque(maxlen=capacity) for capacity in capacities]
    generator = torch.Generator().manual_seed(given.k)
    for push in range(6):
        count = 1 + (given.k + push) % 13
        z = torch.randn(count, 1, generator=generator, dtype=torch.float64).to(given.dtype)
        mask = torch.rand(3, count, generator=generator) < (0.3, 0.0, 1.0)[push % 3]
        for c, j in mask.nonzero().tolist():
            queues[c].append(z[j].item())
        known.push(z, mask)
        unread.push(z, mask)
    wrong = 0
    for bank in (known, unread):
        filled, pushed = bank.filled_C.tolist(), bank.pushed_C.tolist()
        for c, queue in enumerate(queues):
            wrong += filled[c] != len(queue)
            rows = [
                int(bank.offset_C[c]) + k % capacities[c] for k in range(pushed[c] - filled[c], pushed[c])
            ]
            wrong += different(bank.storage[bank.row[rows]].flatten().tolist(), queue)
    return wrong


MEASURES: list[tuple[str, str, Callable[[Input], float]]] = [
    ("2, 3", "cross-entropy (of up to 10,000)", supervised),
    ("4", "InfoNCE, tau 0.01 to 10", JOINT.value),
    ("4", "its gradient", JOINT.slope),
    ("5", "entropy of probabilities", entropies),
    ("5", "entropy from logits", predicted_entropies),
    ("6", "argmax: pixels", predicted_labels),
    ("6", "gamma_t", thresholds),
    ("6", "pseudo-label: pixels", pseudo_labels),
    ("7", "alpha_t", schedule),
    ("8", "lambda_u", weights),
    ("9, 10, 11", "anchors: members", anchors),
    ("12", "class centre", centers),
    ("14, 15", "ranks O: pixels", ranks),
    ("14", "labelled negatives: members", labeled_negatives),
    ("15", "unlabelled negatives: members", unlabeled_negatives),
    ("13, 16", "all negatives: members", both_negatives),
    ("A1", "binary loss, tau 0.01 to 10", PAIRWISE.value),
    ("A1", "its gradient", PAIRWISE.slope),
    ("Alg. 1", "memory bank: rows", queued),
    ("Alg. 1", "L_c of three steps", steps),
]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--inputs", type=int, default=480, help="of each equation (default: 480)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    title = f"Largest deviation from the references over {options.inputs} inputs, torch {torch.__version__}"
    table = Table(title=title, title_justify="left")
    table.add_column("Eq.")
    table.add_column("what")
    table.add_column("float64", justify="right")
    table.add_column("float32", justify="right")
    for equation, what, measure in MEASURES:
        worst = [
            max(measure(Input(k, dtype)) for k in range(options.inputs))
            for dtype in (torch.float64, torch.float32)
        ]
        table.add_row(equation, what, *(str(x) if isinstance(x, int) else f"{x:.1e}" for x in worst))
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
