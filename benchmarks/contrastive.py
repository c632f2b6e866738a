"""One contrastive step, forward and backward (Sec. 3.3): ours beside the algorithm written down line by line.

A step begins with the teacher's logits and representations, the student's representations, labels and the
choice of unreliable pixels, and ends when the gradient of the student's representations is there; the bank
has got the step's negatives by then. Half of the images are labelled. All classes are present, the bank is
full. The other version loops over the classes, sorts each pixel's probabilities, keeps each class's queue in
a list, concatenates and cuts it in every step, gathers (M, 1 + N, D) keys, and leaves the gradient to autograd.

What is measured how: see benchmarks/measure.py.
"""

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import measure
import torch
from measure import Lap, Limit, Machine
from torch import Tensor
from torch.nn import functional

from u2pl.losses import contrastive
from u2pl.losses.memory_bank import MemoryBank
from u2pl.models.deeplab import rows

IGNORE = 255
DELTA_P, TAU, R_L, R_H = 0.3, 0.5, 3, 20
"""Of Table A1."""
ALPHA = 0.2
"""Share of the unlabelled pixels that are unreliable: the most that Eq. 7 gives."""
PUBLISHED = [(50, 256), (256, 50)]
"""(M, N) of the paper and of its released code."""


@dataclass
class Given:
    """What a step begins with; the maps lie in memory pixel after pixel, as the network leaves them."""

    logits: Tensor
    """(B, C, H, W), the teacher's; labelled images first."""
    teacher: Tensor
    """(B, D, H, W)."""
    student: Tensor
    """(B, D, H, W), wants a gradient."""
    label_P: Tensor
    """True labels, then pseudo-labels."""
    labeled_P: Tensor
    """Bool: pixels of labelled images."""
    unreliable_P: Tensor
    """Bool: pixels of unlabelled images on which the teacher's entropy is high."""

    def take_gradient(self) -> Tensor:
        """The student's gradient, which is not kept: a step allocates its own."""
        gradient, self.student.grad = self.student.grad, None
        assert gradient is not None
        return gradient


@dataclass
class Draws:
    """What a step drew: rows of the pixels (C, M), rows of the bank (C, M, N)."""

    anchor_CM: Tensor
    negative_CMN: Tensor


def ours(
    given: Given, bank: MemoryBank, M: int, N: int, generator: torch.Generator, lap: Lap
) -> tuple[Tensor, Draws, Tensor]:
    """L_c, as the method computes it, and its gradient at the anchors (C, M, D): no other pixel has any."""
    with torch.no_grad():
        anchor_CP, negative_CP = candidates(given)
        lap("softmax, ranks, masks")
        teacher_PD = rows(given.teacher)
        positive_CD, present_C = contrastive.centers(teacher_PD, anchor_CP)
        lap("centres")
        bank.push(teacher_PD, negative_CP)
        lap("push")
        draws = Draws(contrastive.sample(anchor_CP, M, generator), bank.sample(M, N, generator))
        lap("sampling")
    # The student's last convolution computes the anchors alone, see DeepLabV3Plus.forward.
    anchor_CMD = rows(given.student.detach())[draws.anchor_CM].requires_grad_()
    drawn = bank.storage, draws.negative_CMN, TAU
    loss_C = contrastive.info_nce(anchor_CMD, positive_CD, *drawn, length_K=bank.length)
    use_C = present_C & (bank.filled_C > 0)
    loss = contrastive.mean_over_classes(loss_C, use_C, len(use_C))
    lap("loss, forward")
    loss.backward()
    lap("backward")
    assert anchor_CMD.grad is not None
    return loss.detach(), draws, anchor_CMD.grad


def candidates(given: Given) -> tuple[Tensor, Tensor]:
    """Which pixels may be anchors, and which negatives, of which class, (C, P) bool."""
    found = []
    known = given.label_P, given.labeled_P, given.unreliable_P
    for logits_PC, label_P, labeled_P, unreliable_P in contrastive.parts(rows(given.logits), *known):
        prob_CP = logits_PC.t().contiguous().softmax(dim=0)
        rank_CP = contrastive.coarse_ranks(prob_CP, R_L, R_H)
        easy_CP = contrastive.labeled_negative_mask(label_P, rank_CP, R_L).logical_and_(labeled_P)
        unlikely_CP = contrastive.unlabeled_negative_mask(unreliable_P, rank_CP, R_L, R_H)
        found.append((contrastive.anchor_mask(label_P, prob_CP, DELTA_P), unlikely_CP.logical_or_(easy_CP)))
    anchor_CP, negative_CP = (torch.cat(masks, dim=1) for masks in zip(*found, strict=True))
    return anchor_CP, negative_CP


class Queues:
    """The bank as a list of tensors."""

    def __init__(self, capacities: Sequence[int], full: Sequence[Tensor]):
        self.capacities = capacities
        self.queues = list(full)

    def push(self, c: int, keys: Tensor) -> Tensor:
        """Class c's queue, with these at its end."""
        self.queues[c] = torch.cat([self.queues[c], keys])[-self.capacities[c] :]
        return self.queues[c]


def straightforward(
    given: Given,
    queues: Queues,
    M: int,
    N: int,
    generator: torch.Generator,
    drawn: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """L_c, class by class.

    Args:
        drawn: anchors (C, M) as pixels and negatives (C, M, N, D) to use instead of own draws.
    """
    with torch.no_grad():
        prob = rows(given.logits.softmax(dim=1))
        order = prob.argsort(dim=1, descending=True)
        teacher = rows(given.teacher)
        half = len(prob) // 2
        label = given.label_P[:half]
    student = rows(given.student)
    device = prob.device

    loss = torch.zeros((), device=device)
    classes = prob.shape[1]
    for c in range(classes):
        with torch.no_grad():
            on_labeled = (label != IGNORE) & (label != c) & (order[:half, :R_L] == c).any(dim=1)
            on_unlabeled = given.unreliable_P[half:] & (order[half:, R_L:R_H] == c).any(dim=1)
            queue = queues.push(c, teacher[torch.cat([on_labeled, on_unlabeled])])
            candidates = ((given.label_P == c) & (prob[:, c] > DELTA_P)).nonzero().flatten()
            if len(candidates) == 0 or len(queue) == 0:
                continue
            positive = teacher[candidates].mean(dim=0)
            if drawn is None:
                pixels = candidates[draw(len(candidates), (M,), generator)]
                negatives = queue[draw(len(queue), (M, N), generator)]
            else:
                pixels, negatives = drawn[0][c], drawn[1][c]
            keys = torch.cat([positive.expand(M, 1, -1), negatives], dim=1)
        anchors = student[pixels]
        similarity = functional.cosine_similarity(anchors[:, None], keys, dim=2) / TAU
        loss = loss + functional.cross_entropy(similarity, torch.zeros(M, dtype=torch.long, device=device))
    loss = loss / classes
    loss.backward()
    return loss.detach()


def draw(below: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Whole numbers below a bound, on the generator's device."""
    return torch.randint(below, shape, device=generator.device, generator=generator)


def make_given(images: int, size: int, classes: int, features: int, device: torch.device, seed: int) -> Given:
    """Patches of 8 x 8 pixels of a class each, seen by a teacher that is mostly right, sometimes in doubt."""
    generator = torch.Generator(device).manual_seed(seed)
    half, cells = images // 2, -(-size // 8)
    if images % 2 or half * cells**2 < classes:
        raise SystemExit(f"{images} images of {size} x {size} do not show {classes} classes in each half.")
    truth = draw(classes, (images, 1, cells, cells), generator)
    truth.view(2, -1)[:, :classes] = torch.arange(classes, device=device)  # each half shows all classes
    truth = truth.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)[..., :size, :size].contiguous()

    def randn(channels: int) -> Tensor:
        map_BCHW = torch.randn(images, channels, size, size, device=device, generator=generator)
        return map_BCHW.contiguous(memory_format=torch.channels_last)

    logits = randn(classes)
    sure = 8 * torch.rand(truth.shape, device=device, generator=generator)
    logits.scatter_add_(1, truth, sure)
    label = truth[:, 0].clone()
    unknown = torch.rand(label[:half].shape, device=device, generator=generator) < 0.05
    label[:half][unknown] = IGNORE

    on_unlabeled = logits[half:]
    entropy = torch.special.entr(on_unlabeled.softmax(dim=1)).sum(dim=1)
    high = entropy > entropy.flatten().kthvalue(int((1 - ALPHA) * entropy.numel())).values
    label[half:] = torch.where(high, IGNORE, on_unlabeled.argmax(dim=1))
    labeled = torch.zeros_like(label, dtype=torch.bool)
    labeled[:half] = True
    unreliable = torch.zeros_like(labeled)
    unreliable[half:] = high
    return Given(
        logits,
        randn(features),
        randn(features).requires_grad_(),
        label.flatten(),
        labeled.flatten(),
        unreliable.flatten(),
    )


def full_bank(capacities: Sequence[int], features: int, device: torch.device, seed: int) -> MemoryBank:
    """A bank whose classes are all full, of noise; each pixel is a negative of as many classes as an unreliable one."""
    bank = MemoryBank(capacities, features).to(device)
    generator = torch.Generator(device).manual_seed(seed)
    while bool((bank.filled_C < bank.capacity_C).any()):
        noise = torch.randn(10_000, features, device=device, generator=generator)
        chance = torch.rand(len(capacities), len(noise), device=device, generator=generator)
        bank.push(noise, chance < (R_H - R_L) / len(capacities))
    return bank


def in_order(bank: MemoryBank, capacities: Sequence[int]) -> list[Tensor]:
    """The rows of each class of a full bank, oldest first."""
    rings = bank.row[: sum(capacities)].split(list(capacities))
    return [
        bank.storage[ring.roll(-(pushed % len(ring)))]
        for ring, pushed in zip(rings, bank.pushed_C.tolist(), strict=True)
    ]


def check(
    given: Given, capacities: Sequence[int], M: int, N: int, device: torch.device, seed: int
) -> list[str]:
    """How far both versions' loss, gradient and bank are apart, for the same draws; and the losses for own ones."""
    generator = torch.Generator(device).manual_seed(seed)
    bank = full_bank(capacities, given.teacher.shape[1], device, seed)
    queues = Queues(capacities, in_order(bank, capacities))
    loss, draws, anchor_gradient = ours(given, bank, M, N, generator, measure.no_lap)
    gradient = torch.zeros_like(given.student)
    rows(gradient).index_add_(0, draws.anchor_CM.flatten(), anchor_gradient.flatten(0, 1))
    drawn = draws.anchor_CM, bank.storage[draws.negative_CMN]
    other = straightforward(given, queues, M, N, generator, drawn)
    other_gradient = given.take_gradient()
    apart = (gradient - other_gradient).abs().max() / other_gradient.abs().max()
    same = all(map(torch.equal, in_order(bank, capacities), queues.queues))
    own = straightforward(given, queues, M, N, generator)
    given.take_gradient()
    return [
        f"the same draws: loss {float(loss):.6f} and {float(other):.6f}, gradients apart by {float(apart):.1e} "
        f"of their largest entry, the same rows in the same order in the bank: {'yes' if same else 'NO'}",
        f"own draws: loss {float(loss):.4f} and {float(own):.4f}",
    ]


def limits(given: Given, bank: MemoryBank, M: int, N: int) -> list[Limit]:
    """What no version can leave out that pushes and draws as many rows."""
    classes, pixels, features = given.logits.shape[1], len(given.label_P), given.teacher.shape[1]
    row = features * given.teacher.element_size()
    before = bank.pushed_C.clone()
    ours(given, bank, M, N, torch.Generator(bank.storage.device).manual_seed(0), measure.no_lap)
    pushed = int((bank.pushed_C - before).minimum(bank.capacity_C).sum())
    return [
        Limit("read the logits", "B", given.logits.nbytes),
        Limit("read the teacher's rows, for the centres", "B", pixels * row),
        Limit(f"read {pushed:,} rows to push", "B", min(pushed, pixels) * row),
        Limit("write them, each pixel once", "B", min(pushed, pixels) * row),
        Limit("read the drawn negatives", "B", classes * M * N * row),
        Limit("centres", "MAC", pixels * classes * features),
        Limit("similarities", "MAC", classes * M * (N + 1) * features),
        Limit("their gradient", "MAC", classes * M * (N + 1) * features),
    ]


def gathering_ms(bank: MemoryBank, M: int, N: int, repeats: int) -> float:
    """Milliseconds of reading the drawn negatives with `index_select`, and no more; a copy would be faster.

    On a CPU the rows go to a place that stays in the cache, the negatives of a few anchors at a time.
    """
    table = bank.storage
    index = bank.sample(M, N, torch.Generator(table.device).manual_seed(0)).flatten()
    room = table.new_empty(len(index) if table.is_cuda else 2**11, table.shape[1])
    parts = index.split(len(room))

    def step(lap: Lap) -> None:
        for part in parts:
            torch.index_select(table, 0, part, out=room[: len(part)])

    return statistics.median(measure.totals(measure.taking_turns({"": step}, repeats, table.device)[""]))


def main() -> None:
    """Measure and print."""
    parser = measure.arguments(__doc__)
    parser.add_argument("--classes", type=int, default=21)
    parser.add_argument("--features", type=int, default=256, help="D (default: 256)")
    parser.add_argument(
        "--maps",
        type=shape,
        nargs="+",
        default=[(33, 4), (129, 8)],
        metavar="SIZExIMAGES",
        help="size of the square maps, images in the batch (default: 33x4 129x8)",
    )
    parser.add_argument(
        "--draws", type=shape, nargs="+", default=PUBLISHED, metavar="MxN", help="(default: 50x256 256x50)"
    )
    parser.add_argument("--queue", type=int, default=30_000, help="capacity of a class (default: 30000)")
    parser.add_argument("--queue-background", type=int, default=50_000, help="of class 0 (default: 50000)")
    options = parser.parse_args()
    device = measure.prepared(options)
    machine = Machine(device)
    print(machine)
    for size, images in options.maps:
        given = make_given(images, size, options.classes, options.features, device, options.seed)
        for M, N in options.draws:
            compare(given, M, N, options, machine)
            compare_capacities(given, M, N, options, device)


def compare(given: Given, M: int, N: int, options: argparse.Namespace, machine: Machine) -> None:
    """Check, comparison, phases and limits for one shape."""
    device = machine.device
    capacities = [options.queue_background] + [options.queue] * (options.classes - 1)
    images, _, size, _ = given.logits.shape
    title = f"{size} x {size}, {images // 2} + {images - images // 2} images, M = {M}, N = {N}"
    print(f"\nCheck, {title}")
    for line in check(given, capacities, M, N, device, options.seed):
        print(f"  {line}")

    bank = full_bank(capacities, options.features, device, options.seed)
    queues = Queues(capacities, in_order(bank, capacities))
    generator = torch.Generator(device).manual_seed(options.seed)

    def step_of_ours(lap: Lap) -> None:
        ours(given, bank, M, N, generator, lap)

    def other_step(lap: Lap) -> None:
        straightforward(given, queues, M, N, generator)
        given.take_gradient()

    steps = {"ours": step_of_ours, "straightforward": other_step}
    times = measure.show_comparison(f"Contrastive step, {title}", steps, options.repeats, device)
    measure.show_phases(f"Phases of ours, {title}", times["ours"])
    measure.show_limits(f"Limits, {title}", limits(given, bank, M, N), machine, times["ours"])
    ms = gathering_ms(bank, M, N, options.repeats)
    print(f"Reading the drawn negatives with index_select, and no more, takes {ms:.1f} ms.")


def compare_capacities(
    given: Given, M: int, N: int, options: argparse.Namespace, device: torch.device
) -> None:
    """What the capacity of the bank does to our time and memory."""
    capacities = [options.queue_background] + [options.queue] * (options.classes - 1)
    generator = torch.Generator(device).manual_seed(options.seed)

    def step(factor: int) -> measure.Step:
        bank = full_bank([factor * c for c in capacities], options.features, device, options.seed)

        def run(lap: Lap) -> None:
            ours(given, bank, M, N, generator, lap)

        return run

    steps = {f"capacities x {factor}": step(factor) for factor in (1, 4)}
    size = given.logits.shape[3]
    title = f"Ours with a larger bank, {size} x {size}, M = {M}, N = {N}"
    times = measure.show_comparison(title, steps, options.repeats, device)
    for name in steps:
        measure.show_phases(f"Phases, {name}", times[name])


def shape(text: str) -> tuple[int, int]:
    """Two numbers with an x between them."""
    first, second = text.split("x")
    return int(first), int(second)


if __name__ == "__main__":
    main()
