"""What the engine may ask of a method, and the register of methods."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from u2pl.data.loader import Batch
from u2pl.errors import unknown
from u2pl.models.deeplab import DeepLabV3Plus
from u2pl.settings import Recipe, Settings, load


@dataclass(frozen=True)
class Classes:
    """The classes of a data set, as far as a method needs them."""

    count: int
    ignore_index: int
    background: bool
    """Whether class 0 is a background."""


@dataclass(frozen=True)
class Step:
    """Where training stands."""

    index: int
    epoch: int
    epochs: int
    epoch_steps: int
    generator: torch.Generator
    """Seeded by (seed, index) alone, on the CPU."""


@dataclass
class StepResult:
    """What one step gives: 0-d tensors, still on the device."""

    losses: dict[str, Tensor]
    """Name -> weighted loss; their sum is minimised."""
    health: dict[str, Tensor | float] = field(default_factory=dict)
    """Name -> what tells a user whether training goes well (alpha_t, share of reliable pixels ...)."""


class Method(nn.Module, ABC):
    """One training algorithm. It owns its networks; whatever it must remember is in its `state_dict`."""

    settings_class: ClassVar[type[Settings]]
    uses_unlabeled: ClassVar[bool] = True

    def __init__(self, classes: Classes, recipe: Recipe, settings: Any):
        super().__init__()
        self.classes = classes
        self.recipe = recipe
        self.settings = settings

    @abstractmethod
    def step(self, batch: Batch, step: Step) -> StepResult:
        """The losses of one batch; called in training mode."""

    @abstractmethod
    def evaluated(self, epoch: int) -> tuple[str, DeepLabV3Plus]:
        """The network that is scored after an epoch, and what to call it ("student" or "teacher")."""

    @abstractmethod
    def parameter_groups(self) -> list[dict[str, Any]]:
        """What the optimiser updates, with learning rates."""

    @classmethod
    def check(cls, classes: Classes, recipe: Recipe, settings: Any) -> None:
        """Raise a UsageError for settings that could not work, before anything is built."""

    def after_update(self, step: Step) -> None:
        """Called after the optimiser's step."""

    def epoch_follows_labeled(self) -> bool:
        """Whether an epoch is a pass over the labelled images instead of the unlabelled ones."""
        return False


_registry: dict[str, type[Method]] = {}
T = TypeVar("T", bound=type[Method])


def method(name: str) -> Callable[[T], T]:
    """Class decorator that registers a method under the name of its section in params.yaml."""

    def register(cls: T) -> T:
        if name in _registry:
            raise ValueError(
                f"two methods are called {name!r}: {_registry[name].__module__} and {cls.__module__}"
            )
        _registry[name] = cls
        return cls

    return register


def names() -> list[str]:
    """The registered methods."""
    return sorted(_registry)


def _find(name: str) -> type[Method]:
    if name not in _registry:
        raise unknown("method", name, names())
    return _registry[name]


def uses_unlabeled(name: str) -> bool:
    """Whether a method needs unlabelled images."""
    return _find(name).uses_unlabeled


def settings(name: str, classes: Classes, recipe: Recipe, hyper: Mapping[str, Any]) -> Settings:
    """A method's hyper-parameters, checked; no network is built.

    Raises:
        UsageError: no such method, a bad hyper-parameter, or one that makes no sense for these classes.
    """
    cls = _find(name)
    checked = load(cls.settings_class, hyper, name)
    cls.check(classes, recipe, checked)
    return checked


def create(name: str, classes: Classes, recipe: Recipe, hyper: Mapping[str, Any]) -> Method:
    """Build a method with its networks; raises as `settings` does."""
    checked = settings(name, classes, recipe, hyper)
    return _find(name)(classes, recipe, checked)


def over_groups(count: int, function: Callable[..., Tensor], *images: Tensor) -> Tensor:
    """`function` of each of `count` equal groups of images, stacked: what devices of their own would compute.

    Args:
        images: tensors whose first dimension is the images'.
    """
    groups = zip(*(tensor.chunk(count) for tensor in images), strict=True)
    return torch.stack([function(*group) for group in groups])
