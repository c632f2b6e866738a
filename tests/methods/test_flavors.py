"""What the released code does otherwise than the paper, one setting of flavour `released` a test.

D1 to D31 are the departures that docs/fidelity.md numbers. Each test shows what the paper's value does and what the
released code's does, computed from the outputs of the networks alone.
"""

import copy
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from methods.tiny_method import (
    CLASSES,
    EPOCH_STEPS,
    EPOCHS,
    at,
    build,
    changed,
    make_batch,
    optimizer,
    spy,
    step_of,
    targets_in,
    train_step,
    warm_steps,
    watch,
)
from methods.world import (
    HIGH,
    IGNORE,
    LOW,
    POINTS,
    SIZE,
    Point,
    World,
    anchors,
    blocks,
    contrast,
    contrasting,
    labeled_negatives,
    mean,
    negatives,
    random_labels,
    unlabeled_negatives,
)
from torch import Tensor, nn
from torch.nn import functional

from u2pl.losses import contrastive
from u2pl.losses.memory_bank import MemoryBank
from u2pl.methods import Classes
from u2pl.methods.mt import MeanTeacher
from u2pl.methods.u2pl import U2PL
from u2pl.models.deeplab import Output, upsample
from u2pl.models.dropout import ChannelDropout
from u2pl.steps.pixels import aligned, floored

START = EPOCH_STEPS
"""First step behind the warm start of one epoch."""

every_class = range(CLASSES.count)


def a_world(*known: int, images: int = 1) -> World:
    """As many labelled as unlabelled images, in all of which these classes occur; some labels are ignored."""
    return World(
        random_labels(*known, IGNORE, images=images, seed=1), random_labels(*known, images=images, seed=2)
    )


# ---- the contrastive loss ------------------------------------------------------------------------------------------


def test_pairing_by_position_trains_only_classes_whose_index_is_below_the_count_of_those_present(
    monkeypatch: pytest.MonkeyPatch,
):
    """D1, with classes 0 and 2 of four present: class 2 is anchor where classes are paired with themselves only."""
    world = a_world(0, 2)
    points = world.points()

    paper = contrast(contrasting(pairing="class"), world, monkeypatch)
    (drawn,) = paper
    assert drawn.used == {0, 2}
    assert [drawn.met[c] for c in (0, 2)] == [negatives(points, c) for c in (0, 2)]
    assert paper.moved == anchors(points, 0) | anchors(points, 2)
    assert paper.loss == pytest.approx(0.1 * (drawn.info_nce(0) + drawn.info_nce(2)) / 4, rel=1e-5)

    released = contrast(contrasting(pairing="position"), world, monkeypatch)
    (drawn,) = released
    assert drawn.used == {0}
    assert drawn.met[0] == negatives(points, 0)
    assert released.moved == anchors(points, 0)
    assert released.loss == pytest.approx(0.1 * drawn.info_nce(0) / 4, rel=1e-5)


def test_pairing_by_position_lets_anchors_meet_the_negatives_of_the_class_at_their_classs_position(
    monkeypatch: pytest.MonkeyPatch,
):
    """D1, with classes 1, 2 and 3 of four present: 1 meets the bank of 2, 2 that of 3, and 3 is never an anchor."""
    world = a_world(1, 2, 3)
    points = world.points()

    paper = contrast(contrasting(pairing="class"), world, monkeypatch)
    (drawn,) = paper
    assert drawn.used == {1, 2, 3}
    assert [drawn.met[c] for c in (1, 2, 3)] == [negatives(points, c) for c in (1, 2, 3)]

    released = contrast(contrasting(pairing="position"), world, monkeypatch)
    (drawn,) = released
    assert drawn.used == {1, 2}
    assert [drawn.met[c] for c in (1, 2)] == [negatives(points, c) for c in (2, 3)]
    assert [drawn.centers[c].tolist() for c in (1, 2)] == [
        pytest.approx(mean(points, anchors(points, c)), abs=1e-6) for c in (1, 2)
    ]
    assert released.moved == anchors(points, 1) | anchors(points, 2)
    assert released.loss == pytest.approx(0.1 * (drawn.info_nce(1) + drawn.info_nce(2)) / 4, rel=1e-5)


def test_pairing_by_position_skips_a_class_where_the_bank_that_its_anchors_would_meet_is_empty(
    monkeypatch: pytest.MonkeyPatch,
):
    """D1, D9, with classes 1, 2 and 3 present and no negatives of class 2: 1 would meet them, 2 meets those of 3."""
    world = a_world(1, 2, 3)
    world.teacher.logits[0, 2] = torch.where(world.labels[0, ::4, ::4] == 2, 30.0, -30.0)
    world.teacher.logits[1, 2] = 30
    assert [bool(negatives(world.points(), c)) for c in every_class] == [True, True, False, True]
    for pairing, used in (("class", {1, 3}), ("position", {2})):
        (drawn,) = contrast(contrasting(pairing=pairing, delta_p=0), world, monkeypatch)
        assert drawn.used == used


def test_labeled_negatives_false_leaves_only_unlabelled_ones(monkeypatch: pytest.MonkeyPatch):
    """D2."""
    world = a_world(0, 1, 2, 3)
    points = world.points()
    (paper,) = contrast(contrasting(labeled_negatives=True), world, monkeypatch)
    (released,) = contrast(contrasting(labeled_negatives=False), world, monkeypatch)
    assert all(labeled_negatives(points, c) and unlabeled_negatives(points, c) for c in every_class)
    assert paper.met == [labeled_negatives(points, c) | unlabeled_negatives(points, c) for c in every_class]
    assert released.met == [unlabeled_negatives(points, c) for c in every_class]


def test_negative_label_same_keeps_only_pixels_that_are_pseudo_labelled_as_the_very_class(
    monkeypatch: pytest.MonkeyPatch,
):
    """D3: their rank comes from another pass than their label, or else a pixel labelled c would have rank 0 for c."""
    world = a_world(0, 1, 2, 3, images=4)
    points = world.points()
    settings = {"labeled_negatives": False, "r_l": 1, "r_h": 3}

    def expected(c: int, labels: set[int]) -> set[int]:
        unreliable = [p for p in points if p.entropy > HIGH and p.label in labels]
        return {p.number for p in unreliable if p.rank(c) in (1, 2)}

    (paper,) = contrast(contrasting(negative_label="any", **settings), world, monkeypatch)
    released = pushed(contrasting(negative_label="same", **settings), world, monkeypatch)
    assert paper.met == [expected(c, set(every_class)) for c in every_class]
    assert released == [expected(c, {c}) for c in every_class]
    assert any(released)
    assert all(few < many for few, many in zip(released, paper.met, strict=True))


def test_negative_label_same_takes_the_label_however_unreliable_it_is_and_finds_none_in_one_pass(
    monkeypatch: pytest.MonkeyPatch,
):
    """D3: where label and rank agree, class c is the likeliest of every pixel labelled c, so none has rank r_l >= 1."""
    world = a_world(0, 1, 2, 3)
    world.teacher.logits[1].scatter_(0, world.pseudo[:1, ::4, ::4], 50.0)
    assert all(p.rank(p.label) == 0 for p in world.points() if not p.labeled)
    settings = {"labeled_negatives": False, "negative_label": "same"}
    assert pushed(contrasting(**settings), world, monkeypatch) == [set()] * 4
    assert contrast(contrasting(**settings), world, monkeypatch).loss == 0
    assert contrast(contrasting(labeled_negatives=False), world, monkeypatch).loss > 0


def test_at_threshold_makes_pixels_of_exactly_the_thresholds_entropy_negatives(
    monkeypatch: pytest.MonkeyPatch,
):
    """D14, inclusive comparisons."""
    world = a_world(0, 1, 2, 3)
    for negatives_from, on, off in (
        ("unreliable", lambda h: h >= HIGH, lambda h: h > HIGH),
        ("reliable", lambda h: h <= LOW, lambda h: h < LOW),
    ):
        for at_threshold, chosen in ((True, on), (False, off)):
            method = contrasting(labeled_negatives=False, negatives=negatives_from, at_threshold=at_threshold)
            assert pushed(method, world, monkeypatch) == [
                {p.number for p in world.points() if not p.labeled and chosen(p.entropy) and p.rank(c) >= 1}
                for c in every_class
            ]


def test_anchors_lowest_takes_the_alpha_t_of_lowest_entropy_instead_of_all_that_are_reliable(
    monkeypatch: pytest.MonkeyPatch,
):
    """D4; labelled pixels are anchors in both."""
    world = a_world(0, 1, 2, 3, images=4)
    points = world.points()
    (paper,) = contrast(contrasting(anchors="reliable"), world, monkeypatch)
    (released,) = contrast(contrasting(anchors="lowest"), world, monkeypatch)

    def expected(c: int, reliable: Callable[[Point], bool]) -> set[int]:
        return {p.number for p in points if (p.labeled or reliable(p)) and p.label == c and p.prob[c] > 0.3}

    assert paper.anchors == [expected(c, lambda p: p.entropy < HIGH) for c in every_class]
    assert released.anchors == [expected(c, lambda p: p.entropy <= LOW) for c in every_class]
    assert paper.used == released.used == set(every_class)
    assert any(few < many for few, many in zip(released.anchors, paper.anchors, strict=True))


@pytest.mark.parametrize("of", ["reliable", "lowest"])
def test_center_pixels_averages_a_classs_pixels_whatever_their_probability(
    of: str, monkeypatch: pytest.MonkeyPatch
):
    """D5; the anchors themselves still need a probability above delta_p."""
    world = a_world(0, 1, 2, 3, images=4)
    points = world.points()
    (paper,) = contrast(contrasting(center="anchors", anchors=of), world, monkeypatch)
    (released,) = contrast(contrasting(center="pixels", anchors=of), world, monkeypatch)
    for c in every_class:
        region = {
            p.number
            for p in points
            if p.label == c and (p.entropy < HIGH if of == "reliable" else p.entropy <= LOW)
        }
        sure = {k for k in region if points[k].prob[c] > 0.3}
        assert sure < region
        assert paper.centers[c].tolist() == pytest.approx(mean(points, sure), abs=1e-6)
        assert released.centers[c].tolist() == pytest.approx(mean(points, region), abs=1e-6)
        assert paper.anchors[c] == released.anchors[c] == sure


def test_normalizer_present_divides_by_the_classes_in_the_batch_skipped_ones_included(
    monkeypatch: pytest.MonkeyPatch,
):
    """D9: class 2 is present but never likelier than delta_p, so it has no anchor and counts all the same."""
    world = a_world(0, 1, 2)
    world.teacher.logits[:, 2] = -20
    for normalizer, divisor in (("all", 4), ("present", 3)):
        outcome = contrast(contrasting(normalizer=normalizer), world, monkeypatch)
        (drawn,) = outcome
        assert drawn.used == {0, 1}
        expected = (drawn.info_nce(0) + drawn.info_nce(1)) / divisor
        assert outcome.loss == pytest.approx(0.1 * expected, rel=1e-5)


def test_normalizer_present_gives_0_where_a_single_class_is_present(monkeypatch: pytest.MonkeyPatch):
    """D9, although that class has anchors and negatives."""
    world = World(random_labels(1, IGNORE), random_labels(1))
    outcome = contrast(contrasting(normalizer="all"), world, monkeypatch)
    (drawn,) = outcome
    assert outcome.loss == pytest.approx(0.1 * drawn.info_nce(1) / 4, rel=1e-5) and outcome.loss > 0
    assert outcome.moved == anchors(world.points(), 1)
    released = contrast(contrasting(normalizer="present"), world, monkeypatch)
    assert released.loss == 0
    assert released.moved == set()


def test_normalizer_present_counts_the_classes_of_labelled_pixels_and_of_possible_anchors(
    monkeypatch: pytest.MonkeyPatch,
):
    """D9 and D4: class 2 is that of middling entropies only, and class 3 that of unreliable pixels only."""
    entropy = torch.arange(16.0).view(1, POINTS, POINTS)
    pseudo = torch.where(entropy >= HIGH, 3, torch.where(entropy > LOW, 2, 0))
    world = World(random_labels(0, 1), blocks(pseudo), entropy=blocks(entropy))
    for of, present in (("reliable", {0, 1, 2}), ("lowest", {0, 1})):
        outcome = contrast(contrasting(normalizer="present", anchors=of), world, monkeypatch)
        (drawn,) = outcome
        assert drawn.used == present
        expected = sum(drawn.info_nce(c) for c in present) / len(present)
        assert outcome.loss == pytest.approx(0.1 * expected, rel=1e-5)


@pytest.mark.parametrize(("pixels", "points"), [(513, 129), (769, 193), (97, 25), (48, 12), (32, 8), (16, 4)])
def test_label_points_floor_are_those_of_nearest_neighbour_scaling(pixels: int, points: int):
    """D13: up to three pixels up and left of the point at which the corner-aligned heads look."""
    numbers = torch.arange(pixels**2).view(1, pixels, pixels)
    size = torch.Size((points, points))
    nearest = functional.interpolate(numbers[None].double(), size=(points, points), mode="nearest")[0].long()
    assert torch.equal(floored(numbers, size), nearest)
    exact = torch.linspace(0, pixels - 1, points, dtype=torch.float64)
    rows = {
        "aligned": aligned(numbers, size)[0, :, 0] // pixels,
        "floor": floored(numbers, size)[0, :, 0] // pixels,
    }
    assert (rows["aligned"] - exact).abs().max() <= 0.5
    behind = exact - rows["floor"]
    assert behind.min() >= 0
    assert 2 < behind.max() <= 3


def test_label_points_say_which_pixels_label_and_entropy_a_point_takes(monkeypatch: pytest.MonkeyPatch):
    """D13, in the whole contrastive loss: labels, pseudo-labels and entropies differ from pixel to pixel."""
    generator = torch.Generator().manual_seed(0)
    labels, pseudo = torch.randint(0, 4, (2, 4, SIZE, SIZE), generator=generator)
    entropy = torch.randperm(4 * SIZE**2, generator=generator).view(4, SIZE, SIZE).float()
    world = World(labels, pseudo, entropy=entropy)
    gamma = world.threshold(0, 1 - 0.22)
    found = {}
    for name, pixel in (("aligned", lambda k: round(k * 15 / 3)), ("floor", lambda k: k * 16 // 4)):
        points = world.points(pixel)
        (drawn,) = contrast(contrasting(label_points=name), world, monkeypatch)
        assert drawn.used == set(every_class)
        for c in every_class:
            assert drawn.anchors[c] == {
                p.number for p in points if p.label == c and p.entropy < gamma and p.prob[c] > 0.3
            }
            assert drawn.met[c] == labeled_negatives(points, c) | {
                p.number for p in points if not p.labeled and p.entropy > gamma and p.rank(c) >= 1
            }
        found[name] = drawn.anchors
    assert found["aligned"] != found["floor"]


@pytest.mark.parametrize(
    ("flavor", "M", "N", "lambda_c"), [("paper", 50, 256, 0.1), ("released", 256, 50, 0.25)]
)
def test_the_flavours_differ_in_how_many_anchors_and_negatives_they_draw_and_in_lambda_c(
    flavor: str, M: int, N: int, lambda_c: float, monkeypatch: pytest.MonkeyPatch
):
    """D7, D8. The tiny recipe overrides M and N for the flavour `paper`, so they are given here."""
    given = {"M": M, "N": N} if flavor == "paper" else {}
    method = build("u2pl", flavor=flavor, replicas=1, **given)
    assert isinstance(method, U2PL)
    world = a_world(0, 1, 2, 3)
    drawn = spy(monkeypatch, contrastive, "info_nce")
    loss = contrast(method, world, monkeypatch).loss
    anchor_CMD, _, _, index_CMN, *_ = drawn[0]
    assert anchor_CMD.shape[:2] == (4, M)
    assert index_CMN.shape == (4, M, N)
    assert method.settings.lambda_c == lambda_c
    doubled = build("u2pl", flavor=flavor, replicas=1, **{**given, "lambda_c": 2 * lambda_c})
    assert isinstance(doubled, U2PL)
    assert contrast(doubled, world, monkeypatch).loss == pytest.approx(2 * loss, rel=1e-6)


@pytest.mark.parametrize("background", [True, False])
def test_large_queue_class0_is_that_of_class_0_even_where_it_is_no_background(background: bool):
    """D10: of Cityscapes' road."""
    sizes = {}
    for which in ("background", "class0"):
        classes = Classes(4, IGNORE, background=background)
        method = build("u2pl", classes, large_queue=which, queue=30, queue_background=50)
        assert isinstance(method, U2PL) and method.bank is not None
        sizes[which] = method.bank.capacity_C.tolist()
    assert sizes["class0"] == [50, 30, 30, 30]
    assert sizes["background"] == ([50, 30, 30, 30] if background else [30, 30, 30, 30])


def pushed(method: U2PL, world: World, monkeypatch: pytest.MonkeyPatch) -> list[set[int]]:
    """Of each class, the points that become its negatives."""
    with monkeypatch.context() as patch:
        calls = spy(patch, MemoryBank, "push")
        method.contrast.targets(world.targets(method), at(START))
    ((_, representation_PD, negative_CP, _),) = calls
    by_teacher = {point.teacher: point.number for point in world.points()}
    numbers = [by_teacher[tuple(row)] for row in representation_PD.tolist()]
    return [{numbers[j] for j in mask.nonzero().flatten().tolist()} for mask in negative_CP]


# ---- the teacher ---------------------------------------------------------------------------------------------------


def trained(name: str, **overrides: object) -> MeanTeacher:
    """After the warm start, with a teacher that is more certain than it would make it, and that is not the student."""
    method = build(name, **overrides)
    assert isinstance(method, MeanTeacher)
    method.load_state_dict(trained_state(name))
    return method


@cache
def trained_state(name: str) -> dict[str, Tensor]:
    method = build(name)
    sgd = optimizer(method, lr=0.05)
    for index in range(warm_steps(method) + 1):
        train_step(method, sgd, index, make_batch())
    with torch.no_grad():
        method.teacher.classifier[-1].weight.mul_(10)
    return method.state_dict()


def replayed(network: nn.Module, image: Tensor, *, training: bool, seed: int) -> Output:
    """What a copy of a network says in either mode, with the dropout of a seed."""
    torch.manual_seed(seed)
    with torch.no_grad():
        return copy.deepcopy(network).train(training)(image)


def keeping_channels_of(network: nn.Module, other: nn.Module) -> nn.Module:
    """A copy of `network` whose dropout keeps the channels that `other` kept in its last pass."""
    twin = copy.deepcopy(network)
    for layer, chosen in zip(twin.modules(), other.modules(), strict=True):
        if isinstance(layer, ChannelDropout) and isinstance(chosen, ChannelDropout):
            layer.kept = chosen.kept
    return twin


def statistics(network: nn.Module) -> list[Tensor]:
    """Running means and variances of the batch norms."""
    return [b.clone() for b in network.buffers() if b.is_floating_point()]


def equal(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def weights(network: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in network.parameters()]


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_teacher_mode_train_looks_at_the_students_images_with_batch_statistics_and_dropout(
    mode: str, monkeypatch: pytest.MonkeyPatch
):
    """D11: positives and negatives come from that pass. The labels come from evaluation mode in both."""
    method = trained("u2pl", teacher_mode=mode, cutmix_probability=1, dropout=0.5)
    before, passes = copy.deepcopy(method.teacher), watch(method.teacher)
    centred = spy(monkeypatch, contrastive, "centers")
    step_of(method, make_batch(), at(START + 1))
    plain, mixed = passes

    assert not plain.training
    assert torch.equal(plain.image, make_batch().unlabeled.image)
    assert torch.equal(plain.output.logits, replayed(before, plain.image, training=False, seed=4).logits)
    assert mixed.training == (mode == "train")
    assert len(mixed.image) == 4 and not torch.equal(mixed.image[2:], plain.image)
    same, other = (
        replayed(network, mixed.image, training=mode == "train", seed=3)
        for network in (keeping_channels_of(before, method.teacher), before)
    )
    assert torch.equal(mixed.output.logits, same.logits)
    assert torch.equal(mixed.output.logits, other.logits) == (mode == "eval")  # dropout
    assert torch.equal(centred[0][0], mixed.output.representation.permute(0, 2, 3, 1).flatten(0, 2))
    assert not any(module.training for module in method.teacher.modules())


def test_teacher_mode_train_needs_no_running_statistics():
    """D11: what the teacher's passes say of the student's images depends on the batch and its weights alone."""
    for mode in ("eval", "train"):
        said = []
        for running_mean in (0.0, 7.0):
            method = trained("u2pl", teacher_mode=mode, dropout=0)
            passes = watch(method.teacher)
            for module in method.teacher.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.running_mean.fill_(running_mean)
            step_of(method, make_batch(), at(START + 1))
            said.append(passes[1].output.logits)
        assert torch.equal(*said) == (mode == "train")


@pytest.mark.parametrize("name", ["mt", "cutmix", "u2pl"])
@pytest.mark.parametrize(("source", "mode"), [("plain", "eval"), ("mixed", "eval"), ("mixed", "train")])
def test_entropy_pass_mixed_filters_by_a_prediction_on_the_students_images(
    name: str, source: str, mode: str, monkeypatch: pytest.MonkeyPatch
):
    """D16: the entropy is that of the mixed images, in training mode; the labels are those of the plain ones, mixed."""
    mix = {} if name == "mt" else {"cutmix_probability": 1}
    method = trained(name, entropy_pass=source, teacher_mode=mode, **mix)
    passes, batch = watch(method.teacher), make_batch()
    targets = targets_in(method, batch, at(START + 1))

    plain = passes[0]
    prob = upsample(plain.output.logits, (32, 32)).double().softmax(1)
    boxes = (targets.unlabeled.image != plain.image).any(dim=1)
    assert boxes.any() == (name != "mt")
    label = torch.where(boxes, prob.argmax(1).roll(-1, 0), prob.argmax(1))
    if source == "mixed":
        assert passes[1].training == (mode == "train")
        assert torch.equal(passes[1].image, torch.cat([batch.labeled.image, targets.unlabeled.image]))
        prob = upsample(passes[1].output.logits[2:], (32, 32)).double().softmax(1)
        entropy = entropies(prob)
    else:
        entropy = torch.where(boxes, entropies(prob).roll(-1, 0), entropies(prob))
    alpha = 0.2 * (1 - 1 / EPOCHS)
    gamma = np.percentile(entropy.numpy(), 100 * (1 - alpha))
    clear = (entropy - gamma).abs() > 1e-5

    assert torch.equal(targets.unlabeled.label, label)
    assert torch.allclose(targets.unlabeled.entropy.double(), entropy, atol=1e-5)
    assert targets.gamma_t.flatten().tolist() == pytest.approx([gamma, gamma], abs=1e-5)
    assert torch.equal(targets.pseudo_label[clear], torch.where(entropy < gamma, label, IGNORE)[clear])
    assert clear.float().mean() > 0.99


def entropies(prob_BCHW: Tensor) -> Tensor:
    return -(prob_BCHW * prob_BCHW.log()).sum(dim=1)


@pytest.mark.parametrize("name", ["mt", "u2pl"])
@pytest.mark.parametrize("kind", ["average", "passes"])
def test_teacher_statistics_are_averaged_like_the_weights_or_estimated_in_its_passes_alone(
    name: str, kind: str
):
    """D11, D27: the released code neither copies nor averages batch norm's statistics."""
    method = trained(name, teacher_mode="train", teacher_statistics=kind, entropy_pass="mixed")
    before, twin = statistics(method.teacher), copy.deepcopy(method.teacher)
    passes = watch(method.teacher)
    step_of(method, make_batch(), at(START + 1))
    after = statistics(method.teacher)
    assert [p.training for p in passes] == [False, True]
    twin = keeping_channels_of(twin, method.teacher)
    twin.train()(passes[1].image)
    assert equal(after, before) == (kind == "average")
    assert equal(after, statistics(twin))

    method.after_update(at(START + 4))
    student = statistics(method.student)
    averaged = [0.8 * ours + 0.2 * theirs for ours, theirs in zip(after, student, strict=True)]
    now = statistics(method.teacher)
    assert not all(torch.allclose(a, b) for a, b in zip(after, averaged, strict=True))
    assert all(
        torch.allclose(a, b, rtol=1e-5, atol=1e-6)
        for a, b in zip(now, averaged if kind == "average" else after, strict=True)
    )
    if kind == "passes":
        assert equal(now, after)


def test_a_pass_moves_the_teachers_statistics_by_a_tenth_of_the_way_to_the_batchs():
    """D27: momentum 0.1, measured at the first batch norm behind the first convolution."""
    method = trained("mt", teacher_mode="train", teacher_statistics="passes")
    convolution, norm = method.teacher.backbone.stem[:2]
    old, seen = norm.running_mean.clone(), []
    convolution.register_forward_hook(lambda module, inputs, output: seen.append(output))
    step_of(method, make_batch(), at(START + 1))
    assert len(seen) == 2
    assert torch.allclose(norm.running_mean, 0.9 * old + 0.1 * seen[1].mean(dim=(0, 2, 3)), atol=1e-6)


@pytest.mark.parametrize("kind", ["average", "passes"])
def test_with_own_statistics_the_teacher_looks_at_the_labelled_images_in_the_warm_start(kind: str):
    """D24."""
    method = build("u2pl", teacher_mode="train", teacher_statistics=kind, warm_teacher="own")
    assert isinstance(method, U2PL)
    before, passes = statistics(method.teacher), watch(method.teacher)
    step_of(method, make_batch(), at(0))
    method.after_update(at(0))
    if kind == "passes":
        assert [p.training for p in passes] == [True]
        assert torch.equal(passes[0].image, make_batch().labeled.image)
        assert not equal(statistics(method.teacher), before)
    else:
        assert not passes
        assert equal(statistics(method.teacher), before)


def test_warm_teacher_own_keeps_random_weights_that_nobody_updates_until_the_warm_start_ends():
    """D24; at its end the student is copied, before the first pseudo-labels are made (D25, D26)."""
    for kind in ("copy", "own"):
        method = build("mt", warm_teacher=kind)
        assert isinstance(method, MeanTeacher)
        assert equal(weights(method.teacher), weights(method.student)) == (kind == "copy")
        first, sgd = weights(method.teacher), optimizer(method, lr=0.05)
        for index in range(START):
            train_step(method, sgd, index, make_batch())
            assert equal(weights(method.teacher), weights(method.student)) == (kind == "copy")
            assert equal(weights(method.teacher), first) == (kind == "own")
        passes, student = watch(method.teacher), copy.deepcopy(method.student)
        step_of(method, make_batch(), at(START))
        assert equal(weights(method.teacher), weights(student))
        if kind == "copy":
            expected = replayed(student, passes[0].image, training=False, seed=0).logits
            assert torch.equal(passes[0].output.logits, expected)


def test_first_epoch_share_leaves_the_teacher_equal_to_the_student_for_one_epoch():
    """D25; from the next epoch on it is an average with the full decay, not the formula's small ones (D26)."""
    for kind in ("average", "share"):
        method = build("mt", first_epoch=kind, ema_decay=0.7)
        assert isinstance(method, MeanTeacher)
        for index in range(START + EPOCH_STEPS + 2):
            before = weights(method.teacher)
            with torch.no_grad():
                for parameter in method.student.parameters():
                    parameter.mul_(1.1).add_(0.1)
            method.after_update(at(index))
            student, n = weights(method.student), index - START
            copied = n <= 0 or (kind == "share" and n < EPOCH_STEPS)
            assert equal(weights(method.teacher), student) == copied
            if not copied:
                decay = min(1 - 1 / (n + 1), 0.7)
                for old, theirs, ours in zip(before, student, weights(method.teacher), strict=True):
                    assert torch.allclose(ours, decay * old + (1 - decay) * theirs, atol=1e-5)


@pytest.mark.parametrize("warm_teacher", ["copy", "average", "own"])
def test_first_epoch_share_makes_the_first_pseudo_labels_the_students_own(warm_teacher: str):
    """D25, whatever the teacher was in the warm start."""
    method = build("mt", first_epoch="share", warm_teacher=warm_teacher)
    assert isinstance(method, MeanTeacher)
    for index in range(START):
        with torch.no_grad():
            for parameter in method.student.parameters():
                parameter.mul_(1.1).add_(0.1)
        method.after_update(at(index))
    assert equal(weights(method.teacher), weights(method.student)) == (warm_teacher == "copy")
    step_of(method, make_batch(), at(START))
    assert equal(weights(method.teacher), weights(method.student))


def test_first_epoch_share_also_holds_without_a_warm_start():
    """D23, D25: the released configuration for Cityscapes has none."""
    method = build("u2pl", flavor="released", replicas=1, warm_start_epochs=0)
    assert isinstance(method, MeanTeacher)
    assert not equal(weights(method.teacher), weights(method.student))
    sgd = optimizer(method, lr=0.05)
    for index in range(EPOCH_STEPS + 1):
        train_step(method, sgd, index, make_batch())
        assert equal(weights(method.teacher), weights(method.student)) == (index < EPOCH_STEPS)


# ---- replicas ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("replicas", [1, 2])
def test_replicas_have_thresholds_and_losses_of_their_own(replicas: int):
    """D14, D19: gamma_t, lambda_u and the means of the losses belong to a device's images; the losses are averaged."""
    method = trained("u2pl", cutmix_probability=0)
    several = build("u2pl", cutmix_probability=0, batch=4, replicas=replicas)
    assert isinstance(several, MeanTeacher)
    several.load_state_dict(method.state_dict())
    # Halves that differ: in the second, all but a strip is void.
    batch = make_batch(3, images=4)
    batch.labeled.mask[2:, 8:] = IGNORE
    batch.unlabeled.image[2:] *= 3
    students = watch(several.student)
    targets = targets_in(several, batch, at(START + 1))
    result = step_of(several, batch, at(START + 1))
    logits = upsample(students[0].output.logits, (32, 32)).detach().double()

    gammas, supervised, unsupervised = [], [], []
    for images in torch.arange(4).chunk(replicas):
        alone = method.pseudo_labels(batch._replace(unlabeled=batch.unlabeled.part(images)), at(START + 1))
        gamma = np.percentile(alone.entropy.double().numpy(), 100 * (1 - targets.alpha_t))
        gammas += [gamma] * len(images)
        target = torch.where(alone.entropy < gamma, alone.label, IGNORE)
        supervised.append(
            functional.cross_entropy(logits[images], batch.labeled.mask[images], ignore_index=IGNORE)
        )
        unsupervised.append(
            target.numel()
            / (target != IGNORE).sum()
            * functional.cross_entropy(logits[4 + images], target, ignore_index=IGNORE)
        )
    assert targets.gamma_t.flatten().tolist() == pytest.approx(gammas, abs=1e-5)
    assert len({round(gamma, 4) for gamma in gammas}) == replicas
    assert result.losses["supervised"].item() == pytest.approx(np.mean(supervised), rel=1e-5)
    assert result.losses["unsupervised"].item() == pytest.approx(np.mean(unsupervised), rel=1e-3)


@pytest.mark.parametrize("replicas", [1, 2])
def test_the_supervised_loss_is_a_mean_over_replicas_in_the_warm_start_and_for_suponly(replicas: int):
    """D14."""
    for name in ("suponly", "mt"):
        method = build(name, batch=4, replicas=replicas)
        batch, students = make_batch(3, images=4), watch(method.student)
        batch.labeled.mask[2:, 8:] = IGNORE
        loss = step_of(method, batch, at(0)).losses["supervised"]
        logits = upsample(students[0].output.logits, (32, 32))
        expected = [
            functional.cross_entropy(*part, ignore_index=IGNORE).item()
            for part in zip(logits.chunk(replicas), batch.labeled.mask.chunk(replicas), strict=True)
        ]
        assert loss.item() == pytest.approx(np.mean(expected), rel=1e-5)


@pytest.mark.parametrize("memory_bank", [True, False])
@pytest.mark.parametrize("replicas", [1, 2])
def test_replicas_have_anchors_and_centres_of_their_own_and_share_the_bank(
    replicas: int, memory_bank: bool, monkeypatch: pytest.MonkeyPatch
):
    """D10, D14: every device's negatives are in the bank before any of them draws."""
    world = World(
        torch.cat([random_labels(0, 1, images=2, seed=1), random_labels(0, 2, 3, images=2, seed=2)]),
        torch.cat([random_labels(0, 1, images=2, seed=3), random_labels(0, 2, 3, images=2, seed=4)]),
        groups=replicas,
    )
    points = world.points()
    method = contrasting(batch=4, replicas=replicas, memory_bank=memory_bank)
    outcome = contrast(method, world, monkeypatch)
    assert len(outcome.groups) == replicas
    losses = []
    for group, drawn in enumerate(outcome):
        own = [p for p in points if p.group == group]
        assert drawn.used == ({0, 1, 2, 3} if replicas == 1 else [{0, 1}, {0, 2, 3}][group])
        for c in drawn.used:
            assert drawn.anchors[c] == anchors(own, c)
            assert drawn.centers[c].tolist() == pytest.approx(mean(own, anchors(own, c)), abs=1e-5)
            assert drawn.met[c] == negatives(points if memory_bank else own, c)
        losses.append(sum(drawn.info_nce(c) for c in drawn.used) / 4)
    assert outcome.loss == pytest.approx(0.1 * np.mean(losses), rel=1e-5)


def test_replicas_have_entropy_thresholds_of_their_own_for_anchors_and_negatives(
    monkeypatch: pytest.MonkeyPatch,
):
    """D14: in the second half all entropies are higher, yet as many of its pixels are reliable."""
    entropy = torch.cat(
        [blocks(torch.arange(16.0).view(1, 4, 4)), blocks(100 + torch.arange(16.0).view(1, 4, 4))]
    )
    labels = random_labels(0, 1, 2, 3, images=2)
    for replicas in (1, 2):
        world = World(labels, labels, entropy=entropy, groups=replicas)
        method = contrasting(
            batch=4, replicas=replicas, anchors="lowest", at_threshold=True, labeled_negatives=False
        )
        outcome = contrast(method, world, monkeypatch)
        for group, drawn in enumerate(outcome):
            low, high = world.threshold(group, 0.22), world.threshold(group, 1 - 0.22)
            own = [p for p in world.points() if p.group == group]
            for c in every_class:
                assert drawn.anchors[c] == {
                    p.number
                    for p in own
                    if p.label == c and p.prob[c] > 0.3 and (p.labeled or p.entropy <= low)
                }
            negative = {p.number for p in own if not p.labeled and p.entropy >= high}
            assert set.union(*drawn.met) >= negative
    assert {p.group for p in world.points() if p.number in set.union(*drawn.met)} == {0, 1}


def test_cutmix_takes_the_other_image_from_the_same_replica():
    """D14, D17."""
    for replicas in (1, 2):
        method = build("cutmix", cutmix_probability=1, batch=4, replicas=replicas)
        batch = make_batch(images=4)
        numbers = torch.arange(4.0)[:, None, None, None].expand(4, 3, 32, 32)
        batch = changed(batch, "unlabeled", image=numbers)
        students = watch(method.student)
        step_of(method, batch, at(START))
        seen = [set(image.unique().tolist()) for image in students[0].image[4:]]
        partner = [1, 2, 3, 0] if replicas == 1 else [1, 0, 3, 2]
        assert seen == [{float(k), float(other)} for k, other in enumerate(partner)]


# ---- the flavour as a whole ----------------------------------------------------------------------------------------


def test_training_with_the_released_flavour_goes_on_bit_equal_from_its_state_dict():
    """In the warm start, in the epoch in which the teacher is the student, and after it."""

    def new() -> tuple[MeanTeacher, torch.optim.SGD]:
        method = build("u2pl", flavor="released", batch=4, replicas=2, M=6, N=5)
        assert isinstance(method, MeanTeacher)
        return method, optimizer(method)

    first, sgd = new()
    for index in range(START + EPOCH_STEPS + 2):
        if index in (0, 2, START + 2, START + EPOCH_STEPS):
            second, other = new()
            with torch.no_grad():  # nothing of a new one may survive
                for value in second.state_dict().values():
                    value.fill_(1)
            second.load_state_dict(copy.deepcopy(first.state_dict()))
            other.load_state_dict(copy.deepcopy(sgd.state_dict()))
        batch = make_batch(index, images=4)
        assert train_step(first, sgd, index, batch) == train_step(second, other, index, batch)
        assert equal(list(first.state_dict().values()), list(second.state_dict().values()))
    assert first.bank.filled_C.sum() > 0


def test_a_step_of_the_released_flavour_is_computed_for_four_devices(monkeypatch: pytest.MonkeyPatch):
    method = build("u2pl", flavor="released", batch=8, warm_start_epochs=0)
    passes = watch(method.teacher)
    drawn = spy(monkeypatch, contrastive, "info_nce")
    result = step_of(method, make_batch(images=8), at(0))
    assert len(drawn) == 4
    assert [p.training for p in passes] == [False, True]
    assert [len(p.image) for p in passes] == [8, 16]
    assert all(torch.as_tensor(value).isfinite() for value in result.losses.values())
