"""The paper's equations in plain Python, one pixel at a time, in double precision.

Written from the text of the paper, not from `u2pl.losses`. A pixel is an index j, `prob[j][c]` its class
distribution, `label[j]` its class.
"""

import math
from collections.abc import Sequence

Vector = Sequence[float]


def cross_entropy(logits: Sequence[Vector], label: Sequence[int], ignore: int) -> float:
    """Mean of -log softmax(logits)[label] over the pixels that have a label (Eqs. 2, 3)."""
    losses = []
    for scores, y in zip(logits, label, strict=True):
        if y != ignore:
            top = max(scores)
            losses.append(top + math.log(sum(math.exp(s - top) for s in scores)) - scores[y])
    return math.fsum(losses) / len(losses) if losses else 0.0


def entropy(p: Vector) -> float:
    """H(p) in nats (Eq. 5)."""
    return -math.fsum(q * math.log(q) for q in p if q > 0)


def pseudo_label(p: Vector, gamma: float, ignore: int) -> int:
    """Eq. 6."""
    return max(range(len(p)), key=lambda c: p[c]) if entropy(p) < gamma else ignore


def alpha_t(alpha0: float, t: int, total: int) -> float:
    """Eq. 7."""
    return alpha0 * (1 - t / total)


def lambda_u(label: Sequence[int], eta: float, ignore: int) -> float:
    """Eq. 8."""
    return eta * len(label) / sum(y != ignore for y in label)


def order(p: Vector) -> list[int]:
    """O(c) for every class: 0 for the likeliest, C - 1 for the unlikeliest; ties to the smaller class."""
    ranking = sorted(range(len(p)), key=lambda c: (-p[c], c))
    return [ranking.index(c) for c in range(len(p))]


def anchors(label: Sequence[int], prob: Sequence[Vector], delta_p: float, c: int) -> list[int]:
    """A_c (Eqs. 9 to 11)."""
    return [j for j, y in enumerate(label) if y == c and prob[j][c] > delta_p]


def center(z: Sequence[Vector], chosen: list[int]) -> list[float]:
    """z_c^+ (Eq. 12)."""
    return [math.fsum(z[j][d] for j in chosen) / len(chosen) for d in range(len(z[0]))]


def labeled_negatives(label: Sequence[int], prob: Sequence[Vector], r_l: int, c: int) -> list[int]:
    """Pixels with n^l(c) = 1 (Eq. 14); pixels without a label are left out."""
    known = range(len(prob[0]))
    return [j for j, y in enumerate(label) if y in known and y != c and 0 <= order(prob[j])[c] < r_l]


def unlabeled_negatives(
    high: Sequence[bool], prob: Sequence[Vector], r_l: int, r_h: int, c: int
) -> list[int]:
    """Pixels with n^u(c) = 1 (Eq. 15); `high` says whose entropy exceeds gamma_t."""
    return [j for j, unreliable in enumerate(high) if unreliable and r_l <= order(prob[j])[c] < r_h]


def cosine(a: Vector, b: Vector) -> float:
    """<a, b>; 0 where one of them is 0."""
    length = math.sqrt(math.fsum(x * x for x in a)) * math.sqrt(math.fsum(x * x for x in b))
    return math.fsum(x * y for x, y in zip(a, b, strict=True)) / length if length else 0.0


def info_nce(
    anchor: Sequence[Sequence[Vector]],
    positive: Sequence[Vector],
    negative: Sequence[Sequence[Sequence[Vector]]],
    use: Sequence[bool],
    tau: float,
) -> float:
    """L_c (Eq. 4): anchor[c][i], positive[c], negative[c][i][j]; classes not in use add 0."""
    total = 0.0
    for c, used in enumerate(use):
        for i, z in enumerate(anchor[c]):
            if used:
                right = math.exp(cosine(z, positive[c]) / tau)
                wrong = math.fsum(math.exp(cosine(z, n) / tau) for n in negative[c][i])
                total -= math.log(right / (right + wrong))
    return total / (len(anchor) * len(anchor[0]))
