"""Ours beside the authors' released code, in alternation: for people who have a checkout of it.

Nothing of theirs is here; DIR/u2pl is imported under another name, and where it asks for a GPU, tensors stay where they
are. Each version is given maps in the order in which its own network leaves them: theirs class after class, ours pixel
after pixel. Processor seconds of one thread; a line is the median of pairs, with the range of their ratios. Memory is
the most bytes alive at once beyond those alive at the start.

    python benchmarks/versus_released.py --released DIR
"""

import argparse
import collections
import collections.abc
import importlib
import os
import random
import statistics
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import contrastive as own_contrastive
import loading
import measure
import numpy as np
import torch
from measure import MIB
from PIL import Image
from torch import Tensor
from torch.nn import functional

from u2pl.batches.transforms import normalise
from u2pl.inference import scores
from u2pl.losses import cross_entropy, partition
from u2pl.models.colors import MEAN, STD

CLASSES, FEATURES, IGNORE = 21, 256, 255
QUEUES = [50_000] + [30_000] * (CLASSES - 1)
CROP = 513


class Pair(NamedTuple):
    """Two versions of the same work."""

    title: str
    theirs: Callable[[], object]
    ours: Callable[[], object]
    unit: float = 1.0
    """How many things one call does, where things a second are told."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--released", type=Path, required=True, metavar="DIR", help="their repository")
    parser.add_argument("--repeats", type=int, default=7, help="pairs (default: 7)")
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"CPU, {torch.backends.cpu.get_cpu_capability()}, one thread, torch {torch.__version__}, float32")
    stand_in(options.released)
    rows = []
    for name in options.only:
        for pair in SECTIONS[name]():
            rows.append(compared(pair, options.repeats))
            print("  ".join(rows[-1]), flush=True)
    columns = ("work", "theirs ms", "ours ms", "times", "range", "theirs MiB", "ours MiB", "times")
    measure.show("Beside the released code", columns, rows)


def stand_in(folder: Path) -> None:
    """Make their package importable as `released`, on this machine and with these versions of its libraries."""
    package = types.ModuleType("released")
    package.__path__ = [str(folder / "u2pl")]
    sys.modules["released"] = package
    try:
        importlib.import_module("skimage.measure")
    except ImportError:  # of which what is measured here uses nothing
        sys.modules["skimage"] = types.ModuleType("skimage")
        sys.modules["skimage.measure"] = types.ModuleType("skimage.measure")
        for name in ("label", "regionprops"):
            setattr(sys.modules["skimage.measure"], name, None)
    collections.Iterable = collections.abc.Iterable  # type: ignore[attr-defined]
    torch.Tensor.cuda = lambda tensor, *_, **__: tensor  # type: ignore[method-assign,assignment]
    store = tempfile.NamedTemporaryFile(delete=False)  # noqa: SIM115
    torch.distributed.init_process_group("gloo", init_method=f"file://{store.name}", rank=0, world_size=1)


def compared(pair: Pair, repeats: int) -> tuple[str, ...]:
    """A line of the table."""
    spent = []
    for repeat in range(repeats + 1):
        both = []
        for version in (pair.theirs, pair.ours):
            began = time.process_time()
            version()
            both.append(1e3 * (time.process_time() - began))
        if repeat:  # the first round warms up
            spent.append(both)
    ratios = [theirs / ours for theirs, ours in spent]
    times = [f"{statistics.median(one) / pair.unit:.2f}" for one in zip(*spent, strict=True)]
    device = torch.device("cpu")
    peaks = [
        measure.peak_extra(lambda _, v=version: v(), device) / MIB for version in (pair.theirs, pair.ours)
    ]  # type: ignore[misc]
    return (
        pair.title,
        *times,
        f"{statistics.median(ratios):.1f}",
        f"{min(ratios):.1f} to {max(ratios):.1f}",
        *(f"{peak:.1f}" for peak in peaks),
        f"{peaks[0] / max(peaks[1], 1e-9):.1f}",
    )


def contrast() -> Iterator[Pair]:
    """L_c: from the teacher's probabilities to the gradient of the student's representations, all banks full."""
    for size, images in ((33, 4), (129, 8)):
        given = own_contrastive.make_given(images, size, CLASSES, FEATURES, torch.device("cpu"), 0)
        bank = own_contrastive.full_bank(QUEUES, FEATURES, torch.device("cpu"), 0)
        theirs = _their_contrast(given, own_contrastive.in_order(bank, QUEUES))
        generator = torch.Generator().manual_seed(0)
        ours = partial(own_contrastive.ours, given, bank, 50, 256, generator, measure.no_lap)
        yield Pair(f"L_c, {size} x {size}, {images // 2} + {images // 2} images, (50, 256)", theirs, ours)


def _their_contrast(given: own_contrastive.Given, full: list[Tensor]) -> Callable[[], None]:
    helper = importlib.import_module("released.utils.loss_helper")
    memory = [[queue] for queue in full]
    logits, teacher, student = (t.detach().contiguous() for t in (given.logits, given.teacher, given.student))
    images, _, *size = logits.shape
    half = images // 2
    # They ask for the likeliest class of unreliable pixels too, which no mask of the anchors lets through.
    labels = [_one_hot(given.label_P.view(images, *size)[:half]), _one_hot(logits[half:].argmax(dim=1))]
    known_P = given.label_P != IGNORE
    high_P = torch.where(given.labeled_P, known_P, given.unreliable_P)
    masks = [mask_P.float().view(images, 1, *size) for mask_P in (known_P, high_P)]
    settings = {
        "current_class_threshold": own_contrastive.DELTA_P,
        "current_class_negative_threshold": 1,
        "low_rank": own_contrastive.R_L,
        "high_rank": own_contrastive.R_H,
        "temperature": own_contrastive.TAU,
        "num_queries": 50,
        "num_negatives": 256,
    }

    def step() -> None:
        leaf = student.requires_grad_()
        pointers = [torch.zeros(1, dtype=torch.long) for _ in QUEUES]
        _, loss = helper.compute_contra_memobank_loss(
            leaf,
            *labels,
            *logits.softmax(dim=1).chunk(2),
            *masks,
            settings,
            memory,
            pointers,
            QUEUES,
            teacher,
        )
        loss.backward()
        leaf.grad = None

    return step


def _one_hot(label_BHW: Tensor) -> Tensor:
    known = label_BHW != IGNORE
    return (functional.one_hot(label_BHW.where(known, 0), CLASSES) * known[..., None]).permute(0, 3, 1, 2)


def unsupervised() -> Iterator[Pair]:
    """From small logits of both networks to the gradient of the student's, the pseudo-labels included in ours."""
    helper = importlib.import_module("released.utils.loss_helper")
    generator = torch.Generator().manual_seed(0)
    teacher, student = (
        (4 * torch.randn(4, CLASSES, 129, 129, generator=generator)).contiguous(
            memory_format=torch.channels_last
        )
        for _ in range(2)
    )
    size, contiguous = (CROP, CROP), teacher.contiguous()
    valid = torch.ones(4, *size, dtype=torch.bool)
    label = functional.interpolate(teacher, size, mode="bilinear", align_corners=True).argmax(dim=1)

    def theirs() -> Tensor:
        leaf = student.contiguous().requires_grad_()
        large, by_teacher = (
            functional.interpolate(logits, size, mode="bilinear", align_corners=True)
            for logits in (leaf, contiguous)
        )
        helper.compute_unsupervised_loss(large, label.clone(), 80, by_teacher).backward()
        assert leaf.grad is not None
        return leaf.grad

    def ours() -> Tensor:
        leaf = student.detach().requires_grad_()
        guess, entropy, _ = partition.predict(teacher, size)
        gamma = partition.gamma_t(entropy, valid, 0.2)
        pseudo = partition.pseudo_label(guess, entropy, gamma, IGNORE)
        weight = cross_entropy.lambda_u(pseudo, valid, 1.0, IGNORE)
        (weight * cross_entropy.cross_entropy(leaf, pseudo, IGNORE)).backward()
        assert leaf.grad is not None
        return leaf.grad

    apart = (theirs() - ours()).abs().max() / ours().abs().max()
    print(f"Gradients of the unsupervised loss differ by {float(apart):.1e} of the largest.")
    yield Pair(f"unsupervised loss from small logits, {CROP} x {CROP}, batch 4", theirs, ours)


def loader() -> Iterator[Pair]:
    """A training image from its files, with normalisation as they have it, and as bytes, which is what workers send."""
    theirs_are = importlib.import_module("released.dataset.augmentation")
    scaled = [255 * np.array(values) for values in (MEAN, STD)]
    compose = theirs_are.Compose(
        [
            theirs_are.ToTensor(),
            theirs_are.Normalize(*(list(values) for values in scaled)),
            theirs_are.RandResize(list(loading.SCALE)),
            theirs_are.RandomHorizontalFlip(),
            theirs_are.Crop([CROP, CROP], crop_type="rand", ignore_label=IGNORE),
        ]
    )
    with loading.files(375, 500, ".jpg", 8, 12.0) as pairs:
        rng = np.random.default_rng(0)

        def theirs() -> None:
            random.seed(0)
            for picture, mask in pairs:
                with Image.open(picture) as opened, Image.open(mask) as labels:
                    compose(opened.convert("RGB"), labels.convert("L"))

        def as_bytes() -> None:
            for pair in pairs:
                loading.ours(pair, CROP, rng, measure.no_lap)

        def normalised() -> None:
            for pair in pairs:
                view = loading.ours(pair, CROP, rng, measure.no_lap)
                normalise(view.image[None], view.rows[None], view.columns[None])

        for title, ours in (("normalised", normalised), ("as bytes", as_bytes)):
            yield Pair(f"loader, JPEG 500 x 375, crop {CROP}, {title}", theirs, ours, unit=len(pairs))


def metric() -> Iterator[Pair]:
    """Counts of one image's pixels."""
    helper = importlib.import_module("released.utils.utils")
    generator = torch.Generator().manual_seed(0)
    label, guess = (torch.randint(CLASSES, (CROP, CROP), generator=generator) for _ in range(2))
    label[torch.rand(CROP, CROP, generator=generator) < 0.05] = IGNORE
    yield Pair(
        f"confusion matrix, {CROP} x {CROP}",
        lambda: helper.intersectionAndUnion(guess.numpy(), label.numpy(), CLASSES, IGNORE),
        lambda: scores.confusion(guess, label, CLASSES, IGNORE),
    )


SECTIONS: dict[str, Callable[[], Iterator[Pair]]] = {
    "contrast": contrast,
    "unsupervised": unsupervised,
    "loader": loader,
    "metric": metric,
}


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
