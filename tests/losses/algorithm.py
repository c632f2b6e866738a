"""One step of Algorithm 1, put together from `u2pl.losses` as a method does it, beside the reference's."""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import torch
from losses import reference, scenes
from losses.reference import Hyper
from losses.scenes import IGNORE, Scene
from torch import Tensor

from u2pl.losses import contrastive, partition
from u2pl.losses.memory_bank import MemoryBank


class Taken(NamedTuple):
    """What a step decided and drew."""

    label_P: Tensor
    unreliable_P: Tensor
    anchor_CM: Tensor
    index_CMN: Tensor
    use_C: Tensor


def rows(map_BDHW: Tensor) -> Tensor:
    return map_BDHW.permute(0, 2, 3, 1).flatten(0, 2)


def step(
    scene: Scene,
    bank: MemoryBank,
    hyper: Hyper,
    alpha: float | None,
    M: int,
    N: int,
    generator: torch.Generator,
    loss: Callable[..., Tensor] = contrastive.info_nce,
) -> tuple[Tensor, Taken]:
    """L_c; with alpha None every pixel is reliable."""
    guess, entropy, _ = partition.predict(scene.logits[len(scene.label) :])
    gamma = torch.tensor(torch.inf) if alpha is None else partition.gamma_t(entropy, scene.valid, alpha)
    pseudo = partition.pseudo_label(guess.where(scene.valid, IGNORE), entropy, gamma, IGNORE)
    label_P = torch.cat([scene.label, pseudo]).flatten()
    unreliable = scene.valid & (entropy > gamma)
    unreliable_P = torch.cat([torch.zeros_like(unreliable), unreliable]).flatten()

    prob_CP, teacher_PD = scene.prob_CP, rows(scene.teacher)
    rank_CP = contrastive.coarse_ranks(prob_CP, hyper.r_l, hyper.r_h)
    anchor_CP = contrastive.anchor_mask(label_P, prob_CP, hyper.delta_p)
    negative_CP = torch.where(
        scene.labeled_P,
        contrastive.labeled_negative_mask(label_P, rank_CP, hyper.r_l),
        contrastive.unlabeled_negative_mask(unreliable_P, rank_CP, hyper.r_l, hyper.r_h),
    )
    bank.push(teacher_PD, negative_CP)
    positive_CD, present_C = contrastive.centers(teacher_PD, anchor_CP)
    anchor_CM = contrastive.sample(anchor_CP, M, generator)
    index_CMN = bank.sample(M, N, generator)
    use_C = present_C & (bank.filled_C > 0)
    drawn = bank.storage, index_CMN, hyper.tau
    loss_C = loss(rows(scene.student)[anchor_CM], positive_CD, *drawn, length_K=bank.length)
    taken = Taken(label_P, unreliable_P, anchor_CM, index_CMN, use_C)
    return contrastive.mean_over_classes(loss_C, use_C, scene.classes), taken


def places(bank: MemoryBank, index_CMN: Tensor) -> list[list[list[int]]]:
    """Drawn rows of the bank as places in the queues, 0 for the oldest."""
    oldest_C = bank.pushed_C - bank.filled_C
    rings = bank.row[:-1].split(bank.capacity_C.tolist())
    found = [
        (ring == rows_MN[..., None]).int().argmax(2) for ring, rows_MN in zip(rings, index_CMN, strict=True)
    ]
    return ((torch.stack(found) - oldest_C[:, None, None]) % bank.capacity_C[:, None, None]).tolist()


def expected(
    scene: Scene,
    taken: Taken,
    bank: MemoryBank,
    queues: list[deque],
    hyper: Hyper,
    compare: reference.Compare,
) -> float:
    """The reference's L_c for the same draws; its own queues get its own negatives."""
    return reference.algorithm_1(
        taken.label_P.tolist(),
        scene.prob_CP.T.tolist(),
        scene.labeled_P.tolist(),
        taken.unreliable_P.tolist(),
        scenes.pixels(scene.teacher),
        scenes.pixels(scene.student),
        queues,
        taken.anchor_CM.tolist(),
        places(bank, taken.index_CMN),
        hyper,
        compare,
    )
