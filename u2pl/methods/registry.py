"""The methods by name: a file with `@method("NAME")` in this folder is a method."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from u2pl.errors import unknown
from u2pl.methods.base import Classes, Method
from u2pl.settings import Recipe, Settings, hyper, load

_registry: dict[str, type[Method]] = {}
T = TypeVar("T", bound=type[Method])


def method(name: str) -> Callable[[T], T]:
    """Class decorator that registers a method under the name of its section in params.yaml."""

    def register(cls: T) -> T:
        if name in _registry:
            raise ValueError(
                f"two methods are called {name!r}: {_registry[name].__module__} and {cls.__module__}"
            )
        hyper.register(name, cls.settings_class)
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


def epoch_steps(name: str, settings: Any, recipe: Recipe, labeled: int, unlabeled: int) -> int:
    """Steps of an epoch: full batches in one pass over the list that the method's epochs follow, or fewer."""
    images = labeled if _find(name).epoch_follows_labeled(settings) or not unlabeled else unlabeled
    steps = max(images // recipe.batch, 1)
    return min(steps, recipe.limit_batches or steps)


def uses_unlabeled(name: str) -> bool:
    """Whether a method needs unlabelled images."""
    return _find(name).uses_unlabeled


def passes(name: str, batch: int) -> int:
    """How often an image goes through a network that is trained, in a step with so many labelled images."""
    return batch * (2 if uses_unlabeled(name) else 1) * trained(name)


def trained(name: str) -> int:
    """How many networks of a method see every image and are trained."""
    return _find(name).trained


def settings(name: str, classes: Classes, recipe: Recipe, values: Mapping[str, Any]) -> Settings:
    """A method's hyper-parameters, checked; no network is built.

    Raises:
        UsageError: no such method, a bad hyper-parameter, or one that makes no sense for these classes.
    """
    cls = _find(name)
    checked = load(cls.settings_class, values, name)
    cls.check(classes, recipe, checked)
    return checked


def create(name: str, classes: Classes, recipe: Recipe, values: Mapping[str, Any]) -> Method:
    """Build a method with its networks; raises as `settings` does."""
    checked = settings(name, classes, recipe, values)
    return _find(name)(classes, recipe, checked)
