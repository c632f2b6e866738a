"""What figures are drawn from, against slow recounts of the same pixels."""

import csv
import shutil
from collections import defaultdict, deque
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from u2pl.errors import UsageError, UserError
from u2pl.evidence import comparison, features, figure_runs, history, unlabeled
from u2pl.evidence.comparison import Box, regions
from u2pl.evidence.figure_runs import LoadedRun
from u2pl.files import read_json, write_json
from u2pl.inference.evaluator import predictions
from u2pl.methods.mt import MeanTeacherTargets
from u2pl.methods.u2pl import U2PL, Contrast
from u2pl.project import Project
from u2pl.runs.folder import RunFolder
from u2pl.settings import RunSpec
from u2pl.training import trainer

SUPONLY, RUN = "tiny-1_4-suponly-s0", "tiny-1_4-u2pl-s0"
CLASSES = ("ground", "square", "disc", "bar")


@dataclass
class Trained:
    """A project with two finished runs, and what the second one's steps found out while it trained."""

    project: Project
    targets: list[MeanTeacherTargets]
    found: list[tuple[Tensor, Tensor]]
    """Negatives of each class, and the true classes of the pixels."""
    anchors: list[Tensor]
    """Anchors of each class."""


@pytest.fixture(scope="module")
def trained(tiny_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    root = Path(shutil.copytree(tiny_template, tmp_path_factory.mktemp("evidence") / "project"))
    result = Trained(Project(root), [], [], [])
    shutil.rmtree(result.project.runs, ignore_errors=True)  # other tests may have trained the same run there
    targets, diagnose = U2PL.targets, Contrast.diagnose

    def noted_targets(self: Any, *arguments: Any) -> MeanTeacherTargets:
        result.targets.append(targets(self, *arguments))
        return result.targets[-1]

    def noted_diagnose(
        self: Any, comparisons: Any, anchor_CP: Tensor, negative_CP: Tensor, truth_P: Tensor
    ) -> Any:
        result.found.append((negative_CP, truth_P))
        result.anchors.append(anchor_CP)
        return diagnose(self, comparisons, anchor_CP, negative_CP, truth_P)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("U2PL_TRACKING", "none")
        trainer.train(result.project, RunSpec("tiny", "1/4", "suponly"))
        patch.setattr(U2PL, "targets", noted_targets)
        patch.setattr(Contrast, "diagnose", noted_diagnose)
        trainer.train(result.project, RunSpec("tiny", "1/4", "u2pl"))
    return result


@pytest.fixture
def subjects(trained: Trained) -> list[LoadedRun]:
    """The two runs, the supervised one first."""
    return opened(trained.project, SUPONLY, RUN)


def opened(project: Project, *names: str) -> list[LoadedRun]:
    return [figure_runs.load(project, named) for named in figure_runs.find(project, names)]


def without_masks(run: LoadedRun) -> LoadedRun:
    masks = {name: path for name, path in run.split.masks.items() if name not in run.split.unlabeled}
    return replace(run, split=replace(run.split, masks=masks))


# ---- what training records ------------------------------------------------------------------------------


def epochs_of(steps: list, per_epoch: int = 6) -> dict[int, list]:
    """The warm start is one epoch."""
    return {1 + k: steps[per_epoch * k : per_epoch * (k + 1)] for k in range(len(steps) // per_epoch)}


def recorded(trained: Trained, measure: str) -> dict[tuple[int, str], float]:
    with (trained.project.runs / RUN / "history.csv").open(newline="") as file:
        return {
            (int(row["epoch"]), c): float(row[f"train/{measure}/{c}"])
            for row in csv.DictReader(file)
            for c in CLASSES
            if row.get(f"train/{measure}/{c}")
        }


def shares(counts: dict[tuple[int, str], list[int]]) -> dict[tuple[int, str], float]:
    return {key: part / whole for key, (part, whole) in counts.items() if whole}


def test_the_share_of_reliable_pixels_and_their_right_labels_are_recorded_by_true_class(trained: Trained):
    share, right = defaultdict(lambda: [0, 0]), defaultdict(lambda: [0, 0])
    for epoch, steps in epochs_of(trained.targets).items():
        for targets in steps:
            maps = (targets.unlabeled.truth, targets.unlabeled.valid, targets.pseudo_label)
            for truth, valid, target in zip(*(each.flatten().tolist() for each in maps), strict=True):
                if truth == 255 or not valid:
                    continue
                share[epoch, CLASSES[truth]][0] += target != 255
                share[epoch, CLASSES[truth]][1] += 1
                right[epoch, CLASSES[truth]][0] += target == truth
                right[epoch, CLASSES[truth]][1] += target != 255
    assert len(share) == 2 * len(CLASSES)
    assert recorded(trained, "reliable/share") == pytest.approx(shares(share), abs=1e-12)
    assert recorded(trained, "reliable/accuracy") == pytest.approx(shares(right), abs=1e-12)


def test_all_classes_together_are_the_sums_of_their_counts(trained: Trained):
    counts = defaultdict(lambda: [0, 0])
    for epoch, steps in epochs_of(trained.targets).items():
        for targets in steps:
            known = (targets.unlabeled.truth != 255) & targets.unlabeled.valid
            counts[epoch][0] += int((known & (targets.pseudo_label != 255)).sum())
            counts[epoch][1] += int(known.sum())
    (named,) = figure_runs.find(trained.project, [RUN])
    curves = history.reliability(trained.project, [named]).runs[0]
    assert curves.summed
    overall = dict(curves.overall["reliable/share"])
    assert overall == pytest.approx({epoch: part / whole for epoch, (part, whole) in counts.items()})
    for measure, points in curves.overall.items():
        for epoch, value in points:
            of_classes = [
                dict(line)[epoch] for line in curves.by_class[measure].values() if epoch in dict(line)
            ]
            assert min(of_classes) - 1e-12 <= value <= max(of_classes) + 1e-12


def test_a_run_that_recorded_no_sum_of_its_classes_is_read_with_the_mean_over_steps(
    trained: Trained, tmp_path: Path
):
    (named,) = figure_runs.find(trained.project, [RUN])
    row = {"epoch": 1, "step": 6, "train/reliable/share": 0.8, "train/reliable/share/disc": 0.7}
    RunFolder(tmp_path).write_history([row])
    (run,) = history.reliability(trained.project, [replace(named, folder=tmp_path)]).runs
    assert not run.summed
    assert run.overall["reliable/share"] == [(1, 0.8)]


def test_a_false_negative_is_a_pixel_pushed_into_the_bank_of_the_class_it_is_of(trained: Trained):
    false = defaultdict(lambda: [0, 0])
    for epoch, steps in epochs_of(trained.found).items():
        for negative_CP, truth_P in steps:
            for c, row in enumerate(negative_CP.tolist()):
                for pushed, truth in zip(row, truth_P.tolist(), strict=True):
                    if (
                        pushed and truth != 255
                    ):  # of labelled pixels truth_P does not know, and Eq. 14 lets in none
                        false[epoch, CLASSES[c]][0] += truth == c
                        false[epoch, CLASSES[c]][1] += 1
    assert recorded(trained, "negatives/false") == pytest.approx(shares(false), abs=1e-12)
    assert any(shares(false).values())


def test_of_what_the_bank_holds_after_each_step_it_is_recorded_how_much_is_false(trained: Trained):
    """Of a class its newest 40 negatives, of the background 60; those of labelled pixels are known to be right."""
    held = [deque[bool | None](maxlen=60 if c == 0 else 40) for c in range(len(CLASSES))]
    false = defaultdict(lambda: [0, 0])
    for epoch, steps in epochs_of(trained.found).items():
        for negative_CP, truth_P in steps:
            half = len(truth_P) // 2
            for c, queue in enumerate(held):
                for pixel in negative_CP[c].nonzero().flatten().tolist():
                    truth = int(truth_P[pixel])
                    queue.append(False if pixel < half else None if truth == 255 else truth == c)
                false[epoch, CLASSES[c]][0] += queue.count(True)
                false[epoch, CLASSES[c]][1] += len(queue) - queue.count(None)
    assert recorded(trained, "bank/false") == pytest.approx(shares(false), abs=1e-12)
    assert any(shares(false).values())
    assert recorded(trained, "bank/false") != recorded(trained, "negatives/false")


def test_anchors_of_a_class_are_recorded_as_a_mean_over_the_steps(trained: Trained):
    expected = {
        (epoch, name): float(torch.stack([anchor_CP[c].sum() for anchor_CP in steps]).double().mean())
        for epoch, steps in epochs_of(trained.anchors).items()
        for c, name in enumerate(CLASSES)
    }
    assert recorded(trained, "contrast/anchors") == pytest.approx(expected)
    assert any(expected.values())


@pytest.mark.slow
def test_nothing_is_counted_by_masks_that_no_setting_opens(trained: Trained, tmp_path: Path):
    project = Project(Path(shutil.copytree(trained.project.root, tmp_path / "project")))
    words = {"recipe.unlabeled_truth": False, "recipe.epochs": 2, "u2pl.warm_start_epochs": 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("U2PL_TRACKING", "none")
        run = trainer.train(project, RunSpec("tiny", "1/4", "u2pl", 0, words))
    header = (run / "history.csv").read_text().splitlines()[0]
    assert "train/reliable/share" in header and "train/reliable/share/" not in header
    with pytest.raises(
        UserError, match=r"without opening the masks .* u2pl train .* --set unlabeled_truth=true$"
    ):
        history.reliability(project, figure_runs.find(project, [run.name]))


def test_the_curves_of_a_run_are_what_its_history_says(trained: Trained):
    found = history.reliability(trained.project, figure_runs.find(trained.project, [RUN]))
    assert found.classes == list(CLASSES)
    (run,) = found.runs
    for measure in history.MEASURES:
        points = {(e, c): v for c, line in run.by_class[measure].items() for e, v in line}
        assert points == recorded(trained, measure)
        assert [epoch for epoch, _ in run.overall[measure]] == [1, 2]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, "has no pseudo-labels, or its warm start is not over. Name a run that has some."),
        ({"imported": {"file": "x"}}, "it was imported, and not trained here. Name a run that u2pl trained."),
    ],
)
def test_why_a_run_recorded_nothing_is_said(trained: Trained, change: dict[str, Any], says: str):
    (named,) = figure_runs.find(trained.project, [SUPONLY])
    with pytest.raises(UserError, match=says):
        history.reliability(trained.project, [replace(named, record={**named.record, **change})])


def test_a_run_of_before_there_were_such_numbers_and_one_without_masks_are_told_apart(
    trained: Trained, tmp_path: Path
):
    (named,) = figure_runs.find(trained.project, [RUN])
    old = replace(named, folder=tmp_path)
    writer = RunFolder(tmp_path)
    writer.write_history(
        [{"epoch": 1, "step": 6, "train/reliable/share": 0.8, "train/reliable/accuracy": 0.7}]
    )
    with pytest.raises(
        UserError, match=r"before u2pl recorded that\. Delete .*, then train it again with: u2pl"
    ):
        history.reliability(trained.project, [old])
    writer.write_history([{"epoch": 1, "step": 6, "train/reliable/share": 0.8}])
    with pytest.raises(UserError, match="no unlabelled image of its split has a mask"):
        history.reliability(trained.project, [old])
    writer.write_history([])
    with pytest.raises(UserError, match=r"no epoch of it has ended yet\. Go on with: u2pl train"):
        history.reliability(trained.project, [old])


# ---- Figs. 1 and 2 --------------------------------------------------------------------------------------


def recount(run: LoadedRun, names: list[str]) -> tuple[NDArray, NDArray, NDArray]:
    """Truth, prediction and entropy of all pixels, in float64 from the network's logits at mask resolution."""
    truths, labels, entropies = [], [], []
    for name in names:
        image = (run.split.image(name) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        with torch.no_grad():
            logits = run.network(torch.tensor(image).permute(2, 0, 1)[None].float()).logits
        size = run.split.image(name).shape[:2]
        logits = torch.nn.functional.interpolate(logits, size, mode="bilinear", align_corners=True)
        prob = logits[0].double().softmax(0).numpy()
        labels.append(prob.argmax(0).ravel())
        entropies.append(-(prob * np.log(prob)).sum(0).ravel())
        truths.append(run.split.mask(name).ravel())
    return np.concatenate(truths), np.concatenate(labels), np.concatenate(entropies)


@pytest.mark.parametrize("alpha", [None, 0.5, 0.0])
def test_reliable_pixels_of_each_class_are_those_below_the_quantile_of_all(
    subjects: list[LoadedRun], alpha: float | None
):
    run = subjects[1]
    found = unlabeled.class_reliability(run, alpha=alpha)
    truth, label, entropy = recount(run, run.split.unlabeled)
    expected_alpha = 0.2 if alpha is None else alpha
    assert (found.alpha, found.images, found.by_truth) == (expected_alpha, len(run.split.unlabeled), True)
    # The threshold is an edge of narrow bins, so that a few pixels lie between it and the quantile.
    if alpha != 0:
        gamma = np.percentile(entropy, 100 * (1 - expected_alpha))
        assert found.gamma == pytest.approx(gamma, abs=2 * np.sqrt(gamma * np.log(4)) / unlabeled.BINS + 1e-5)
    assert found.reliable_share == pytest.approx(1 - expected_alpha, abs=1e-3)
    for c in range(4):
        reliable = ((truth == c) & (entropy < found.gamma)).sum()
        assert abs(found.reliable_C[c] - reliable) <= 3  # float32
        assert found.reliable_C[c] + found.unreliable_C[c] == (truth == c).sum()
        known = truth != 255
        union = ((truth == c) | (label == c)) & known
        assert found.iou_C[c] == pytest.approx(
            100 * ((truth == c) & (label == c)).sum() / union.sum(), abs=0.1
        )


def test_void_pixels_count_for_the_threshold_but_for_no_class(subjects: list[LoadedRun]):
    run = subjects[1]
    found = unlabeled.entropy_histogram(run, run.split.unlabeled, by_truth=True)
    masks = np.stack([run.split.mask(name) for name in run.split.unlabeled])
    assert found.counts_GK.sum(1).tolist() == [*((masks == c).sum() for c in range(4)), (masks == 255).sum()]


def test_without_masks_pixels_are_counted_by_predicted_class_and_there_is_no_iou(subjects: list[LoadedRun]):
    run = without_masks(subjects[1])
    found = unlabeled.class_reliability(run, images=5)
    chosen = [run.split.unlabeled[k] for k in (0, 2, 4, 7, 9)]
    _, label, entropy = recount(subjects[1], chosen)
    assert found.images == 5 and found.iou_C is None and not found.by_truth
    assert (found.reliable_C + found.unreliable_C).sum() == len(label)
    for c in range(4):
        assert abs(found.reliable_C[c] - ((label == c) & (entropy < found.gamma)).sum()) <= 3


def test_entropy_edges_cover_all_entropies_and_are_narrow_where_entropies_are_low():
    edges = unlabeled.entropy_edges(21)
    widths = edges.diff()
    assert edges[0] == 0 and edges[-1] > np.log(21)
    assert widths.max() < 0.011 and (widths[:-1].max() < 1e-4) and (widths[edges[:-1] < 1e-3].max() < 2e-6)
    assert (widths > 0).all()


def test_the_image_shown_has_most_classes_and_its_pixels_are_the_typical_ones(subjects: list[LoadedRun]):
    run = subjects[1]
    found = unlabeled.image_reliability(run, images=None)
    again = unlabeled.image_reliability(run, images=None)
    keys = {}
    for name in run.split.unlabeled:
        _, label, entropy = recount(run, [name])
        keys[name] = (int((np.bincount(label, minlength=4) >= 0.01 * label.size).sum()), entropy.mean())
    assert found.image == max(keys, key=keys.__getitem__) == again.image
    _, label, entropy = recount(run, [found.image])
    reliable = entropy < found.gamma
    assert (found.reliable_HW.ravel() == reliable).mean() > 0.999
    assert found.label_HW.ravel().tolist() == label.tolist()
    for view, among in ((found.reliable, reliable & (label != 0)), (found.unreliable, ~reliable)):
        among = among if among.any() else reliable
        assert view.entropy == pytest.approx(np.quantile(entropy[among], 0.5, method="lower"), abs=1e-3)
        assert view.entropy == pytest.approx(-(view.prob_C * np.log(view.prob_C)).sum(), abs=1e-4)
        assert found.entropy_HW[view.row, view.column] == pytest.approx(view.entropy)
    assert again.reliable.row == found.reliable.row and again.unreliable.column == found.unreliable.column


def test_an_image_can_be_named_and_one_that_is_not_unlabelled_is_refused(subjects: list[LoadedRun]):
    run = subjects[1]
    name = run.split.unlabeled[3]
    assert unlabeled.image_reliability(run, image=name, images=2).image == name
    with pytest.raises(
        UsageError, match=r"has no unlabelled image .*[.?] Their names stand in .*unlabeled\.txt"
    ):
        unlabeled.image_reliability(run, image=run.split.labeled[0])


def test_of_no_pixel_there_is_no_median_and_of_two_the_lower_one():
    value = np.array([[3, 1], [2, 9]], np.float32)
    assert unlabeled.median_pixel(value, np.zeros((2, 2), bool)) is None
    assert unlabeled.median_pixel(value, np.array([[True, True], [False, False]])) == (0, 1)


def test_a_share_must_be_known_and_be_one(subjects: list[LoadedRun]):
    with pytest.raises(UsageError, match=r"has no alpha0: its method \(suponly\).*--alpha 0\.2"):
        unlabeled.class_reliability(subjects[0])
    assert unlabeled.class_reliability(subjects[0], alpha=0.2, images=1).images == 1
    with pytest.raises(UsageError, match="from 0 to 1, not 20"):
        unlabeled.class_reliability(subjects[1], alpha=20)


# ---- Fig. 4 ---------------------------------------------------------------------------------------------


def parts(mask: NDArray) -> list[tuple[int, Box]]:
    """Size and bounding box of each part of a mask, found by flooding."""
    left, found = {tuple(map(int, place)) for place in np.argwhere(mask)}, []
    while left:
        front, part = [left.pop()], set()
        while front:
            y, x = front.pop()
            part.add((y, x))
            around = {(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= around
            front += around
        ys, xs = zip(*part, strict=True)
        found.append((len(part), Box(min(ys), min(xs), max(ys) - min(ys) + 1, max(xs) - min(xs) + 1)))
    return sorted(found, key=lambda item: -item[0])


def opened_by_hand(mask: NDArray) -> NDArray:
    """A pixel stays where some 3 x 3 square inside the mask covers it."""
    stays = np.zeros_like(mask)
    for y in range(mask.shape[0] - 2):
        for x in range(mask.shape[1] - 2):
            if mask[y : y + 3, x : x + 3].all():
                stays[y : y + 3, x : x + 3] = True
    return stays


@pytest.mark.parametrize("seed", range(5))
def test_regions_are_the_boxes_of_the_largest_connected_parts(seed: int):
    rng = np.random.default_rng(seed)
    mask = np.kron(rng.random((12, 15)) < 0.3, np.ones((4, 4))).astype(bool)
    mask ^= rng.random(mask.shape) < 0.02
    expected = parts(opened_by_hand(mask))
    found = regions(mask, most=50, least=0)
    assert set(found) == {box for _, box in expected}
    top = regions(mask, most=2, least=0.01)
    assert [size for size, box in expected if box in top] == [
        s for s, _ in expected if s >= 0.01 * mask.size
    ][:2]


def test_a_line_along_a_border_is_no_region():
    mask = np.zeros((40, 40), bool)
    mask[:, 10:12] = True
    assert regions(mask) == []
    mask[20:30, 20:25] = True
    assert regions(mask) == [Box(20, 20, 10, 5)]


def test_a_comparison_shows_the_highest_gains_and_the_lowest_at_the_end(subjects: list[LoadedRun]):
    found = comparison.compare(subjects, rows=3)
    split = subjects[0].split
    first, last = (predictions(s.network, s.split, s.recipe, split.val) for s in subjects)
    change = {}
    for name in split.val:
        truth = split.mask(name)
        known = truth != 255
        change[name] = 100 * (
            (last[name].numpy() == truth)[known].mean() - (first[name].numpy() == truth)[known].mean()
        )
    order = sorted(split.val, key=lambda name: -change[name])
    assert [row.image for row in found.rows] == [order[0], order[1], order[-1]]
    assert found.labels == ["suponly", "u2pl"] and found.looked_at == len(split.val)
    for row in found.rows:
        assert row.change == pytest.approx(change[row.image], abs=1e-4)
        truth, (one, two) = split.mask(row.image), row.predictions
        assert (one == first[row.image].numpy()).all() and (two == last[row.image].numpy()).all()
        assert row.gains == regions((two == truth) & (one != truth) & (truth != 255))
        assert row.losses == regions((one == truth) & (two != truth) & (truth != 255))


def test_images_that_are_neighbours_in_the_list_are_not_shown_together():
    change = {f"{k:03}": float(k == 50) * 9 + float(k in (51, 54)) * 8 + float(k == 90) for k in range(100)}
    change["030"] = -1
    assert comparison.most_different(change, 4) == ["050", "090", "000", "030"]
    assert comparison.most_different(change, 1) == ["050"]
    assert comparison.most_different({"a": 1.0, "b": 2.0}, 4) == ["b", "a"]


def test_runs_that_are_scored_differently_or_on_other_images_are_not_compared(subjects: list[LoadedRun]):
    one, two = subjects
    other = replace(two, recipe=two.recipe.model_copy(update={"evaluation": "sliding"}))
    with pytest.raises(UsageError, match="Name runs that are scored alike"):
        comparison.compare([one, other])
    other = replace(two, split=replace(two.split, val=two.split.val[1:]))
    for refuses in (comparison.compare, features.embed):
        with pytest.raises(UsageError, match="different validation images"):
            refuses([one, other])


# ---- Fig. A2 --------------------------------------------------------------------------------------------


def test_equally_many_pixels_of_each_class_are_drawn_and_none_twice(subjects: list[LoadedRun]):
    split = subjects[0].split
    pixels = features.balanced_pixels(split, split.val, 40)
    assert len(set(pixels)) == len(pixels) == 4 * 40
    assert pixels == features.balanced_pixels(split, split.val, 40)
    for c in range(4):
        mine = [pixel for pixel in pixels if pixel.of_class == c]
        assert len(mine) == 40
        assert all(split.mask(p.image)[p.row, p.column] == c for p in mine)
    fewest = min(sum((split.mask(n) == c).sum() for n in split.val) for c in range(4))
    left = {pixel.of_class for pixel in features.balanced_pixels(split, split.val, int(fewest) + 1)}
    assert len(left) == 3, "a class with too few pixels is left out"


def test_every_pixel_of_a_class_is_drawn_alike(subjects: list[LoadedRun]):
    split = subjects[0].split
    discs = {name: int((split.mask(name) == 2).sum()) for name in split.val}
    every = features.balanced_pixels(split, split.val, sum(discs.values()))
    assert {n: sum(p.image == n and p.of_class == 2 for p in every) for n in split.val} == discs


def test_features_are_read_at_the_pixels_as_logits_are_upsampled():
    torch.manual_seed(0)
    map_1DHW = torch.randn(1, 3, 5, 7)
    size = (33, 21)
    whole = torch.nn.functional.interpolate(map_1DHW, size, mode="bilinear", align_corners=True)[0]
    places = [(0, 0), (32, 20), (4, 13), (31, 2)]
    found = features.at_pixels(map_1DHW, places, size)
    assert torch.allclose(found, torch.stack([whole[:, y, x] for y, x in places]), atol=1e-5)


def test_the_features_are_those_that_the_heads_read(subjects: list[LoadedRun]):
    """The classifier, given them, says what the network says."""
    run = subjects[1]
    name = run.split.val[0]
    heads: list[Tensor] = []
    hook = run.network.classifier[0].register_forward_pre_hook(lambda module, given: heads.append(given[0]))
    predictions(run.network, run.split, run.recipe, [name])
    hook.remove()
    size = run.split.image(name).shape[:2]
    pixels = [features.Pixel(name, 0, 0, 0), features.Pixel(name, 63, 63, 0), features.Pixel(name, 20, 31, 0)]
    expected = features.at_pixels(heads[0], [(p.row, p.column) for p in pixels], size)
    assert np.allclose(features.pixel_features(run, pixels), expected.numpy(), atol=1e-5)
    assert not run.network.classifier[0]._forward_pre_hooks


def test_agreement_is_the_share_of_nearest_neighbours_of_the_same_class():
    rng = np.random.default_rng(0)
    point, of_class = rng.normal(size=(60, 4)).astype(np.float32), rng.integers(0, 3, 60)
    hits = 0
    for k in range(60):
        distance = ((point.astype(float) - point[k]) ** 2).sum(1)
        nearest = [n for n in np.argsort(distance) if n != k][: features.NEIGHBORS]
        hits += (of_class[nearest] == of_class[k]).sum()
    assert features.agreement(point, of_class) == pytest.approx(hits / (60 * features.NEIGHBORS))


def test_an_embedding_has_the_same_pixels_for_both_runs_and_is_the_same_every_time(subjects: list[LoadedRun]):
    found, again = (features.embed(subjects, per_class=15) for _ in range(2))
    assert np.bincount(found.class_P).tolist() == [15] * 4 and found.left_out == []
    assert [run.label for run in found.runs] == ["suponly", "u2pl"]
    for one, two in zip(found.runs, again.runs, strict=True):
        assert one.position_P2.shape == (60, 2) and (one.position_P2 == two.position_P2).all()
    with pytest.raises(UserError, match="Look at more of them with --images"):
        features.embed(subjects, per_class=10**6)


# ---- which runs -----------------------------------------------------------------------------------------


def test_a_label_says_the_method_and_what_differs_from_its_defaults():
    def run(method: str, seed: int = 0, split: str = "1/8", **overrides: object) -> dict[str, Any]:
        return {"method": method, "seed": seed, "split": split, "overrides": overrides}

    changed = {"u2pl.negatives": "all", "recipe.epochs": 2}
    assert figure_runs.default_labels([run("suponly"), run("u2pl", **changed)]) == [
        "suponly",
        "u2pl, negatives=all, epochs=2",
    ]
    assert figure_runs.default_labels([run("mt"), run("mt", 1)]) == ["mt, 1/8, seed 0", "mt, 1/8, seed 1"]


def test_runs_of_different_data_sets_are_refused(trained: Trained, tmp_path: Path):
    other = tmp_path / "other"
    other.mkdir()
    write_json(other / "run.json", read_json(trained.project.runs / RUN / "run.json") | {"dataset": "voc"})
    with pytest.raises(UsageError, match="different data sets: tiny, voc"):
        figure_runs.find(trained.project, [RUN, str(other)])


def test_images_are_spread_over_the_list():
    names = list("abcdefghij")
    assert figure_runs.evenly_spaced(names, None) == names == figure_runs.evenly_spaced(names, 99)
    assert figure_runs.evenly_spaced(names, 3) == ["a", "d", "g"]
