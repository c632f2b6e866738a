"""The paper's equations in plain Python, one pixel at a time, in double precision.

Written from the text of the paper, not from `u2pl.losses`. A pixel is an index j, `prob[j][c]` its class
distribution, `label[j]` its class, `z[j]` its representation.
"""

import math
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

Vector = Sequence[float]


def softmax(logits: Vector) -> list[float]:
    """p, as the segmentation head's scores give it."""
    top = max(logits)
    weights = [math.exp(s - top) for s in logits]
    total = math.fsum(weights)
    return [w / total for w in weights]


def argmax(p: Vector) -> int:
    """The likeliest class; of several the smallest."""
    return max(range(len(p)), key=lambda c: p[c])


def cross_entropy(logits: Sequence[Vector], label: Sequence[int], ignore: int) -> float:
    """Mean of -log softmax(logits)[label] over the pixels that have a label (Eqs. 2, 3)."""
    losses = []
    for scores, y in zip(logits, label, strict=True):
        if y != ignore:
            top = max(scores)
            losses.append(top + math.log(math.fsum(math.exp(s - top) for s in scores)) - scores[y])
    return math.fsum(losses) / len(losses) if losses else 0.0


def entropy(p: Vector) -> float:
    """H(p) in nats (Eq. 5)."""
    return -math.fsum(q * math.log(q) for q in p if q > 0)


def percentile(values: Vector, share: float) -> float:
    """What the text below Eq. 6 asks of np.percentile: on the straight line between the two neighbours in order."""
    ordered = sorted(values)
    position = (len(ordered) - 1) * share
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def gamma_t(entropies: Vector, valid: Sequence[bool], alpha: float) -> float:
    """The threshold of Eq. 6, over the pixels that are no padding."""
    return percentile([h for h, counts in zip(entropies, valid, strict=True) if counts], 1 - alpha)


def pseudo_label(p: Vector, h: float, gamma: float, ignore: int) -> int:
    """Eq. 6 for a pixel with entropy h."""
    return argmax(p) if h < gamma else ignore


def alpha_t(alpha0: float, t: int, total: int) -> float:
    """Eq. 7."""
    return alpha0 * (1 - t / total)


def lambda_u(label: Sequence[int], valid: Sequence[bool], eta: float, ignore: int) -> float:
    """Eq. 8; padding is no pixel of the batch."""
    return eta * sum(valid) / sum(y != ignore for y in label)


def order(p: Vector) -> list[int]:
    """O(c) for every class: 0 for the likeliest, C - 1 for the unlikeliest; ties to the smaller class."""
    place = [0] * len(p)
    for k, c in enumerate(sorted(range(len(p)), key=lambda c: (-p[c], c))):
        place[c] = k
    return place


def anchors(
    label: Sequence[int], prob: Sequence[Vector], pixels: Collection[int], delta_p: float, c: int
) -> set[int]:
    """A_c^l for the labelled images' pixels and their labels (Eq. 9), A_c^u for the others and Eq. 6's (Eq. 10)."""
    return {j for j in pixels if label[j] == c and prob[j][c] > delta_p}


def all_anchors(
    label: Sequence[int], prob: Sequence[Vector], labeled: Sequence[bool], delta_p: float, c: int
) -> set[int]:
    """A_c (Eq. 11)."""
    on_labeled = {j for j, known in enumerate(labeled) if known}
    on_unlabeled = set(range(len(labeled))) - on_labeled
    return anchors(label, prob, on_labeled, delta_p, c) | anchors(label, prob, on_unlabeled, delta_p, c)


def center(z: Sequence[Vector], chosen: Collection[int]) -> list[float]:
    """z_c^+ (Eq. 12)."""
    return [math.fsum(z[j][d] for j in chosen) / len(chosen) for d in range(len(z[0]))]


def labeled_negative(y: int, p: Vector, r_l: int, c: int) -> bool:
    """n^l(c) (Eq. 14); a pixel without a label is left out."""
    return 0 <= y < len(p) and y != c and 0 <= order(p)[c] < r_l


def unlabeled_negative(unreliable: bool, p: Vector, r_l: int, r_h: int, c: int) -> bool:
    """n^u(c) (Eq. 15); unreliable is a pixel whose entropy exceeds gamma_t."""
    return unreliable and r_l <= order(p)[c] < r_h


def negatives(
    label: Sequence[int],
    prob: Sequence[Vector],
    labeled: Sequence[bool],
    unreliable: Sequence[bool],
    r_l: int,
    r_h: int,
    c: int,
) -> list[int]:
    """N_c in the pixels' order (Eqs. 13 and 16)."""
    return [
        j
        for j, known in enumerate(labeled)
        if (
            labeled_negative(label[j], prob[j], r_l, c)
            if known
            else unlabeled_negative(unreliable[j], prob[j], r_l, r_h, c)
        )
    ]


def length(a: Vector) -> float:
    """|a|."""
    return math.sqrt(math.fsum(x * x for x in a))


def cosine(a: Vector, b: Vector) -> float:
    """<a, b>; 0 where one of them is 0."""
    lengths = length(a) * length(b)
    return math.fsum(x * y for x, y in zip(a, b, strict=True)) / lengths if lengths else 0.0


def joint(z: Vector, positive: Vector, negative: Sequence[Vector], tau: float) -> float:
    """-log [ ... ] of Eq. 4, for one anchor."""
    right = math.exp(cosine(z, positive) / tau)
    wrong = math.fsum(math.exp(cosine(z, n) / tau) for n in negative)
    return -math.log(right / (right + wrong))


def pairwise(z: Vector, positive: Vector, negative: Sequence[Vector], tau: float) -> float:
    """-1/N sum_j log [ ... ] of Eq. A1, for one anchor: each negative is one of Eq. 4's with no other beside it."""
    return math.fsum(joint(z, positive, [n], tau) for n in negative) / len(negative)


Compare = Callable[[Vector, Vector, Sequence[Vector], float], float]


def contrast(
    compare: Compare,
    anchor: Sequence[Sequence[Vector]],
    positive: Sequence[Vector],
    negative: Sequence[Sequence[Sequence[Vector]]],
    use: Sequence[bool],
    tau: float,
) -> float:
    """L_c (Eq. 4) with `joint`, L_b (Eq. A1) with `pairwise`: anchor[c][i], positive[c], negative[c][i][j].

    Classes that are not in use have no anchors or no negatives, so their sums are empty.
    """
    losses = [
        compare(z, positive[c], negative[c][i], tau)
        for c, used in enumerate(use)
        if used
        for i, z in enumerate(anchor[c])
    ]
    return math.fsum(losses) / (len(anchor) * len(anchor[0]))


def cosine_gradient(a: Vector, b: Vector) -> list[float]:
    """d<a, b>/da = (b/|b| - <a, b> a/|a|) / |a|; a is not 0."""
    similarity, size, other = cosine(a, b), length(a), length(b)
    return [((y / other if other else 0.0) - similarity * x / size) / size for x, y in zip(a, b, strict=True)]


def joint_gradient(z: Vector, positive: Vector, negative: Sequence[Vector], tau: float) -> list[float]:
    """Derivative of `joint` by the anchor: a softmax over 1 + N similarities, less 1 for the right one."""
    keys = [positive, *negative]
    weights = softmax([cosine(z, key) / tau for key in keys])
    weights[0] = -math.fsum(weights[1:])
    slopes = [cosine_gradient(z, key) for key in keys]
    return [math.fsum(w * s[d] for w, s in zip(weights, slopes, strict=True)) / tau for d in range(len(z))]


def pairwise_gradient(z: Vector, positive: Vector, negative: Sequence[Vector], tau: float) -> list[float]:
    """Derivative of `pairwise` by the anchor."""
    parts = [joint_gradient(z, positive, [n], tau) for n in negative]
    return [math.fsum(part[d] for part in parts) / len(parts) for d in range(len(z))]


class Hyper(NamedTuple):
    """Hyper-parameters of Algorithm 1."""

    delta_p: float
    r_l: int
    r_h: int
    tau: float


def algorithm_1(
    label: Sequence[int],
    prob: Sequence[Vector],
    labeled: Sequence[bool],
    unreliable: Sequence[bool],
    teacher: Sequence[Vector],
    student: Sequence[Vector],
    queues: Sequence[deque[Vector]],
    drawn_anchors: Sequence[Sequence[int]],
    drawn_negatives: Sequence[Sequence[Sequence[int]]],
    hyper: Hyper,
    compare: Compare = joint,
) -> float:
    """One step of Algorithm 1, its two loops turned: class by class over the pixels of the whole batch.

    Args:
        label: true labels of labelled images' pixels, pseudo-labels of the others' (Eq. 6).
        queues: Q_c, of limited length; the step's negatives are pushed.
        drawn_anchors: M pixels of each class.
        drawn_negatives: N places in the queue for each of them, 0 for the oldest.

    Returns:
        L_c; nothing is added for a class without an anchor or with an empty queue.
    """
    losses = []
    for c, queue in enumerate(queues):
        candidates = all_anchors(label, prob, labeled, hyper.delta_p, c)
        for j in negatives(label, prob, labeled, unreliable, hyper.r_l, hyper.r_h, c):
            queue.append(teacher[j])  # a full deque drops its oldest
        if not candidates or not queue:
            continue
        positive = center(teacher, candidates)
        for j, places in zip(drawn_anchors[c], drawn_negatives[c], strict=True):
            if j not in candidates:
                raise ValueError(f"pixel {j} is no anchor of class {c}")
            losses.append(compare(student[j], positive, [queue[k] for k in places], hyper.tau))
    return math.fsum(losses) / (len(queues) * len(drawn_anchors[0]))
