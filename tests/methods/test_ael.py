"""AEL: what each of its mechanisms changes, against float64 references and by hand."""

import copy
import itertools

import numpy as np
import pytest
import torch
from methods.slow import IGNORE, Array, full, mean_loss, padded, pixel_losses, softmax
from methods.tiny_method import (
    CLASSES,
    PARAMS,
    at,
    build,
    changed,
    make_batch,
    optimizer,
    spy,
    step_of,
    train_step,
    watch,
)
from torch import Tensor

from u2pl.batches.loader import Batch
from u2pl.errors import UsageError
from u2pl.losses import equalization
from u2pl.methods import Classes
from u2pl.methods.ael import AEL, AELTargets, Chooser
from u2pl.models.deeplab import DeepLabV3Plus
from u2pl.settings import RunSpec
from u2pl.training.step import targets_of


def ael(name: str = "ael", classes: Classes = CLASSES, **overrides: object) -> AEL:
    """With networks that say every class somewhere, more or less surely."""
    method = build(name, classes, **overrides)
    assert isinstance(method, AEL)
    liven(method.teacher, training=method.settings.label_mode == "train")
    liven(method.student, training=True)
    return method


@torch.no_grad()
def liven(network: DeepLabV3Plus, *, training: bool) -> None:
    """Scale and shift the last layer so that all classes' logits are spread alike."""
    head, batch = network.classifier[-1], make_batch()
    images = torch.cat([batch.labeled.image, batch.unlabeled.image])
    logits = copy.deepcopy(network).train(training)(images).logits
    factor = 2 / logits.std(dim=(0, 2, 3))
    head.weight.mul_(factor[:, None, None, None])
    head.bias.sub_(logits.mean(dim=(0, 2, 3))).mul_(factor)


def with_extra(batch: Batch, stream: str, **tensors: Tensor) -> Batch:
    return batch._replace(extra={**batch.extra, stream: batch.extra[stream]._replace(**tensors)})


# ---- copy-paste ----------------------------------------------------------------------------------------------------


def quadrants(images: int = 2) -> Tensor:
    """Masks of four squares, one of each class."""
    mask = torch.arange(4).view(1, 2, 2).expand(images, 2, 2)
    return mask.repeat_interleave(16, 1).repeat_interleave(16, 2).clone()


def pasted_classes(method: AEL, batch: Batch, index: int) -> list[set[int]]:
    """Of each image the classes that a step pastes, all of whose pixels must have come with their labels."""
    labeled, other = batch.labeled, batch.extra["paste"]
    result, found = method.pasted(batch, at(index)), []
    for b in range(len(labeled.image)):
        there = (result.image[b] == other.image[b]).all(dim=0)
        classes = set(other.mask[b][there].unique().tolist())
        whole = torch.isin(other.mask[b], torch.tensor(sorted(classes))) & other.valid[b]
        assert torch.equal(there, whole)
        assert torch.equal(result.image[b], torch.where(there, other.image[b], labeled.image[b]))
        assert torch.equal(result.mask[b], torch.where(there, other.mask[b], labeled.mask[b]))
        assert torch.equal(result.valid[b], labeled.valid[b] | there)
        found.append(classes)
    return found


def test_pixels_of_pasted_classes_come_with_their_labels_and_a_background_and_exceptions_never():
    batch = with_extra(padded(), "paste", mask=quadrants())
    for paste_classes, paste_except, allowed in ((1, [], {1, 2, 3}), (3, [], {1, 2, 3}), (2, [2], {1, 3})):
        method = ael(paste_classes=paste_classes, paste_except=paste_except)
        found = list(itertools.chain(*(pasted_classes(method, batch, index) for index in range(40))))
        assert set.union(*found) == allowed
        assert {len(classes) for classes in found} == set(range(1, min(paste_classes, len(allowed)) + 1))


def test_class_0_is_pasted_where_it_is_no_background():
    method = ael(classes=Classes(4, IGNORE, background=False), paste_classes=3)
    batch = with_extra(make_batch(), "paste", mask=quadrants())
    assert 0 in set.union(*(classes for k in range(20) for classes in pasted_classes(method, batch, k)))


@pytest.mark.parametrize("power", [1.0, 0.5])
def test_classes_are_pasted_as_often_as_equation_9_says(power: float):
    method = ael(paste_power=power)
    confidence = torch.tensor([0.0, 0.99, 0.5, 0.02])
    method.chooser.confidence_C.copy_(confidence)
    batch = with_extra(make_batch(), "paste", mask=quadrants())
    found = [classes.pop() for k in range(600) for classes in pasted_classes(method, batch, k)]
    weight = np.exp((1 - confidence[1:].double().numpy()) ** power)
    shares = np.bincount(found, minlength=4)[1:] / len(found)
    assert shares == pytest.approx(weight / weight.sum(), abs=0.05)


@pytest.mark.parametrize("copy_paste", [True, False])
def test_the_student_sees_and_learns_pasted_images_or_the_labelled_ones_as_they_are(copy_paste: bool):
    method, batch = ael(copy_paste=copy_paste), padded()
    seen = watch(method.student)
    loss = step_of(method, batch, at(3)).losses["supervised"].item()
    shown = batch.labeled if not copy_paste else method.pasted(batch, at(3))
    assert torch.equal(seen[0].image[:2], shown.image)
    assert loss == pytest.approx(mean_loss((full(seen[0])[:2], shown.mask)), rel=1e-5)
    assert torch.equal(shown.image, batch.labeled.image) == (not copy_paste)


def test_images_to_paste_are_a_stream_of_their_own_where_any_are_pasted():
    streams = ael(paste_share=0.25, paste_scale=[0.1, 1.5]).streams()
    paste, partner = streams["paste"], streams["partner"]
    assert (paste.labeled, paste.scale, paste.share, paste.chosen) == (True, (0.1, 1.5), 0.25, False)
    assert (partner.labeled, partner.scale, partner.share, partner.chosen) == (False, None, 1.0, True)
    assert set(ael(copy_paste=False).streams()) == {"partner"}


# ---- adaptive CutMix -----------------------------------------------------------------------------------------------


def regions(method: AEL, label: Tensor, batch: Batch, index: int = 0) -> tuple[Tensor, float]:
    inside, adapted = method.regions(label, batch.unlabeled, batch.extra["partner"], at(index))
    return inside, float(adapted)


def is_half_area_box(inside_HW: Tensor) -> bool:
    rows, columns = inside_HW.any(1), inside_HW.any(0)
    assert torch.equal(inside_HW, rows[:, None] & columns)
    # Both sides, of 16 to 32 pixels, are rounded.
    return abs(int(inside_HW.sum()) - 512) <= 24


def a_prediction() -> Tensor:
    """Of two images, then of their partners, which were chosen for classes 0 and 1. Only the latter says 0 and 1."""
    label = torch.full((4, 32, 32), 2)
    label[:2] = torch.tensor([0, 1]).view(2, 1, 1)
    label[2, 3:10, 4:6] = 0
    label[2, 10:12, 6:20] = 0  # touches the other at a corner
    label[2, 25:27, 25:30] = 0  # 10 pixels
    label[3, 5:20, 5:20] = 3
    return label


def test_the_box_is_around_a_piece_of_the_class_or_random_with_half_the_area():
    method, batch = ael(region_area=10 / 1024), make_batch()
    assert batch.extra["partner"].note.tolist() == [0, 1]
    for index in range(20):
        inside, adapted = regions(method, a_prediction(), batch, index)
        expected = torch.zeros(32, 32, dtype=torch.bool)
        expected[3:12, 4:20] = True
        assert torch.equal(inside[0], expected)
        assert is_half_area_box(inside[1])
        assert adapted == 0.5


def test_any_piece_that_exceeds_the_least_area_may_be_cut_out():
    method, batch = ael(region_area=9 / 1024), make_batch()
    areas = [int(regions(method, a_prediction(), batch, index)[0][0].sum()) for index in range(100)]
    assert set(areas) == {9 * 16, 10}
    assert 30 < areas.count(10) < 70


def test_a_piece_ends_where_padding_begins():
    method, batch = ael(region_area=9 / 1024), make_batch()
    valid = torch.ones(2, 32, 32, dtype=torch.bool)
    valid[0, :, 6:] = False
    inside, _ = regions(method, a_prediction(), with_extra(batch, "partner", valid=valid))
    assert inside[0].nonzero().amin(0).tolist() == [3, 4]
    assert inside[0].nonzero().amax(0).tolist() == [9, 5]


def test_without_adaptive_cutmix_every_box_is_random_and_every_image_may_be_a_partner():
    method = ael(adaptive_cutmix=False)
    boxes = []
    for index in range(20):
        inside, adapted = regions(method, a_prediction(), make_batch(), index)
        assert adapted == 0
        boxes += [box for box in inside if is_half_area_box(box)]
    assert len(boxes) == 40
    assert len(torch.stack(boxes).flatten(1).unique(dim=0)) > 30
    chosen = {choice.number for k in range(50) for choice in method.choose(12, np.random.default_rng(k))}
    assert chosen == set(range(12))


def test_what_each_image_shows_is_noted_by_its_number_but_for_padding():
    method, batch = ael(cover_area=0.2), make_batch()
    partner = batch.extra["partner"]._replace(number=torch.tensor([7, 5]))
    regions(method, a_prediction(), batch._replace(extra={**batch.extra, "partner": partner}))
    assert method.chooser.covered_CN.T.tolist() == [
        [True, False, False, False],
        [False, True, False, False],
        *[[False] * 4] * 3,
        [False, False, True, True],  # 225 pixels of class 3 and the rest of class 2
        [False] * 4,
        [False, False, True, False],  # too little of class 0
    ]
    partner.valid[:, 15:] = False
    regions(method, a_prediction(), batch._replace(extra={**batch.extra, "partner": partner}))
    assert method.chooser.covered_CN[3, 5].item() is False


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("threshold", [0.0, 0.6])
def test_labels_certainty_truth_and_padding_are_mixed_by_the_box_that_mixes_the_images(
    mode: str, threshold: float
):
    """The labels are the teacher's of the plain images, in the mode that is set, where it is sure enough."""
    method, batch = ael(label_mode=mode, threshold=threshold, region_area=0.01), padded()
    seen = watch(method.teacher)
    targets = targets_of(method, batch, at(0))
    assert isinstance(targets, AELTargets)
    (plain,) = seen
    first, second = batch.unlabeled, batch.extra["partner"]
    assert plain.training == (mode == "train") and not method.teacher.training
    assert torch.equal(plain.image, torch.cat([first.image, second.image]))
    pseudo = targets.unlabeled
    inside = (pseudo.image == second.image).all(dim=1)
    assert (inside ^ (pseudo.image == first.image).all(dim=1)).all()
    assert inside.any() and targets.diagnostics["cutmix/adapted"] > 0

    def mix(maps: Array | Tensor) -> Array:
        return np.where(inside.numpy(), maps[2:], maps[:2])

    prob = softmax(full(plain))
    confidence, label = mix(prob.max(axis=-1)), mix(prob.argmax(axis=-1))
    entropy = mix(-(prob * np.log(prob)).sum(axis=-1))
    valid = mix(torch.cat([first.valid, second.valid]))
    assert 0.1 < np.mean(confidence < 0.6) < 0.9
    assert np.array_equal(pseudo.valid, valid)
    assert np.array_equal(pseudo.truth, mix(torch.cat([first.mask, second.mask])))
    assert np.array_equal(pseudo.label, np.where(valid, label, IGNORE))
    assert np.allclose(pseudo.entropy, entropy, atol=1e-5)
    assert np.allclose(targets.confidence, confidence, atol=1e-5)
    assert np.array_equal(targets.pseudo_label, np.where(valid & (confidence >= threshold), label, IGNORE))
    assert targets.of_labeled is None


# ---- the consistency loss ------------------------------------------------------------------------------------------


def consistency(
    method: AEL, logits: Tensor, target: Array, confidence: Array, valid: Array, draw_HW: Array
) -> float:
    """Eqs. 11 and 12 of AEL, image by image or group by group; `method` tells which."""
    s, bank = method.settings, method.confidence_C.double().numpy()
    rate = ((1 - bank) / (1 - bank).max()) ** s.beta if s.equalization else np.ones(len(bank))
    said = logits.argmax(dim=1).numpy()
    weight = (draw_HW < rate[said]) * valid * (confidence**s.gamma if s.reweighting else 1)
    loss = weight * pixel_losses(logits, target)
    groups = len(logits) if s.weights_sum == "image" else method.recipe.replicas
    parts = zip(np.split(loss, groups), np.split(weight, groups), strict=True)
    return s.alpha_w * float(np.mean([part.sum() / w.sum() for part, w in parts]))


SWITCHES = [
    {},
    {"equalization": False},
    {"reweighting": False},
    {"equalization": False, "reweighting": False, "labeled_consistency": True},
    {"beta": 2.0, "gamma": 0.5, "alpha_w": 3.0},
    {"threshold": 0.6, "labeled_consistency": True},
    {"threshold": 0.6, "weights_sum": "batch"},
    {"weights_sum": "batch", "replicas": 2, "labeled_consistency": True},
    {"weights_sum": "image", "replicas": 2},
]


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_the_consistency_loss_is_the_weighted_mean_of_aels_equations(
    switches: dict, monkeypatch: pytest.MonkeyPatch
):
    """Pixels without a pseudo-label keep their share of the weights; of labelled images it is a second term."""
    method = ael(batch=4, **switches)
    labeled_consistency = method.settings.labeled_consistency
    method.confidence_C.copy_(torch.tensor([0.6, 0.3, 0.9, 0.1]))
    before = copy.deepcopy(method)
    batch = padded(images=4)
    weighed = spy(monkeypatch, equalization, "weights")
    teachers, students = watch(method.teacher), watch(method.student)
    loss = step_of(method, batch, at(2)).losses["unsupervised"].item()

    draws = [call[4].double().numpy() for call in weighed]
    assert len(draws) == 1 + labeled_consistency
    assert all(np.array_equal(draw, draws[0]) for draw in draws)
    assert draws[0].shape == (32, 32) and abs(draws[0].mean() - 0.5) < 0.05
    targets = targets_of(before, batch, at(2))
    assert isinstance(targets, AELTargets)
    logits = full(students[0])
    prob = softmax(full(teachers[0]))
    inside = (students[0].image[4:] == batch.extra["partner"].image).all(dim=1).numpy()
    confidence = np.where(inside, prob[4:].max(-1), prob[:4].max(-1))
    args = targets.pseudo_label.numpy(), confidence, targets.unlabeled.valid.numpy(), draws[0]
    expected = consistency(before, logits[4:], *args)
    if labeled_consistency:
        shown = targets.labeled
        assert torch.equal(teachers[1].image, shown.image)
        prob, valid = softmax(full(teachers[1])), shown.valid.numpy()
        sure = valid & (prob.max(-1) >= method.settings.threshold)
        target = np.where(sure, prob.argmax(-1), IGNORE)
        expected += consistency(before, logits[:4], target, prob.max(-1), valid, draws[0])
    assert len(teachers) == 1 + labeled_consistency
    assert loss == pytest.approx(expected, rel=2e-4)


def test_images_of_nothing_but_padding_have_no_consistency_loss():
    for over in ("image", "batch"):
        batch = make_batch()
        for stream in (batch.labeled, batch.unlabeled, *batch.extra.values()):
            stream.valid[:] = False
        method = ael(weights_sum=over, labeled_consistency=True)
        losses = step_of(method, batch, at(0)).losses
        assert losses["unsupervised"] == 0
        torch.stack(list(losses.values())).sum().backward()
        assert all(p.grad.isfinite().all() for p in method.student.parameters())


# ---- the confidence bank -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mean", ["image", "pixel"])
@pytest.mark.parametrize("absent", ["keep", "zero"])
@pytest.mark.parametrize("copy_paste", [True, False])
def test_the_bank_follows_the_students_probability_of_the_true_classes_of_labelled_images(
    mean: str, absent: str, copy_paste: bool
):
    """Class 1 has a few pixels of one image and many of the other; no image has class 3."""
    mask = torch.full((2, 32, 32), 2)
    mask[0, :5, :5], mask[1, 4:, :20], mask[1, :4], mask[0, 20:] = 1, 1, 0, IGNORE
    batch = with_extra(changed(make_batch(), "labeled", mask=mask), "paste", mask=mask.flip(2))
    method = ael(confidence_mean=mean, absent_class=absent, confidence_momentum=0.25, copy_paste=copy_paste)
    seen = watch(method.student)
    mask = method.pasted(batch, at(0)).mask if copy_paste else mask
    old = method.confidence_C.double().numpy().copy()
    step_of(method, batch, at(0))
    new = method.confidence_C.clone()

    prob, expected = softmax(full(seen[0])[:2]), []
    for c in range(4):
        own = [prob[b, ..., c][(mask[b] == c).numpy()] for b in range(2)]
        values = [p.mean() for p in own if len(p)] if mean == "image" else [*np.concatenate(own)]
        now = np.mean(values) if values else (old[c] if absent == "keep" else 0.0)
        expected.append(0.25 * old[c] + 0.75 * now)
    assert new.tolist() == pytest.approx(expected, abs=1e-5)
    assert not (mask == 3).any()
    step_of(method, batch, at(1))
    assert torch.equal(method.chooser.confidence_C, new), "that of the step before"


def test_the_bank_starts_at_zero_or_at_random():
    assert ael(confidence_start="zero").confidence_C.tolist() == [0] * 4
    start = ael(confidence_start="random")
    assert len(set(start.confidence_C.tolist())) == 4
    assert ((start.confidence_C >= 0) & (start.confidence_C < 1)).all()
    assert torch.equal(start.confidence_C, start.chooser.confidence_C)


# ---- choosing partners ---------------------------------------------------------------------------------------------


def chooser(*covered: list[int]) -> Chooser:
    """Of images that show these classes."""
    made = Chooser(torch.tensor([0.9, 0.1, 0.5, 0.0]))
    cover = torch.tensor([[c in classes for c in range(4)] for classes in covered])
    made.note(torch.arange(len(covered)), cover)
    return made


@pytest.mark.parametrize("adaptive", [True, False])
def test_an_image_that_shows_the_drawn_class_is_chosen_and_any_where_none_does(adaptive: bool):
    made = chooser([1], [1, 2], [], [0])
    chosen = made.choose(6, 3000, np.random.default_rng(0), adaptive=adaptive)
    for c, having in enumerate([{3}, {0, 1}, {1}, set(range(6))]):
        numbers = [choice.number for choice in chosen if choice.note == c]
        expected = having if adaptive else set(range(6))
        assert set(numbers) == expected
        counts = [numbers.count(number) for number in expected]
        assert min(counts) > 0.6 * max(counts)


def test_a_class_is_drawn_the_more_often_the_less_sure_the_student_is_of_it():
    chosen = chooser([0]).choose(4, 10000, np.random.default_rng(1), adaptive=True)
    weight = np.exp(1 - np.array([0.9, 0.1, 0.5, 0.0]))
    shares = np.bincount([choice.note for choice in chosen]) / len(chosen)
    assert shares == pytest.approx(weight / weight.sum(), abs=0.02)


def test_the_later_view_of_an_image_counts():
    made = chooser([0], [1], [2])
    views = torch.tensor([[True, False, False, False], [False, True, True, False], [False] * 4])
    made.note(torch.tensor([1, 1, 4]), views)
    assert [made.covered_CN[:, n].nonzero().flatten().tolist() for n in range(5)] == [
        [0],
        [1, 2],
        [2],
        [],
        [],
    ]


def test_the_chooser_stays_on_the_cpu_and_travels_in_the_state_of_its_method():
    method = ael()
    train_step(method, optimizer(method), 0, make_batch())
    state = copy.deepcopy(method.state_dict())
    assert {"confidence_C", "chooser.confidence_C", "chooser.covered_CN"} <= set(state)
    assert state["chooser.covered_CN"].shape == (4, 4) and state["chooser.covered_CN"].any()
    assert method.to("meta").chooser.covered_CN.device.type == "cpu"
    assert method.confidence_C.device.type == "meta"

    fresh = ael()
    fresh.chooser.note(torch.tensor([8]), torch.ones(1, 4, dtype=torch.bool))
    fresh.load_state_dict(state)
    assert torch.equal(fresh.chooser.covered_CN, state["chooser.covered_CN"])
    assert torch.equal(fresh.chooser.confidence_C, state["chooser.confidence_C"])
    one, other = (m.choose(12, np.random.default_rng(0)) for m in (method, fresh))
    assert one == other


# ---- settings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ael", "u2pl-ael"])
@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"paste_except": [4]}, r"class 4, and there are 4 classes.*--set paste_except=\[\]$"),
        ({"paste_except": [1, -1]}, r"class -1"),
        ({"paste_except": [1, 2, 3]}, r"leaves no class to paste.*--set copy_paste=false$"),
        ({"weights_sum": "batch", "micro_batch": 1}, r"micro_batch=1.*--set weights_sum=image$"),
        ({"warm_start_epochs": 3}, r"warm start of 3 epochs leaves none of 3"),
    ],
)
def test_settings_that_cannot_work_are_refused_with_one_that_does(name: str, wrong: dict, says: str):
    with pytest.raises(UsageError, match=says):
        build(name, **wrong)


def test_settings_that_look_alike_and_do_work_are_accepted():
    build("ael", paste_except=[1, 2, 3], copy_paste=False)
    build("ael", Classes(4, IGNORE, background=False), paste_except=[1, 2, 3])
    build("ael", weights_sum="image", micro_batch=1)


def test_the_flavours_and_data_sets_have_the_values_of_aels_paper_and_code():
    def hyper(dataset: str, flavor: str) -> dict:
        return dict(PARAMS.resolve(RunSpec(dataset, "1/4", "ael", 0, {"recipe.flavor": flavor})).hyper)

    paper, released = hyper("voc", "paper"), hyper("voc", "released")
    assert {key: (paper[key], released[key]) for key in paper if paper[key] != released[key]} == {
        "teacher_mode": ("eval", "train"),
        "teacher_statistics": ("average", "passes"),
        "warm_teacher": ("copy", "average"),
        "confidence_mean": ("image", "pixel"),
        "absent_class": ("keep", "zero"),
        "paste_power": (1.0, 0.5),
        "weights_sum": ("image", "batch"),
        "labeled_consistency": (False, True),
        "label_mode": ("eval", "train"),
    }
    city = hyper("cityscapes", "paper")
    assert {key: (paper[key], city[key]) for key in paper if paper[key] != city[key]} == {
        "paste_classes": (1, 3),
        "paste_except": ([], [0, 1, 2, 8, 10]),
        "region_area": (0.03, 0.005),
        "cover_area": (0.03, 0.01),
        "threshold": (0.7, 0.0),
    }
