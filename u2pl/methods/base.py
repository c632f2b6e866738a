"""What the engine may ask of a method, and the register of methods."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from u2pl import processes
from u2pl.batches.loader import Batch, Choice, Stream
from u2pl.errors import UsageError, unknown
from u2pl.losses.cross_entropy import cross_entropy
from u2pl.models import dropout
from u2pl.models.deeplab import DeepLabV3Plus, Output, upsample
from u2pl.settings import Recipe, Settings, hyper, load


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
    """What one step gives, or a part of it: 0-d tensors, still on the device."""

    losses: dict[str, Tensor]
    """Name -> weighted loss; their sum is minimised."""
    health: dict[str, Tensor | float] = field(default_factory=dict)
    """Name -> what tells a user whether training goes well (alpha_t, share of reliable pixels ...); of the whole
    step."""
    tallies: dict[str, Tensor] = field(default_factory=dict)
    """Name -> (2, C) int64, of the whole step: of each class how many pixels are meant, and among how many. Summed over
    an epoch they are a share of each class; a mean over steps would count a class that is rare in a step too much."""


class Part(NamedTuple):
    """Some images of a batch that go through the student together, counted over the batch of all processes."""

    first: int
    """Number of the first labelled image; the unlabelled ones have the same numbers."""
    images: int
    """Labelled images, and as many unlabelled ones where there are any."""
    mine: slice
    """The same images among those of this process."""
    last: bool
    """Whether it is the last part of this process."""
    of: int
    """Labelled images of the whole batch."""

    def numbers(self, streams: int) -> Tensor:
        """Numbers of the part's images among all labelled ones and, with two streams, all unlabelled ones behind."""
        number = torch.arange(self.first, self.first + self.images)
        return torch.cat([number + stream * self.of for stream in range(streams)])


class Method(nn.Module, ABC):
    """One training algorithm. It owns its networks; whatever it must remember is in its `state_dict`.

    A step is computed in parts (recipe.micro_batch), and each process computes those of its own images. What Eqs. 2 to
    16 define on the batch is found first, without gradient and from the images of all processes; then the losses of
    each part of the images follow, and add up.
    """

    settings_class: ClassVar[type[Settings]]
    uses_unlabeled: ClassVar[bool] = True
    trained: ClassVar[int] = 1
    """Networks that see every image and are trained."""

    def __init__(self, classes: Classes, recipe: Recipe, settings: Any):
        super().__init__()
        self.classes = classes
        self.recipe = recipe
        self.settings = settings
        self.wrappers: dict[nn.Module, nn.parallel.DistributedDataParallel] = {}
        """What adds the gradients of all processes up, of each network that is trained by several."""

    @property
    def whole(self) -> bool:
        """Whether a batch must go through the networks at once, whatever recipe.micro_batch says."""
        return False

    @abstractmethod
    def parts(self, batch: Batch, step: Step) -> Iterator[StepResult]:
        """The losses of one batch, part by part; called in training mode.

        The gradient of a part is taken before the next part is asked for. Losses and gradients of all parts of all
        processes add up to those of the step.

        Args:
            batch: the images of this process.
            step: where training stands.
        """

    def streams(self) -> Mapping[str, Stream]:
        """Further images that each step takes, `Batch.extra`."""
        return {}

    def choose(self, images: int, rng: np.random.Generator) -> list[Choice]:
        """The images of the stream that is chosen, for the next step, of so many; alike in all processes."""
        raise NotImplementedError

    def step(self, batch: Batch, step: Step) -> StepResult:
        """All losses of this process's images at once."""
        whole = StepResult({})
        for part in self.parts(batch, step):
            for name, loss in part.losses.items():
                whole.losses[name] = whole.losses[name] + loss if name in whole.losses else loss
            whole.health |= part.health
            whole.tallies |= part.tallies
        return whole

    def cut(self, images: int, at_once: int, least: int = 1) -> Iterator[Part]:
        """The parts of this process's labelled images, at most `at_once` (0: all) in each.

        Args:
            images: how many there are.
            at_once: how many go together.
            least: what would be fewer in the end goes with the part before; a lone image has no batch statistics.
        """
        offset, size, of = processes.rank() * images, at_once or images, processes.size() * images
        first = 0
        while first < images:
            count = min(size, images - first)
            if images - first - count < least:
                count = images - first
            yield Part(offset + first, count, slice(first, first + count), first + count == images, of)
            first += count

    def run(self, network: nn.Module, image: Tensor, *, represent: bool, last: bool) -> Output:
        """A pass of a network in training; `last`: no other follows before the optimiser's step."""
        wrapper = self.wrappers.get(network)
        if wrapper is None:
            return network(image, represent=represent)
        # What adds up over the passes is sent once.
        quiet: AbstractContextManager[Any] = nullcontext() if last else wrapper.no_sync()
        with quiet:
            return wrapper(image, represent=represent)

    def see(
        self,
        network: nn.Module,
        kept: list[Tensor],
        part: Part,
        *streams: Tensor,
        represent: bool = False,
    ) -> Output:
        """A pass of a network in training over a part of some streams of images, all at once.

        Args:
            network: trained.
            kept: channels that its dropouts keep, of all images of all these streams (`dropout.draw`).
            part: whose images.
            streams: this process's images, as many in each; the first is not always that of the labelled ones.
            represent: whether representations are wanted.

        Returns:
            Of the part's images of the first stream, then of the second's, and so on.
        """
        images = torch.cat([stream[part.mine] for stream in streams])
        dropout.choose(network, kept, part.numbers(len(streams)), images.device)
        return self.run(network, images, represent=represent, last=part.last)

    @torch.no_grad()
    def view(self, network: nn.Module, *streams: Tensor, step: Step, represent: bool = False) -> Output:
        """A pass without gradient over some streams of images, in the same parts as one with, in the network's mode.

        Args:
            network: whose dropouts draw from the step's generator where it is in training mode.
            streams: this process's images, as many in each, such as labelled and mixed unlabelled ones.
            step: where training stands.
            represent: whether representations are wanted.

        Returns:
            Of the first stream's images, then of the second's.
        """
        images, count = len(streams[0]), len(streams)
        kept = (
            dropout.draw(network, count * processes.size() * images, step.generator)
            if network.training
            else []
        )
        outputs: list[Output] = []
        for part in self.cut(images, 2 // count * self.recipe.micro_batch, least=2 // count):
            some = torch.cat([stream[part.mine] for stream in streams])
            if network.training:
                dropout.choose(network, kept, part.numbers(count), some.device)
            outputs.append(network(some, represent=represent))
        return outputs[0] if len(outputs) == 1 else joined(outputs, count)

    def supervised_parts(self, network: nn.Module, batch: Batch, step: Step) -> Iterator[StepResult]:
        """L_s of the labelled images alone (Eq. 2); as many go at once as otherwise with the unlabelled ones."""
        mask, ignore = batch.labeled.mask, self.classes.ignore_index
        count_G = self.count_labeled(mask)
        kept = dropout.draw(network, processes.size() * len(mask), step.generator)
        for part in self.cut(len(mask), 2 * self.recipe.micro_batch, least=2):
            logits = self.see(network, kept, part, batch.labeled.image).logits
            label = mask[part.mine]
            logits = upsample(logits, label.shape[1:])
            yield StepResult({"supervised": self.mean_loss(logits, label, count_G, part, ignore)})

    def count_labeled(self, label_BHW: Tensor) -> Tensor:
        """How many pixels with a label each group of the batch has, (replicas,), at least 1.

        Args:
            label_BHW: of this process's images.
        """
        return self.count_pixels(label_BHW != self.classes.ignore_index)

    def count_pixels(self, mask_BHW: Tensor) -> Tensor:
        """How many pixels of a mask, bool, each group of the batch has, (replicas,), at least 1."""
        return self.over_batch(mask_BHW.sum(dim=(1, 2))).clamp(min=1)

    def over_batch(self, value_B: Tensor) -> Tensor:
        """Sums over each group of the batch of what each of this process's images has, (replicas,)."""
        return processes.gather(value_B).view(self.recipe.replicas, -1).sum(dim=1)

    @staticmethod
    def mine(images: int) -> slice:
        """Which of the whole batch's images are this process's, given how many it has."""
        return slice(processes.rank() * images, (processes.rank() + 1) * images)

    def mean_loss(
        self,
        logits: Tensor,
        label: Tensor,
        count_G: Tensor,
        part: Part,
        ignore: int,
        weight_G: Tensor | None = None,
    ) -> Tensor:
        """A part's share of the mean over groups of their mean cross-entropy, each weighted where weights are given."""
        groups = self.recipe.replicas
        each = part.of // groups
        losses = []
        for group in range(part.first // each, (part.first + part.images - 1) // each + 1):
            own = slice(max(group * each - part.first, 0), max((group + 1) * each - part.first, 0))
            loss = cross_entropy(logits[own], label[own], ignore, count_G[group])
            losses.append(loss if weight_G is None else weight_G[group] * loss)
        return torch.stack(losses).sum() / groups

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

    @classmethod
    def epoch_follows_labeled(cls, settings: Any) -> bool:
        """Whether an epoch is a pass over the labelled images instead of the unlabelled ones."""
        return False


def joined(outputs: list[Output], streams: int) -> Output:
    """What a network said of the parts of some streams of images, stream by stream."""

    def join(maps: list[Tensor]) -> Tensor:
        return torch.cat(
            [torch.cat(stream) for stream in zip(*(m.chunk(streams) for m in maps), strict=True)]
        )

    representations = [output.representation for output in outputs if output.representation is not None]
    return Output(join([o.logits for o in outputs]), join(representations) if representations else None)


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


def epoch_steps(name: str, settings: Any, batch: int, labeled: int, unlabeled: int) -> int:
    """Steps of an epoch: full batches in one pass over the list that the method's epochs follow."""
    images = labeled if _find(name).epoch_follows_labeled(settings) or not unlabeled else unlabeled
    return max(images // batch, 1)


def uses_unlabeled(name: str) -> bool:
    """Whether a method needs unlabelled images."""
    return _find(name).uses_unlabeled


def passes(name: str, batch: int) -> int:
    """How often an image goes through a network that is trained, in a step with so many labelled images."""
    return batch * (2 if uses_unlabeled(name) else 1) * trained(name)


def trained(name: str) -> int:
    """How many networks of a method see every image and are trained."""
    return _find(name).trained


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


def check_warm_start(epochs: int, recipe: Recipe) -> None:
    """Refuse a warm start that never ends.

    Raises:
        UsageError: it has as many epochs as the run.
    """
    if epochs >= recipe.epochs:
        raise UsageError(
            f"A warm start of {epochs} epochs leaves none of {recipe.epochs} for the unlabelled images. "
            f"Use fewer: --set warm_start_epochs={recipe.epochs // 2}"
        )


def onto(mask: Tensor, device: torch.device) -> Tensor:
    """Something small that was drawn on the CPU, on the device; from other than pinned memory the copy would wait."""
    return mask.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else mask


def over_groups(count: int, function: Callable[..., Tensor], *images: Tensor) -> Tensor:
    """`function` of each of `count` equal groups of images, stacked: what devices of their own would compute.

    Args:
        images: tensors whose first dimension is the images'.
    """
    groups = zip(*(tensor.chunk(count) for tensor in images), strict=True)
    return torch.stack([function(*group) for group in groups])
