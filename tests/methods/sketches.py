"""Sketches of methods of other kinds, which the interface must carry: many decoders, a second network, strong views.

They show where each part of such a method goes, and are no reproductions: CCT (Ouali et al., 2020) has seven kinds of
decoders, GCT (Ke et al., 2020) a flaw map with a rule of its own, UniMatch (Yang et al., 2023) colour augmentation.
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from u2pl.batches.loader import Batch
from u2pl.methods import Method, Step, Targets
from u2pl.models.deeplab import DeepLabV3Plus, Output, upsample
from u2pl.settings import Settings
from u2pl.steps.forward import Forward
from u2pl.steps.whole_batch import Labels

FULL = (32, 32)
"""Size of the images."""


def both(batch: Batch) -> tuple[Tensor, Tensor]:
    assert batch.unlabeled is not None
    return batch.labeled.image, batch.unlabeled.image


# ---- CCT: one encoder, a main decoder, and others that see perturbed features ----------------------------------------


class Decoded(NamedTuple):
    """Of all images the main decoder's logits; of the second half those of the auxiliary decoders."""

    logits: Tensor
    auxiliary: list[Tensor]


class ManyDecoders(DeepLabV3Plus):
    """DeepLabv3+ with auxiliary decoders of a convolution each."""

    def __init__(self, *arguments: Any, **named: Any):
        super().__init__(*arguments, **named)
        classes = self.classifier[-1].out_channels
        self.decoders = nn.ModuleList(nn.Conv2d(self.backbone.channels, classes, 1) for _ in range(3))

    def forward(self, image: Tensor, *, represent: bool = False, auxiliary: bool = False) -> Any:
        main = super().forward(image, represent=represent)
        if not auxiliary:
            return main
        features = self.backbone(image[len(image) // 2 :]).high
        dropped = (functional.dropout2d(features, 0.3, training=True) for _ in self.decoders)
        decoded = [decoder(some) for decoder, some in zip(self.decoders, dropped, strict=True)]
        return Decoded(main.logits, [upsample(each, main.logits.shape[2:]) for each in decoded])


class CCT(Method):
    """L_s of the main decoder, and a consistency of the others with it on unlabelled images."""

    settings_class = Settings

    def network(self) -> DeepLabV3Plus:
        return ManyDecoders(self.classes.count, self.recipe, representation=False)

    def targets(self, batch: Batch, step: Step) -> Targets:
        forward = Forward(self.student, both(batch), {"auxiliary": True})
        return Targets(forwards=(forward,), label=self.labels(batch.labeled.mask))

    def losses(self, student: Decoded, targets: Targets) -> dict[str, Tensor]:
        on_labeled, on_unlabeled = student.logits.chunk(2)
        wanted, share = on_unlabeled.softmax(dim=1).detach(), len(on_unlabeled) / targets.label.micro.of
        errors = [functional.mse_loss(each.softmax(dim=1), wanted) for each in student.auxiliary]
        return {
            "supervised": targets.label.cross_entropy(upsample(on_labeled, FULL)),
            "consistency": share * torch.stack(errors).mean(),
        }


# ---- GCT: two students, and a detector of their flaws that learns by a loss of its own -------------------------------


class GCT(Method):
    """Where the detector finds a student's prediction worse than the other's, the other one teaches it."""

    settings_class = Settings
    trained = 2

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self.second = self.network()
        self.detector = nn.Conv2d(3 + self.classes.count, 1, 3, padding=1)

    @property
    def students(self) -> tuple[DeepLabV3Plus, ...]:
        return self.student, self.second

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [*super().parameter_groups(), {"params": list(self.detector.parameters()), "lr": 1e-4}]

    def targets(self, batch: Batch, step: Step) -> "GCTTargets":
        images = both(batch)
        return GCTTargets(
            forwards=tuple(Forward(network, images, {"represent": False}) for network in self.students),
            label=self.labels(batch.labeled.mask),
            first=images[0],
            second=images[1],
        )

    def losses(self, left: Output, right: Output, targets: "GCTTargets") -> dict[str, Tensor]:
        image, share = (
            torch.cat([targets.first, targets.second]),
            len(targets.first) / targets.label.micro.of,
        )
        prob = [upsample(output.logits, FULL).softmax(dim=1) for output in (left, right)]
        # The students are judged by the detector as it is; it learns from their predictions as they are.
        frozen = {name: value.detach() for name, value in self.detector.named_parameters()}
        flaws = [
            torch.func.functional_call(self.detector, frozen, torch.cat([image, each], dim=1)).sigmoid()
            for each in prob
        ]
        dynamic = [
            (functional.mse_loss(own, other.detach(), reduction="none") * (flaw > others_flaw)).mean()
            for own, other, flaw, others_flaw in zip(prob, prob[::-1], flaws, flaws[::-1], strict=True)
        ]
        label = targets.label.map
        wrong = [(each[: len(label)].argmax(dim=1) != label).float()[:, None] for each in prob]
        seen = [
            self.detector(torch.cat([targets.first, each[: len(label)].detach()], dim=1)) for each in prob
        ]
        detected = [
            functional.binary_cross_entropy_with_logits(*pair) for pair in zip(seen, wrong, strict=True)
        ]
        return {
            **self.supervised_losses([Output(o.logits[: len(label)], None) for o in (left, right)], targets),
            "dynamic": share * torch.stack(dynamic).sum(),
            "flaws": share * torch.stack([*detected, *(0 * flaw.mean() for flaw in flaws)]).sum(),
        }


@dataclass(frozen=True, kw_only=True)
class GCTTargets(Targets):
    """The images too, which the detector sees beside the predictions."""

    first: Tensor
    second: Tensor


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
