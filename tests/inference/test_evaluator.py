import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from u2pl.data.pictures import read_image
from u2pl.data.prepared import Split, open_split
from u2pl.errors import UserError
from u2pl.inference import evaluator
from u2pl.inference.tta import TTA
from u2pl.models.deeplab import DeepLabV3Plus, Output
from u2pl.project import Project
from u2pl.runs.results import write_samples
from u2pl.settings import Params, Recipe, RunSpec
from u2pl.training.trainer import describe


@pytest.fixture
def split(tiny_project: Project) -> Split:
    return open_split(tiny_project, "tiny", "1/4")


@pytest.fixture
def recipe(tiny_project: Project) -> Recipe:
    return describe(tiny_project, RunSpec("tiny", "1/4", "suponly"))[0].recipe


class Constant(torch.nn.Module):
    """A network that sees one class everywhere, and counts the images it is shown."""

    def __init__(self, label: int = 1) -> None:
        super().__init__()
        self.bias = torch.nn.Parameter(torch.eye(4)[label])
        self.seen = 0

    def forward(self, image: Tensor, *, represent: bool = True) -> Output:
        self.seen += len(image)
        b, _, h, w = image.shape
        return Output(self.bias[None, :, None, None].expand(b, 4, h // 4, w // 4), None)


def test_every_validation_pixel_with_a_label_is_scored_once(split: Split, recipe: Recipe):
    network = Constant()
    result = evaluator.evaluate(network, split, recipe)
    masks = [split.mask(name) for name in split.val]
    assert network.seen == len(split.val)
    assert result.confusion.sum() == sum((mask != split.ignore_index).sum() for mask in masks)
    right, total = (sum(m.sum() for m in ms) for ms in ([m == 1 for m in masks], [m != 255 for m in masks]))
    assert result.iou(split.classes)["square"] == pytest.approx(100 * right / total)


def test_masks_are_scored_at_their_own_size_whatever_the_resize(split: Split, recipe: Recipe):
    full = evaluator.evaluate(Constant(), split, recipe)
    half = evaluator.evaluate(Constant(), split, recipe.model_copy(update={"resize": 0.5}))
    assert torch.equal(full.confusion, half.confusion)


def test_a_network_in_training_mode_is_scored_in_evaluation_mode_and_given_back(split: Split, recipe: Recipe):
    network = DeepLabV3Plus(4, recipe, representation=False).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    first = evaluator.evaluate(network, split, recipe)
    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert torch.equal(first.confusion, evaluator.evaluate(network.eval(), split, recipe).confusion)
    assert not network.training


def many(split: Split, count: int, folder: Path) -> Split:
    """The split with as many validation images; all show two classes but every seventh, which shows all."""
    poor, image = folder / "poor.png", split.val[0]
    labels = np.full((64, 64), 255, np.uint8)
    labels[:, 8:], labels[:, 16:] = 0, 1
    Image.fromarray(labels).save(poor)
    names = [f"{number:03}" for number in range(count)]
    return dataclasses.replace(
        split,
        val=names,
        images=dict.fromkeys(names, split.images[image]),
        masks={name: poor if int(name) % 7 else split.masks[image] for name in names},
    )


def test_half_of_the_samples_are_spread_evenly_and_of_the_others_those_that_show_the_most_classes(
    split: Split, recipe: Recipe, tmp_path: Path
):
    result = evaluator.evaluate(Constant(), many(split, 90, tmp_path), recipe, keep_samples=True)
    assert set(result.samples) == {"015", "045", "075"} | {"000", "007", "014"}
    assert list(result.entropies) == list(result.samples)
    assert all(prediction.shape == (64, 64) for prediction in result.samples.values())
    of_another = evaluator.evaluate(Constant(2), many(split, 90, tmp_path), recipe, keep_samples=True)
    assert list(of_another.samples) == list(result.samples), "whatever the network sees"
    assert evaluator.evaluate(Constant(), many(split, 90, tmp_path), recipe).samples == {}


def test_an_image_that_is_spread_takes_no_place_of_a_rich_one(split: Split, recipe: Recipe, tmp_path: Path):
    result = evaluator.evaluate(Constant(), many(split, 42, tmp_path), recipe, keep_samples=True)
    assert set(result.samples) == {"007", "021", "035"} | {"000", "014", "028"}


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_of_a_few_images_all_are_samples_once(split: Split, recipe: Recipe, tmp_path: Path, count: int):
    few = many(split, count, tmp_path)
    result = evaluator.evaluate(Constant(), few, recipe, keep_samples=True)
    assert sorted(result.samples) == few.val


def test_several_processes_keep_the_samples_of_one(split: Split, recipe: Recipe, tmp_path: Path):
    torch.manual_seed(0)
    network, several = DeepLabV3Plus(4, recipe, representation=False).eval(), many(split, 90, tmp_path)
    alone = evaluator.evaluate(network, several, recipe, keep_samples=True)
    torch.multiprocessing.start_processes(
        _evaluate_together, (network, several, recipe, tmp_path), nprocs=2, start_method="fork"
    )
    for rank in range(2):
        samples, entropies, miou = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert list(samples) == list(entropies) == list(alone.samples) and len(samples) == 6
        assert miou == alone.miou
        for name, prediction in alone.samples.items():
            assert (samples[name] == prediction).float().mean() > 0.999, "other batches round otherwise"
            away = entropies[name].int() - alone.entropies[name].int()
            assert away.abs().max() <= 5 and (away != 0).float().mean() < 0.01, "at most a step"


def _evaluate_together(rank: int, network: DeepLabV3Plus, split: Split, recipe: Recipe, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    result = evaluator.evaluate(network, split, recipe, keep_samples=True)
    torch.save((result.samples, result.entropies, result.miou), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


class Slope(Constant):
    """A network that is sure of class 1 at the left, and of nothing at the right."""

    def forward(self, image: Tensor, *, represent: bool = True) -> Output:
        b, _, h, w = image.shape
        logits = torch.zeros(b, 4, h, w)
        logits[:, 1] = torch.linspace(30, 0, w)
        return Output(logits, None)


@pytest.mark.parametrize("tta", [TTA(), TTA(flip=True), TTA((0.5, 1.0), flip=True)])
@pytest.mark.parametrize("evaluation", ["whole", "sliding", "center"])
def test_entropies_are_of_the_probabilities_that_the_prediction_is_the_likeliest_class_of(
    split: Split, recipe: Recipe, evaluation: str, tta: TTA
):
    recipe = changed(recipe, evaluation=evaluation)
    result = evaluator.evaluate(Slope(), split, recipe, tta=tta, keep_samples=True)
    (names, _, scored), *_ = evaluator.class_scores(Slope(), split, recipe, list(result.samples), tta)
    prob = scored.double() if tta != TTA() else scored.double().softmax(dim=1)
    expected = -(prob * prob.clamp_min(1e-300).log()).sum(dim=1) / math.log(4) * 255
    assert expected.max() - expected.min() > 100
    for name, share in zip(names, expected, strict=True):
        found = result.entropies[name]
        assert found.dtype == torch.uint8 and found.shape == result.samples[name].shape
        assert (found - share).abs().max() <= 2.6, "half a step"


def test_entropy_goes_from_none_to_that_of_equally_likely_classes():
    certain, even = torch.eye(4)[0], torch.full((4,), 0.25)
    prob_CHW = torch.stack([certain, even], dim=1)[:, None]
    assert evaluator.entropy_bytes(prob_CHW).tolist() == [[0, 255]]
    assert evaluator.entropy_bytes(torch.ones(1, 2, 3)).tolist() == [[0] * 3] * 2, "where one class exists"


def test_the_entropy_of_few_images_is_asked_for(
    split: Split, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked = []
    original = evaluator.entropy_bytes
    monkeypatch.setattr(evaluator, "entropy_bytes", lambda prob: asked.append(prob) or original(prob))
    evaluator.evaluate(Constant(), many(split, 90, tmp_path), recipe)
    assert asked == []
    evaluator.evaluate(Constant(), many(split, 90, tmp_path), recipe, keep_samples=True)
    assert 6 <= len(asked) <= 9, "those that are kept, and some that are driven out later"


def test_images_are_scored_each_for_itself_too(split: Split, recipe: Recipe):
    """Over the classes in the truth or the prediction, which is class 1 everywhere."""
    result = evaluator.evaluate(Constant(), split, recipe)
    expected = {}
    for name in split.val:
        mask = split.mask(name)
        labels = mask[mask != 255]
        present = len(set(labels.tolist()) | {1})
        expected[name] = 100 * (labels == 1).mean() / present
    assert list(result.images) == split.val
    assert result.images == pytest.approx(expected)
    assert result.worst(99) == sorted(split.val, key=lambda name: (result.images[name], name))


def test_the_worst_images_are_those_of_the_lowest_miou_and_unlabelled_ones_are_not_among_them():
    images = {"b": 50.0, "void": float("nan"), "a": 50.0, "good": 90.0, "bad": 0.0}
    result = evaluator.Evaluation(torch.eye(2), images=images)
    assert result.worst(0) == []
    assert result.worst(2) == ["bad", "a"]
    assert result.worst(9) == ["bad", "a", "b", "good"]


@pytest.mark.parametrize("evaluation", ["whole", "sliding", "center"])
def test_parts_of_the_validation_set_add_up_to_the_whole(split: Split, recipe: Recipe, evaluation: str):
    recipe = changed(recipe, evaluation=evaluation)
    network = DeepLabV3Plus(4, recipe, representation=False)
    whole = evaluator.evaluate(network, split, recipe)
    parts = [evaluator.evaluate(network, split, recipe, names=split.val[rank::3]) for rank in range(3)]
    assert torch.equal(sum(part.confusion for part in parts), whole.confusion)
    assert {name: value for part in parts for name, value in part.images.items()} == whole.images
    assert [list(part.images) for part in parts] == [split.val[rank::3] for rank in range(3)]


def test_a_part_may_be_empty_and_a_whole_without_labels_is_an_error(split: Split, recipe: Recipe):
    nothing = evaluator.evaluate(Constant(), split, recipe, names=[])
    assert nothing.images == {} and nothing.confusion.tolist() == [[0] * 4] * 4
    with pytest.raises(UserError, match=r"No validation pixel of 'tiny' has a label.*whole image"):
        evaluator.evaluate(Constant(), dataclasses.replace(split, val=[]), recipe)


def test_predictions_are_those_that_were_scored(split: Split, recipe: Recipe):
    network = DeepLabV3Plus(4, recipe, representation=False).train()
    result = evaluator.evaluate(network, split, recipe, keep_samples=True)
    again = evaluator.predictions(network, split, recipe, list(result.samples))
    assert network.training and list(again) == list(result.samples)
    assert all(torch.equal(again[name], sample) for name, sample in result.samples.items())


def test_a_class_that_nowhere_occurs_has_no_iou(split: Split, recipe: Recipe):
    """`None`, since JSON has no NaN."""
    result = evaluator.Evaluation(torch.diag(torch.tensor([3, 2, 1, 0])))
    assert result.iou(split.classes) == {"ground": 100, "square": 100, "disc": 100, "bar": None}
    assert result.miou == 100


def test_a_long_validation_set_is_read_as_it_is_scored_and_not_before(
    split: Split, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """500 images of Cityscapes would be 20 GB."""
    many, read, most_ahead = dataclasses.replace(split, val=split.val * 10), 0, 0
    validation = evaluator.validation

    def counting(*arguments):
        nonlocal read
        for item in validation(*arguments):
            read += 1
            yield item

    class Watching(Constant):
        def forward(self, image: Tensor, *, represent: bool = True) -> Output:
            nonlocal most_ahead
            most_ahead = max(most_ahead, read - self.seen)
            return super().forward(image)

    monkeypatch.setattr(evaluator, "validation", counting)
    evaluator.evaluate(Watching(), many, recipe)
    assert most_ahead <= 10


# ---- what the recipe may change --------------------------------------------------------------------------


def changed(recipe: Recipe, **values: object) -> Recipe:
    return recipe.model_copy(update=values)


def test_a_centre_crop_alone_is_scored(split: Split, recipe: Recipe):
    result = evaluator.evaluate(Constant(), split, changed(recipe, evaluation="center"))
    middles = [split.mask(name)[16:48, 16:48] for name in split.val]
    assert result.confusion.sum() == sum(m.size for m in middles)
    assert result.confusion.sum(1).tolist() == [sum(int((m == c).sum()) for m in middles) for c in range(4)]


@pytest.mark.parametrize(("score_padding", "scored"), [(False, 0), (True, 4 * (32 * 32 - 16 * 16))])
def test_the_padding_of_a_centre_crop_is_ignored_or_scored_as_class_0(
    split: Split, recipe: Recipe, score_padding: bool, scored: int
):
    """Four pictures of 16 x 16 in a crop of 32."""
    options = changed(recipe, evaluation="center", resize=0.25)
    bare = evaluator.evaluate(Constant(0), split, options).confusion
    padded = evaluator.evaluate(Constant(0), split, changed(options, score_padding=score_padding)).confusion
    assert padded[0, 0] - bare[0, 0] == scored
    assert (padded - bare).sum() == scored


def test_an_absent_class_counts_as_0_where_the_recipe_says_so(split: Split, recipe: Recipe):
    counts = torch.diag(torch.tensor([3, 2, 1, 0]))
    assert evaluator.Evaluation(counts).miou == 100
    as_zero = evaluator.Evaluation(counts, absent_as_zero=True)
    assert as_zero.miou == 75
    assert as_zero.iou(split.classes)["bar"] is None, "it still has no IoU of its own"
    for absent_iou, expected in (("skip", False), ("zero", True)):
        result = evaluator.evaluate(Constant(), split, changed(recipe, absent_iou=absent_iou))
        assert result.absent_as_zero == expected


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "whole image, single scale, mask resolution"),
        ({"score_padding": True, "resize": 0.5}, "whole image, single scale, mask resolution"),
        ({"absent_iou": "zero"}, "whole image, single scale, mask resolution, absent classes as 0"),
        ({"evaluation": "center"}, "centre crop of 32, single scale, padding ignored"),
        (
            {"evaluation": "center", "score_padding": True, "absent_iou": "zero", "crop": 513, "resize": 0.5},
            "centre crop of 513 of the image resized by 0.5, single scale, padding scored as class 0, "
            "absent classes as 0",
        ),
    ],
)
def test_the_protocol_names_what_was_done(recipe: Recipe, values: dict, words: str):
    assert evaluator.protocol(changed(recipe, **values)) == words


def test_the_flavours_give_the_same_network_different_scores(tiny_project: Project, split: Split):
    """Padding that is scored as class 0 makes a network that sees class 0 everywhere look better."""
    params = Params.read(tiny_project)
    scores = {}
    for flavor in ("paper", "released"):
        overrides = {"flavor": flavor, "replicas": 1, "resize": 0.25, "evaluation": "center"}
        recipe = params.resolve(params.spec("tiny", "1/4", "suponly", 0, overrides)).recipe
        scores[flavor] = evaluator.evaluate(Constant(0), split, recipe).miou
        assert ("class 0" in evaluator.protocol(recipe)) == (flavor == "released")
    assert scores["released"] > scores["paper"]


@pytest.mark.parametrize(
    ("values", "size"),
    [
        ({}, (64, 64)),
        ({"resize": 0.5}, (64, 64)),
        ({"evaluation": "sliding"}, (64, 64)),
        ({"evaluation": "center"}, (32, 32)),
    ],
)
def test_sample_pictures_show_what_was_scored(
    split: Split, recipe: Recipe, tmp_path: Path, values: dict, size: tuple[int, int]
):
    recipe = changed(recipe, **values)
    result = evaluator.evaluate(Constant(), split, recipe, keep_samples=True)
    write_samples(tmp_path / "samples", split, recipe, result)
    pictures = {path.name: read_image(path) for path in (tmp_path / "samples").iterdir()}
    assert sorted(pictures) == sorted(
        f"{name}.{kind}.png" for name in split.val for kind in ("input", "truth", "prediction", "entropy")
    )
    assert {picture.shape for picture in pictures.values()} == {(*size, 3)}
    for name, entropy_HW in result.entropies.items():
        with Image.open(tmp_path / "samples" / f"{name}.entropy.png") as picture:
            assert picture.mode == "L" and (np.array(picture) == entropy_HW.numpy()).all()
    if size == (32, 32):
        name = next(iter(result.samples))
        assert (pictures[f"{name}.input.png"] == split.image(name)[16:48, 16:48]).all()


def test_sample_pictures_of_two_images_whose_names_become_one_do_not_replace_each_other(
    split: Split, recipe: Recipe, tmp_path: Path
):
    first, second, third = split.val[:3]
    images = {"a/b": first, "a_b": second, "c": third}
    same = dataclasses.replace(
        split,
        val=list(images),
        images={name: split.images[image] for name, image in images.items()},
        masks={name: split.masks[image] for name, image in images.items()},
    )
    result = evaluator.evaluate(Constant(), same, recipe, keep_samples=True)
    write_samples(tmp_path / "samples", same, recipe, result)
    pictures = {path.name: read_image(path) for path in (tmp_path / "samples").glob("*.input.png")}
    assert len(pictures) == 3 and (pictures["c.input.png"] == split.image(third)).all()
    for image in (first, second):
        assert sum((picture == split.image(image)).all() for picture in pictures.values()) == 1


def test_by_windows_every_pixel_is_scored_once_and_a_large_window_is_the_whole_image(
    split: Split, recipe: Recipe
):
    network = DeepLabV3Plus(4, recipe, representation=False)
    whole = evaluator.evaluate(network, split, recipe)
    large, small = (
        evaluator.evaluate(network, split, recipe.model_copy(update={"evaluation": "sliding", "crop": crop}))
        for crop in (64, 32)
    )
    assert torch.equal(large.confusion, whole.confusion)
    assert small.confusion.sum() == whole.confusion.sum()
    counting = Constant()
    evaluator.evaluate(counting, split, recipe.model_copy(update={"evaluation": "sliding", "crop": 32}))
    assert counting.seen == 9 * len(split.val)


def test_windows_of_a_resized_image_are_scored_at_the_resolution_of_the_mask(split: Split, recipe: Recipe):
    network = Constant()
    half = changed(recipe, evaluation="sliding", resize=0.5)
    assert torch.equal(
        evaluator.evaluate(network, split, half).confusion,
        evaluator.evaluate(Constant(), split, recipe).confusion,
    )
    assert network.seen == len(split.val), "half of 64 pixels are one window of 32"


def test_windows_are_said_beside_the_number(recipe: Recipe):
    sliding = recipe.model_copy(update={"evaluation": "sliding", "crop": 769})
    said = "sliding window of 769, stride 513, single scale, mask resolution"
    assert evaluator.protocol(sliding) == said


# ---- scales and mirror images ----------------------------------------------------------------------------


class Columns(Constant):
    """A network that sees class 1 in the left quarter, for sure, and class 2 elsewhere, less so."""

    def forward(self, image: Tensor, *, represent: bool = True) -> Output:
        self.seen += len(image)
        b, _, h, w = image.shape
        logits = torch.zeros(b, 4, h, w)
        logits[:, 2] = 1
        logits[:, 1, :, : w // 4] = 9
        return Output(logits, None)


@pytest.mark.parametrize(("evaluation", "side"), [("whole", 64), ("center", 32)])
def test_with_flip_an_image_is_looked_at_from_both_sides(
    split: Split, recipe: Recipe, evaluation: str, side: int
):
    recipe, network = changed(recipe, evaluation=evaluation), Columns()
    result = evaluator.evaluate(network, split, recipe, tta=TTA(flip=True), keep_samples=True)
    assert network.seen == 2 * len(split.val)
    expected = torch.full((side, side), 2)
    expected[:, : side // 4] = expected[:, -side // 4 :] = 1
    assert all(torch.equal(prediction, expected) for prediction in result.samples.values())
    once = evaluator.evaluate(Columns(), split, recipe, keep_samples=True)
    assert all((prediction[:, -side // 4 :] == 2).all() for prediction in once.samples.values())
    shown = evaluator.predictions(Columns(), split, recipe, split.val, TTA(flip=True))
    assert len(shown) == 4 and all(torch.equal(prediction, expected) for prediction in shown.values())


def test_windows_lie_on_the_scaled_picture(split: Split, recipe: Recipe):
    """Of 64 pixels 32 are one window of 32, 64 are three, and 128 are six (every 22), squared."""
    network = Constant()
    tta, sliding = TTA((0.5, 1.0, 2.0)), changed(recipe, evaluation="sliding")
    result = evaluator.evaluate(network, split, sliding, tta=tta)
    assert network.seen == (1 + 9 + 36) * len(split.val)
    assert torch.equal(result.confusion, evaluator.evaluate(Constant(), split, recipe).confusion)


def test_larger_pictures_are_looked_at_fewer_at_once(
    split: Split, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(evaluator, "_PIXELS", 4 * 64 * 64)
    sizes: list[tuple[int, int]] = []

    class Watching(Constant):
        def forward(self, image: Tensor, *, represent: bool = True) -> Output:
            sizes.append((len(image), image.shape[3]))
            return super().forward(image)

    evaluator.evaluate(Watching(), split, recipe)
    evaluator.evaluate(Watching(), split, recipe, tta=TTA((0.5, 2.0)))
    assert sizes == [(4, 64)] + [(1, 32), (1, 128)] * 4


@pytest.mark.parametrize(
    ("evaluation", "words"),
    [
        ("whole", "whole image, scales 0.5 1 with flip, mask resolution"),
        ("sliding", "sliding window of 32, stride 22, scales 0.5 1 with flip, mask resolution"),
        ("center", "centre crop of 32, scales 0.5 1 with flip, padding ignored"),
    ],
)
def test_scales_and_flip_are_said_beside_the_number(recipe: Recipe, evaluation: str, words: str):
    assert evaluator.protocol(changed(recipe, evaluation=evaluation), TTA.parse("1,0.5", flip=True)) == words
