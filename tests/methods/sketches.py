"""A sketch of a method of another kind, which the interface must carry: several strong views, features dropped.

It shows where each part of such a method goes, and is no reproduction: UniMatch (Yang et al., 2023) has colour
augmentation.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from u2pl.batches.loader import Batch
from u2pl.methods import Method, Step, Targets
from u2pl.models.deeplab import DeepLabV3Plus, Output
from u2pl.settings import Settings
from u2pl.steps.forward import Forward
from u2pl.steps.whole_batch import Labels

FULL = (32, 32)
"""Size of the images."""


def both(batch: Batch) -> tuple[Tensor, Tensor]:
    assert batch.unlabeled is not None
    return batch.labeled.image, batch.unlabeled.image


# ---- UniMatch: two strong views, and weak ones with features dropped -------------------------------------------------


class DroppingFeatures(DeepLabV3Plus):
    """DeepLabv3+ that drops channels of its encoder's features where it is asked to."""

    def forward(self, image: Tensor, *, represent: bool = False, perturb: bool = False) -> Output:
        if not perturb:
            return super().forward(image, represent=represent)
        handle = self.aspp.register_forward_pre_hook(
            lambda _, inputs: (functional.dropout2d(inputs[0], 0.5, training=True),)
        )
        output = super().forward(image, represent=represent)
        handle.remove()
        return output


@dataclass(frozen=True, kw_only=True)
class UniMatchTargets(Targets):
    """The unlabelled pixels that count."""

    valid: Tensor
    count: Labels


class UniMatch(Method):
    """Confident labels of the weak view teach two strong ones, and the weak one with features dropped."""

    settings_class = Settings
    threshold = 0.25

    def network(self) -> DeepLabV3Plus:
        return DroppingFeatures(self.classes.count, self.recipe, representation=False)

    def targets(self, batch: Batch, step: Step) -> UniMatchTargets:
        labeled, weak = both(batch)
        strong = tuple(weak + 0.1 * torch.randn(weak.shape, generator=step.generator) for _ in range(2))
        assert batch.unlabeled is not None
        valid = batch.unlabeled.valid
        return UniMatchTargets(
            forwards=(
                Forward(self.student, (labeled, weak), {"represent": False}),
                Forward(self.student, strong, {"represent": False}),
                Forward(self.student, (labeled, weak), {"represent": False, "perturb": True}),
            ),
            label=self.labels(batch.labeled.mask),
            valid=valid,
            count=self.labels(batch.unlabeled.mask, self.whole_batch.count(valid)),
        )

    def losses(
        self, both: Output, strong: Output, dropped: Output, targets: UniMatchTargets
    ) -> dict[str, Tensor]:
        on_labeled, on_weak = self.upsampled(both, FULL)
        confidence, label = on_weak.detach().softmax(dim=1).max(dim=1)
        wanted = label.where(targets.valid & (confidence >= self.threshold), self.classes.ignore_index)
        taught = replace(targets.count, map=wanted)
        views = [*self.upsampled(strong, FULL), self.upsampled(dropped, FULL)[1]]
        return {
            "supervised": targets.label.cross_entropy(on_labeled),
            "views": torch.stack([taught.cross_entropy(view) for view in views]).mean(),
        }
