"""A tiny method, a batch of coloured squares, a training loop of four lines, and ways to watch it work."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest
import torch
from tiny import make_project
from torch import Tensor, nn

from u2pl import methods
from u2pl.batches.loader import Batch, Images
from u2pl.methods import Classes, Method, Step
from u2pl.models.deeplab import Output
from u2pl.settings import Params, RunSpec
from u2pl.training.step import Losses, StepResult, losses_of, targets_of

CLASSES = Classes(4, ignore_index=255, background=True)
EPOCH_STEPS, EPOCHS = 5, 4

with TemporaryDirectory() as _folder:
    PARAMS = Params.read(make_project(Path(_folder)))


def build(name: str, classes: Classes = CLASSES, **overrides: object) -> Method:
    """A method of tiny size in training mode, the same weights every time; overrides by their short names."""
    torch.manual_seed(0)
    dotted = {PARAMS.full_key(key, name): value for key, value in overrides.items()}
    resolved = PARAMS.resolve(RunSpec("tiny", "1/4", name, 0, dotted))
    return methods.create(name, classes, resolved.recipe, resolved.hyper).train()


def make_batch(seed: int = 0, classes: int = CLASSES.count, size: int = 32, images: int = 2) -> Batch:
    """As many labelled as unlabelled images of four squares, whose colours tell their classes.

    The streams of all methods are there too: what is to be pasted is labelled, and a partner was chosen by its number.
    """
    labeled, unlabeled, paste, partner = (
        squares(seed + k, classes, size, 2 * images) for k in (0, 0, 1000, 2000)
    )
    first, second = slice(0, images), slice(images, 2 * images)
    partner = partner.part(first)._replace(
        number=torch.arange(images) + images, note=torch.arange(images) % classes
    )
    return Batch(
        labeled.part(first),
        unlabeled.part(second)._replace(number=torch.arange(images)),
        {"paste": paste.part(first), "partner": partner},
    )


def squares(seed: int, classes: int, size: int, images: int) -> Images:
    """Images of four squares."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.randint(0, classes, (images, 2, 2), generator=generator)
    mask = mask.repeat_interleave(size // 2, 1).repeat_interleave(size // 2, 2)
    colors = torch.randn(classes, 3, generator=torch.Generator().manual_seed(99))
    noise = torch.randn(images, 3, size, size, generator=generator)
    image = colors[mask].permute(0, 3, 1, 2) + 0.2 * noise
    mask[:, :1] = CLASSES.ignore_index
    return as_images(image, mask)


def as_images(image: Tensor, mask: Tensor) -> Images:
    """Images without padding, numbered."""
    number = torch.arange(len(image))
    return Images(image, mask, torch.ones_like(mask, dtype=torch.bool), number, torch.zeros_like(number))


def changed(batch: Batch, stream: str, **tensors: Tensor) -> Batch:
    """A batch of which some tensors of one stream are replaced."""
    return batch._replace(**{stream: getattr(batch, stream)._replace(**tensors)})


def at(index: int) -> Step:
    """Where training stands; the generator depends on the step alone."""
    return Step(index, index // EPOCH_STEPS, EPOCHS, EPOCH_STEPS, torch.Generator().manual_seed(index))


class Optimizers:
    """Those of a method, where one is wanted; SGD with a learning rate of the test's and without weight decay."""

    def __init__(self, method: Method, lr: float):
        self.each = method.optimizers()
        for sgd in self.each:
            if isinstance(sgd, torch.optim.SGD):
                for group in sgd.param_groups:
                    group.update(lr=lr, momentum=0.9, weight_decay=0)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for each in self.each for group in each.param_groups]

    def zero_grad(self) -> None:
        for each in self.each:
            each.zero_grad()

    def step(self) -> None:
        for each in self.each:
            each.step()

    def state_dict(self) -> list[dict[str, Any]]:
        return [each.state_dict() for each in self.each]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        for each, state in zip(self.each, states, strict=True):
            each.load_state_dict(state)


def optimizer(method: Method, lr: float = 0.01) -> Optimizers:
    """As the engine's."""
    return Optimizers(method, lr)


def step_of(method: Method, batch: Batch, step: Step) -> StepResult:
    """All losses of this process's images at once, with their gradient."""
    targets = targets_of(method, batch, step)
    whole: Losses = {}
    for losses in losses_of(method, targets, step):
        for name, loss in losses.items():
            whole[name] = whole[name] + loss if name in whole else loss
    return StepResult(whole, targets.diagnostics, targets.class_counts)


def train_step(method: Method, sgd: Optimizers, index: int, batch: Batch) -> dict[str, Tensor]:
    """One step of training, with dropout seeded by its number; its losses."""
    torch.manual_seed(index)
    losses = step_of(method, batch, at(index)).losses
    sgd.zero_grad()
    torch.stack(list(losses.values())).sum().backward()
    sgd.step()
    method.after_update(at(index))
    return {name: loss.detach() for name, loss in losses.items()}


def warm_steps(method: Method) -> int:
    """Steps before the unlabelled images count; 0 for a method without a warm start."""
    return getattr(method.settings, "warm_start_epochs", 0) * EPOCH_STEPS


def spy(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> list[tuple]:
    """Everything `owner.name` is called with from now on; it still does its work."""
    calls: list[tuple] = []
    original = getattr(owner, name)

    def call(*arguments, **named):
        calls.append((*arguments, *named.values()))
        return original(*arguments, **named)

    monkeypatch.setattr(owner, name, call)
    return calls


class Pass(NamedTuple):
    """One look of a network at some images."""

    training: bool
    image: Tensor
    output: Output


def watch(network: nn.Module) -> list[Pass]:
    """All that a network does from now on."""
    passes: list[Pass] = []
    network.register_forward_hook(
        lambda module, inputs, output: passes.append(Pass(module.training, inputs[0], output))
    )
    return passes


def targets_in(method: Method, batch: Batch, step: Step) -> Any:
    """What is to be learned in a step that is taken."""
    targets = targets_of(method, batch, step)
    for _ in losses_of(method, targets, step):
        pass
    return targets
