"""One step's pixels given by hand, so that a test can say in advance what the contrastive loss makes of them."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from methods.tiny_method import CLASSES, as_images, at, build, spy
from torch import Tensor
from torch.nn import functional

from u2pl.losses import contrastive
from u2pl.methods import Method
from u2pl.methods.student_teacher import PartitionTargets, Unlabeled
from u2pl.methods.u2pl import U2PL
from u2pl.models.deeplab import Output, rows
from u2pl.steps.forward import Forward
from u2pl.steps.micro_batch import MicroBatch

IGNORE = CLASSES.ignore_index
POINTS, SIZE = 4, 16
"""Points of the heads along a side, and pixels."""

ALPHA = 0.22
"""Share of unreliable pixels. Of 16 entropies 0 to 15, each in as many pixels, exactly 12 is then the value below
which a share of 1 - ALPHA lies, and exactly 3 the one below which ALPHA does."""
HIGH, LOW = 12, 3


@dataclass(frozen=True)
class Point:
    """A point of the heads' maps and what is known there."""

    number: int
    """Labelled images first, row by row."""
    group: int
    labeled: bool
    label: int
    """True label of a labelled pixel; of an unlabelled one the teacher's likeliest class, however reliable."""
    entropy: float
    """-1 for a labelled pixel."""
    valid: bool
    prob: tuple[float, ...]
    teacher: tuple[float, ...]
    student: tuple[float, ...]

    def rank(self, c: int) -> int:
        """O(c): how many classes are likelier."""
        return sum(p > self.prob[c] for p in self.prob)


class World:
    """A step's batch, pseudo-labels and outputs.

    The teacher's view is random: nothing forces its likeliest class to be the pseudo-label, as where that comes from
    another pass.

    Args:
        labels: of the labelled images, (B, SIZE, SIZE) int64.
        pseudo: the teacher's labels of the unlabelled ones.
        entropy: theirs; by default 0 to 15 in each image, one value a point.
        valid: False on padding.
    """

    def __init__(
        self,
        labels: Tensor,
        pseudo: Tensor,
        *,
        entropy: Tensor | None = None,
        valid: Tensor | None = None,
        groups: int = 1,
        seed: int = 0,
    ):
        images, self.groups = len(labels), groups
        generator = torch.Generator().manual_seed(seed)
        self.entropy = shuffled(images, generator) if entropy is None else entropy
        self.valid = torch.ones_like(pseudo, dtype=torch.bool) if valid is None else valid
        self.labels, self.pseudo = labels, pseudo.where(self.valid, IGNORE)
        shape = (2 * images, 8, POINTS, POINTS)
        self.teacher = Output(
            2 * torch.randn(2 * images, CLASSES.count, POINTS, POINTS, generator=generator),
            torch.randn(shape, generator=generator),
        )
        self.representation = torch.randn(shape, generator=generator).requires_grad_()

    def threshold(self, group: int, share: float) -> float:
        """The entropy below which a share of a group's pixels lies."""
        valid, entropy = (maps.chunk(self.groups)[group] for maps in (self.valid, self.entropy))
        return float(np.percentile(entropy[valid].double().numpy(), 100 * share))

    def targets(self, method: Method) -> PartitionTargets:
        """What the contrastive loss of a method is given."""
        images = len(self.labels)
        gamma = [self.threshold(group, 1 - ALPHA) for group in range(self.groups)]
        gamma_B11 = torch.tensor(gamma).repeat_interleave(images // self.groups)[:, None, None]
        picture = torch.zeros(images, 3, SIZE, SIZE)
        truth = torch.full_like(self.pseudo, IGNORE)
        return PartitionTargets(
            forwards=(Forward(method.student, (picture, picture)),),
            label=method.labels(self.labels),
            labeled=as_images(picture, self.labels),
            unlabeled=Unlabeled(picture, self.pseudo, self.entropy, self.valid, truth),
            pseudo_label=self.pseudo.where(self.entropy < gamma_B11, IGNORE),
            alpha_t=ALPHA,
            gamma_t=gamma_B11,
            usable=self.valid,
            teacher=self.teacher,
        )

    def student(self, pixels: Tensor) -> Output:
        """What the student says of all images, and of these pixels' representations."""
        return Output(torch.zeros_like(self.teacher.logits), rows(self.representation)[pixels])

    def whole(self) -> MicroBatch:
        """All images in one micro-batch."""
        images = len(self.labels)
        return MicroBatch(0, images, slice(0, images), True, images)

    def points(
        self, pixel: Callable[[int], int] = lambda k: round(k * (SIZE - 1) / (POINTS - 1))
    ) -> list[Point]:
        """All points; `pixel` says which row or column of pixels the k-th row or column of points takes."""
        assert self.teacher.representation is not None
        prob = self.teacher.logits.double().softmax(1)
        images = len(self.labels)
        found = []
        for b, y, x in itertools.product(range(2 * images), range(POINTS), range(POINTS)):
            labeled, image, place = b < images, b % images, (pixel(y), pixel(x))
            found.append(
                Point(
                    number=len(found),
                    group=image * self.groups // images,
                    labeled=labeled,
                    label=int((self.labels if labeled else self.pseudo)[image, *place]),
                    entropy=-1.0 if labeled else float(self.entropy[image, *place]),
                    valid=labeled or bool(self.valid[image, *place]),
                    prob=tuple(prob[b, :, y, x].tolist()),
                    teacher=tuple(self.teacher.representation[b, :, y, x].tolist()),
                    student=tuple(self.representation[b, :, y, x].tolist()),
                )
            )
        return found


def blocks(values: Tensor) -> Tensor:
    """(B, POINTS, POINTS) as pixels, one block a point, so that it does not matter which pixel a point takes."""
    return values.repeat_interleave(SIZE // POINTS, 1).repeat_interleave(SIZE // POINTS, 2)


def shuffled(images: int, generator: torch.Generator) -> Tensor:
    """Entropies: 0 to 15 in each image, in any order."""
    orders = [torch.randperm(POINTS**2, generator=generator) for _ in range(images)]
    return blocks(torch.stack(orders).view(images, POINTS, POINTS).float())


def random_labels(*known: int, images: int = 1, seed: int = 0) -> Tensor:
    """Blocks of these labels in any order, each of them present in every image."""
    generator = torch.Generator().manual_seed(seed)
    number = torch.stack([torch.randperm(POINTS**2, generator=generator) for _ in range(images)])
    return blocks(torch.tensor(known)[number % len(known)].view(images, POINTS, POINTS))


def contrasting(**overrides: object) -> U2PL:
    """U²PL that draws so often that every candidate is drawn."""
    many = {"M": 1000, "N": 4, "queue": 500, "queue_background": 500}
    method = build("u2pl", **{**many, **overrides})
    assert isinstance(method, U2PL)
    return method


@dataclass(frozen=True)
class Drawn:
    """What the loss of one group was computed from."""

    anchors: list[set[int]]
    """Of each class in use, the points whose student representation was drawn."""
    met: list[set[int]]
    """Of each class in use, the points whose teacher representation its anchors met; -1: not of this step."""
    centers: Tensor
    """(C, D)."""
    used: set[int]
    """Classes that add to the loss."""
    anchor_CMD: Tensor
    negative_CMND: Tensor

    def info_nce(self, c: int, tau: float = 0.5) -> float:
        """The term of class c in the sum of Eq. 4."""
        right_M, wrong_MN = self._similarities(c)
        total_M = (right_M / tau).exp() + (wrong_MN / tau).exp().sum(1)
        return float(-((right_M / tau).exp() / total_M).log().mean())

    def binary(self, c: int, tau: float = 0.5) -> float:
        """The term of class c in the sum of Eq. A1."""
        right_M, wrong_MN = self._similarities(c)
        right_M1, wrong_MN = (right_M / tau).exp()[:, None], (wrong_MN / tau).exp()
        return float(-(right_M1 / (right_M1 + wrong_MN)).log().mean())

    def _similarities(self, c: int) -> tuple[Tensor, Tensor]:
        anchor_MD, negative_MND = self.anchor_CMD[c].double(), self.negative_CMND[c].double()
        right_M = functional.cosine_similarity(anchor_MD, self.centers[c].double()[None], dim=1)
        return right_M, functional.cosine_similarity(anchor_MD[:, None], negative_MND, dim=2)


@dataclass(frozen=True)
class Outcome:
    """What the method made of a world."""

    groups: list[Drawn]
    loss: float
    """Weighted with lambda_c."""
    moved: set[int]
    """Points whose student representation gets a gradient."""

    def __iter__(self) -> Iterator[Drawn]:
        return iter(self.groups)


def contrast(method: U2PL, world: World, monkeypatch: pytest.MonkeyPatch, loss: str = "info_nce") -> Outcome:
    """The contrastive part of one step in a world, drawn point by point."""
    world.representation.grad = None
    with monkeypatch.context() as patch:
        compared = spy(patch, contrastive, loss)
        averaged = spy(patch, contrastive, "mean_over_classes")
        targets = method.contrast.added(world.targets(method), at(5))
        asked = targets.forwards[0].options["represent"].of(world.whole())
        result = method.contrast.losses(world.student(asked), targets.of(world.whole()))["contrastive"]
    result.backward()
    assert world.representation.grad is not None
    gradient = world.representation.grad.abs().sum(1).flatten()
    by_student = {point.student: point.number for point in world.points()}
    by_teacher = {point.teacher: point.number for point in world.points()}

    def drawn(call: tuple, use_C: Tensor) -> Drawn:
        anchor_CMD, center_CD, table_KD, index_CMN, *_ = call
        negative_CMND, used = table_KD[index_CMN].clone(), set(use_C.nonzero().flatten().tolist())

        def numbers(rows_KD: Tensor, by_row: dict[tuple[float, ...], int]) -> set[int]:
            return {by_row.get(tuple(row), -1) for row in rows_KD.detach().unique(dim=0).tolist()}

        return Drawn(
            anchors=[numbers(a, by_student) if c in used else set() for c, a in enumerate(anchor_CMD)],
            met=[
                numbers(n.flatten(0, 1), by_teacher) if c in used else set()
                for c, n in enumerate(negative_CMND)
            ],
            centers=center_CD,
            used=used,
            anchor_CMD=anchor_CMD.detach(),
            negative_CMND=negative_CMND,
        )

    return Outcome(
        groups=[drawn(call, used) for call, (_, used, _) in zip(compared, averaged, strict=True)],
        loss=result.item(),
        moved=set(gradient.nonzero().flatten().tolist()),
    )


# ---- the paper's sets ----------------------------------------------------------------------------------------------


def anchors(points: list[Point], c: int, delta_p: float = 0.3) -> set[int]:
    """A_c (Eqs. 9 to 11)."""
    return {p.number for p in points if p.label == c and p.entropy < HIGH and p.prob[c] > delta_p}


def labeled_negatives(points: list[Point], c: int, r_l: int = 1) -> set[int]:
    """Eq. 14."""
    return {p.number for p in points if p.labeled and p.label not in (c, IGNORE) and p.rank(c) < r_l}


def unlabeled_negatives(points: list[Point], c: int, r_l: int = 1, r_h: int = 20) -> set[int]:
    """Eq. 15."""
    return {p.number for p in points if not p.labeled and p.entropy > HIGH and r_l <= p.rank(c) < r_h}


def negatives(points: list[Point], c: int, r_l: int = 1) -> set[int]:
    """Eqs. 13 and 16."""
    return labeled_negatives(points, c, r_l) | unlabeled_negatives(points, c, r_l)


def mean(points: list[Point], chosen: set[int]) -> list[float]:
    """Mean of the teacher's representations (Eq. 12)."""
    return np.mean([p.teacher for p in points if p.number in chosen], axis=0).tolist()
