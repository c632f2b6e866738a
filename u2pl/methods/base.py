"""What every method answers: what is to be learned from a batch, and which losses the outputs of a micro-batch give.

Below that line lies what is the same for all (`u2pl.steps`, `u2pl.training`): micro-batches, draws of dropout, the
gradients of several processes, replicas, the optimiser.
"""

from abc import ABC
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from u2pl.batches.loader import Batch, Choice, Stream
from u2pl.errors import UsageError
from u2pl.models.deeplab import DeepLabV3Plus, Output, upsample
from u2pl.settings import Recipe, Settings
from u2pl.steps.forward import Forward, without_gradient
from u2pl.steps.micro_batch import MicroBatch, cut
from u2pl.steps.shares import Shares
from u2pl.steps.supervision import Mined, Mining, Supervision
from u2pl.steps.whole_batch import Labels, WholeBatch


@dataclass(frozen=True)
class Classes:
    """The classes of a data set, as far as a method needs them."""

    count: int
    ignore_index: int
    background: bool
    """Whether class 0 is a background."""

    def check(self, setting: str, numbers: Iterable[int], default: str) -> None:
        """Refuse numbers of classes that there are not.

        Raises:
            UsageError: it names the setting, the first such number, and a default to take instead.
        """
        wrong = [c for c in numbers if not 0 <= c < self.count]
        if wrong:
            raise UsageError(
                f"{setting} names class {wrong[0]}, and there are {self.count} classes, counted from 0. "
                f"Use: --set {setting}={default}"
            )


@dataclass(frozen=True)
class Step:
    """Where training stands."""

    index: int
    epoch: int
    epochs: int
    epoch_steps: int
    generator: torch.Generator
    """Seeded by (seed, index) alone, on the CPU."""


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What is to be learned from a batch: found over the whole of it, without gradient.

    A method adds what its losses need. Tensors have an entry for each image of this process, and are cut into
    micro-batches, as is whatever has a method `of` like this one; anything else stays as it is.
    """

    forwards: tuple[Forward, ...]
    """What the trained networks see; the method's losses get an output for each."""
    label: Labels
    """True labels of the labelled images, the first stream of each student's first forward."""
    mined: Mined = field(default_factory=dict)
    """Which of these labels count, where that must be known before the first micro-batch."""
    shares: Shares = field(default_factory=Shares)
    """What the losses count, micro-batch by micro-batch; diagnostics once all are known."""
    supervised_alone: bool = False
    """Whether these labels are all there is to learn, as in the warm start."""
    diagnostics: dict[str, Tensor | float] = field(default_factory=dict)
    """Name -> what tells a user whether training goes well (alpha_t, share of reliable pixels ...); of the whole
    step."""
    class_counts: dict[str, Tensor] = field(default_factory=dict)
    """Name -> (2, C) int64, of the whole step: of each class how many pixels are meant, and among how many (or 1, where
    their number in a step is meant). Summed over an epoch they are a share of each class; a mean over steps would count
    a class that is rare in a step too much."""

    def of(self, micro: MicroBatch) -> Self:
        """Those of a micro-batch."""
        return replace(self, **{each.name: cut(getattr(self, each.name), micro) for each in fields(self)})


class Method(nn.Module, ABC):
    """One training algorithm. It owns its networks; whatever it must remember is in its `state_dict`.

    A method is its `targets` and its `losses`; as they stand here they are those of the labelled images alone.
    """

    settings_class: ClassVar[type[Settings]]
    uses_unlabeled: ClassVar[bool] = True
    trained: ClassVar[int] = 1
    """Networks that see every image and are trained."""
    has_representation: ClassVar[bool] = False
    """Whether networks have a representation head."""

    def __init__(self, classes: Classes, recipe: Recipe, settings: Any):
        super().__init__()
        self.classes = classes
        self.recipe = recipe
        self.settings = settings
        self.student = self.network()

    def network(self) -> DeepLabV3Plus:
        """A new network, its weights as the recipe says."""
        return DeepLabV3Plus(self.classes.count, self.recipe, representation=self.has_representation)

    # ---- the algorithm -----------------------------------------------------------------------------------

    def targets(self, batch: Batch, step: Step) -> Targets:
        """What is to be learned from a batch after the warm start; called in training mode, without gradient.

        Args:
            batch: the images of this process.
            step: where training stands.
        """
        return self.supervised_targets(batch, step)

    def losses(self, *outputs: Any) -> dict[str, Tensor]:
        """Name -> weighted loss of a micro-batch; their sum is minimised.

        Those of all micro-batches of all processes add up to those of the step.

        Args:
            outputs: of the micro-batch, one for each of the targets' forwards, then the targets of its images.
        """
        *student, targets = outputs
        return self.supervised_losses(student, targets)

    def supervised_targets(self, batch: Batch, step: Step) -> Targets:
        """The true labels of the labelled images, for every network that is trained."""
        forwards = tuple(
            Forward(network, (batch.labeled.image,), {"represent": False}) for network in self.students
        )
        return Targets(forwards=forwards, label=self.labels(batch.labeled.mask), supervised_alone=True)

    def supervised_losses(self, outputs: list[Output], targets: Targets) -> dict[str, Tensor]:
        """L_s, of all networks that are trained (Eq. 2)."""
        losses = [
            self.supervised(output, targets, student)
            for student, output in zip(self.students, outputs, strict=True)
        ]
        return {"supervised": torch.stack(losses).sum()}

    # ---- what the engine asks besides --------------------------------------------------------------------

    @property
    def students(self) -> tuple[DeepLabV3Plus, ...]:
        """The networks that are trained."""
        return (self.student,)

    def start_step(self, batch: Batch, step: Step) -> Targets:
        """The targets of a step, in the warm start those of the labelled images alone."""
        if step.epoch < getattr(self.settings, "warm_start_epochs", 0):
            return self.supervised_targets(batch, step)
        return self.targets(batch, step)

    def after_losses(self, targets: Targets) -> None:
        """Called when the losses of a step's last micro-batch are known: what they counted is told."""
        targets.diagnostics.update(targets.shares.diagnostics())

    def after_update(self, step: Step) -> None:
        """Called after the optimiser's step."""

    @property
    def takes_batch_whole(self) -> bool:
        """Whether a batch must go through the networks at once, whatever recipe.micro_batch says."""
        return False

    def streams(self) -> Mapping[str, Stream]:
        """Further images that each step takes, `Batch.extra`."""
        return {}

    def choose(self, images: int, rng: np.random.Generator) -> list[Choice]:
        """The images of the stream that is chosen, for the next step, of so many; alike in all processes."""
        raise NotImplementedError

    def evaluated(self, epoch: int) -> tuple[str, DeepLabV3Plus]:
        """The network that is scored after an epoch, and what to call it ("student" or "teacher")."""
        return "student", self.student

    def parameter_groups(self) -> list[dict[str, Any]]:
        """What the students' optimiser updates, with learning rates."""
        return [
            group
            for network in self.students
            for group in network.parameter_groups(self.recipe.lr, self.recipe.head_lr_multiplier)
        ]

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """What updates the weights after each step, in this order; the engine lets all their learning rates fall.

        A network that is no student, with a rule of its own, brings its optimiser here.
        """
        return [self.sgd(self.parameter_groups())]

    @classmethod
    def check(cls, classes: Classes, recipe: Recipe, settings: Any) -> None:
        """Refuse what could not work, before anything is built: here a warm start that never ends.

        Raises:
            UsageError: it has as many epochs as the run.
        """
        epochs = getattr(settings, "warm_start_epochs", 0)
        if epochs >= recipe.epochs:
            raise UsageError(
                f"A warm start of {epochs} epochs leaves none of {recipe.epochs} for the unlabelled images. "
                f"Use fewer: --set warm_start_epochs={recipe.epochs // 2}"
            )

    @classmethod
    def epoch_follows_labeled(cls, settings: Any) -> bool:
        """Whether an epoch is a pass over the labelled images instead of the unlabelled ones."""
        return False

    # ---- tools for methods -------------------------------------------------------------------------------

    def sgd(self, groups: list[dict[str, Any]]) -> torch.optim.SGD:
        """The recipe's optimiser (Sec. 4.1).

        Args:
            groups: of parameters, with learning rates.
        """
        recipe = self.recipe
        sgd = torch.optim.SGD(groups, momentum=recipe.momentum, weight_decay=recipe.weight_decay, fused=True)
        # From the start, since heads that get their first gradient later are more than the fused step can bear.
        for group in sgd.param_groups:
            for parameter in group["params"]:
                sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return sgd

    @property
    def supervision(self) -> Supervision:
        """How true labels teach."""
        recipe = self.recipe
        mining = Mining(recipe.ohem_threshold, recipe.ohem_kept) if recipe.loss == "ohem" else None
        return Supervision(self.whole_batch, recipe.auxiliary, mining)

    def supervised(self, output: Output, targets: Targets, student: nn.Module | None = None) -> Tensor:
        """A micro-batch's share of L_s of a student (Eq. 2).

        Args:
            output: of the student, the labelled images first.
            targets: of the micro-batch.
            student: None: the only one.
        """
        mined = targets.mined.get(self.student if student is None else student)
        return self.supervision.loss(output, targets.label, mined)

    @property
    def whole_batch(self) -> WholeBatch:
        """What is computed over the images of all processes."""
        return WholeBatch(self.recipe.replicas)

    def labels(self, label_BHW: Tensor, count_G: Tensor | None = None) -> Labels:
        """Labels of this process's images, for a mean over all pixels of the batch that have one.

        Args:
            label_BHW: int64, or the ignore index.
            count_G: of each group's pixels, where the mean is over others.
        """
        ignore = self.classes.ignore_index
        if count_G is None:
            count_G = self.whole_batch.count(label_BHW != ignore)
        return Labels(label_BHW, ignore, count_G)

    def second_network(self) -> DeepLabV3Plus:
        """A network for a second student, which starts from other weights than the first.

        Raises:
            UsageError: the recipe makes them the same.
        """
        second = self.network()
        pairs = zip(self.student.parameters(), second.parameters(), strict=True)
        if all(torch.equal(*pair) for pair in pairs):
            raise UsageError(
                f"The method needs two students that differ, and weights={self.recipe.weights} makes them the same. "
                "Start from weights of a backbone, whose heads are random: --weights imagenet"
            )
        return second

    def forward_without_gradient(
        self, network: nn.Module, *streams: Tensor, step: Step, **options: Any
    ) -> Output:
        """A network's output of streams of this process's images, stream after stream, in the network's mode.

        Args:
            network: any; one of the host's is not asked for representations unless an option says so.
            streams: as many images in each.
            step: where training stands.
            options: of the network.
        """
        if isinstance(network, DeepLabV3Plus):
            options["represent"] = options.get("represent", False) and self.has_representation
        return without_gradient(
            network, *streams, micro_batch=self.recipe.micro_batch, generator=step.generator, **options
        )

    def upsampled(self, output: Output, size: tuple[int, ...]) -> tuple[Tensor, ...]:
        """Logits of the labelled and of the unlabelled images of an output, (b, C, H, W) each."""
        return upsample(output.logits, size).chunk(2)


def onto(mask: Tensor, device: torch.device) -> Tensor:
    """Something small that was drawn on the CPU, on the device; from other than pinned memory the copy would wait."""
    return mask.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else mask
