import dataclasses

import pytest
import torch
from torch import Tensor

from u2pl.data.prepared import Split, open_split
from u2pl.engine import evaluator
from u2pl.engine.trainer import describe
from u2pl.models.deeplab import DeepLabV3Plus, Output
from u2pl.project import Project
from u2pl.settings import Recipe, RunSpec


@pytest.fixture
def split(tiny_project: Project) -> Split:
    return open_split(tiny_project, "tiny", "1/4")


@pytest.fixture
def recipe(tiny_project: Project) -> Recipe:
    return describe(tiny_project, RunSpec("tiny", "1/4", "suponly"))[0].recipe


class Constant(torch.nn.Module):
    """A network that sees class 1 everywhere, and counts the images it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = torch.nn.Parameter(torch.tensor([0.0, 1, 0, 0]))
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


def test_samples_are_the_images_that_show_the_most_classes(split: Split, recipe: Recipe):
    result = evaluator.evaluate(Constant(), split, recipe, keep_samples=True)
    shown = {name: len(set(split.mask(name).flatten().tolist())) for name in split.val}
    assert len(result.samples) == 3
    assert min(shown[name] for name in result.samples) >= max(
        n for k, n in shown.items() if k not in result.samples
    )
    assert all(prediction.shape == (64, 64) for prediction in result.samples.values())


def test_a_class_that_nowhere_occurs_has_no_iou(split: Split, recipe: Recipe):
    """`None`, since JSON has no NaN."""
    result = evaluator.Evaluation(torch.diag(torch.tensor([3, 2, 1, 0])))
    assert result.iou(split.classes) == {"ground": 100, "square": 100, "disc": 100, "bar": None}
    assert result.miou == 100


def test_a_long_validation_set_is_read_as_it_is_scored_and_not_before(
    split: Split, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
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
