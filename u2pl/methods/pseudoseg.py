"""PseudoSeg: soft labels fused of the decoder's prediction and of a classifier's activation maps teach a strong view.

Zou et al., *PseudoSeg: Designing Pseudo Labels for Semantic Segmentation*, ICLR 2021. One network; there is no teacher.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from u2pl import processes
from u2pl.batches.loader import Batch, Images
from u2pl.batches.strong_view import StrongDraws, StrongView, strong_view
from u2pl.losses.calibration import fused, mean_square, soft_cross_entropy
from u2pl.methods.base import Classes, Method, Step, Targets
from u2pl.methods.registry import method
from u2pl.models.activation_maps import ActivationMapper, ActivationMaps
from u2pl.models.backbone import Stages
from u2pl.models.deeplab import DeepLabV3Plus, Output, upsample
from u2pl.settings import Recipe, Settings
from u2pl.settings.hyper import PseudoSegSettings
from u2pl.steps.forward import Forward, without_gradient
from u2pl.steps.pixels import aligned

_MAPPER = "mapper"


class MappingNetwork(DeepLabV3Plus):
    """DeepLabv3+ and a classifier of images on its encoder, whose activation maps are refined by attention."""

    def __init__(self, classes: Classes, recipe: Recipe, key_channels: int):
        super().__init__(classes.count, recipe, representation=False)
        self.further[_MAPPER] = ActivationMapper(
            classes.count,
            background=classes.background,
            middle_channels=self.backbone.middle_channels,
            channels=self.backbone.channels,
            key_channels=key_channels,
            stride=recipe.output_stride,
            fixed_statistics=self.fixed_statistics,
        )

    def forward(
        self,
        image: Tensor,
        *,
        represent: bool | Tensor = False,
        reached: Tensor | None = None,
        presence: Tensor | None = None,
        maps_alone: bool = False,
    ) -> Output:
        """Logits, and on demand what the classifier says of the first images: `further`'s "maps" and "score".

        Args:
            image: (B, 3, H, W), normalised.
            represent: there is no head for representations.
            reached: bool (b, H, W), of the first b images: pixels to which the attention may go; None: no maps.
            presence: bool (b, F): which classes these have; None: those that the classifier finds.
            maps_alone: leave the decoder out; the maps stand where logits do.
        """
        if maps_alone:
            assert reached is not None
            with self.in_precision(image.device):
                stages = self.backbone(image.contiguous(memory_format=torch.channels_last))
            maps = self.maps(stages, reached, presence)
            return Output(maps.logits, None, {"score": maps.score})
        with self.in_precision(image.device):
            features = self.features(image)
            output = self.answers(features, represent=False)
        if reached is None:
            return output
        maps = self.maps(features.stages, reached, presence)
        return output._replace(further={**output.further, "maps": maps.logits, "score": maps.score})

    @property
    def mapper(self) -> ActivationMapper:
        """The classifier and its maps."""
        mapper = self.further[_MAPPER]
        assert isinstance(mapper, ActivationMapper)
        return mapper

    def maps(self, stages: Stages, reached: Tensor, presence: Tensor | None) -> ActivationMaps:
        """Of the first images, as many as `reached` has."""
        return self.further[_MAPPER](Stages(*(stage[: len(reached)] for stage in stages)), reached, presence)

    def parameter_groups(self, lr: float, head_lr_multiplier: float) -> list[dict[str, Any]]:
        """Those of DeepLabv3+, whose heads the classifier joins; and the attention, without weight decay."""
        encoder, heads = super().parameter_groups(lr, head_lr_multiplier)
        undecayed = self.mapper.undecayed()
        apart = {id(parameter) for parameter in undecayed}
        encoder_ids = {id(p) for p in self.backbone.parameters()}
        decayed = [p for p in self.parameters() if p.requires_grad and id(p) not in apart | encoder_ids]
        return [
            encoder,
            {**heads, "params": decayed},
            {"params": undecayed, "lr": heads["lr"], "weight_decay": 0.0},
        ]


@dataclass(frozen=True, kw_only=True)
class PseudoSegTargets(Targets):
    """Which classes the labelled images have, and the fused labels of the unlabelled ones."""

    presence: Tensor
    """(b, F) bool, of the labelled images."""
    fused: Tensor
    """(b, C, h, w): probabilities, where the heads' points lie."""
    kept: Tensor
    """(b, h, w) bool: points of the strong view that are neither padding nor cut out."""
    share: Tensor
    """(b,): what such a point counts in the mean."""


@method("pseudoseg")
class PseudoSeg(Method):
    """L_s + L_sa + L_cls + lambda L_cons."""

    settings_class: ClassVar[type[Settings]] = PseudoSegSettings
    settings: PseudoSegSettings

    def network(self) -> MappingNetwork:
        """With the classifier and the attention."""
        return MappingNetwork(self.classes, self.recipe, self.settings.key_channels)

    def targets(self, batch: Batch, step: Step) -> PseudoSegTargets:
        """The labels of the weak view, for the strong one that goes through the network beside the labelled images."""
        labeled, unlabeled = batch.labeled, batch.unlabeled
        assert unlabeled is not None
        images = len(unlabeled.image)
        draws = StrongDraws.draw(self.settings, processes.size() * images, step.generator)
        strong = strong_view(unlabeled.image, unlabeled.valid, draws.part(self.whole_batch.own(images)))
        decoder = self.forward_without_gradient(self.student, unlabeled.image, step=step).logits
        mapped = self.mapped(unlabeled, strong, step)
        maps = upsample(mapped.logits, decoder.shape[2:])
        label = self.fused(decoder, maps)
        kept = aligned(strong.kept, decoder.shape[2:])
        presence = present(labeled.mask, self.foreground)
        options = {"reached": labeled.valid, "presence": presence}
        return PseudoSegTargets(
            forwards=(Forward(self.student, (labeled.image, strong.image), options),),
            label=self.labels(labeled.mask),
            presence=presence,
            fused=label,
            kept=kept,
            share=self.whole_batch.shares(kept),
            diagnostics=self.diagnose(
                {"fused": label, "decoder": decoder, "maps": maps}, kept, unlabeled, mapped.further["score"]
            ),
        )

    def losses(self, student: Output, targets: PseudoSegTargets) -> dict[str, Tensor]:
        """L_s of the decoder, L_sa of the maps and L_cls of the classifier on true labels; L_cons on the fused ones."""
        _, on_strong = student.logits.chunk(2)
        label, presence = targets.label, targets.presence
        assert label.micro is not None
        wrong = functional.binary_cross_entropy_with_logits(
            student.further["score"], presence.float(), reduction="sum"
        )
        apart_B = soft_cross_entropy(on_strong, targets.fused, targets.kept)
        return {
            "supervised": self.supervised(student, targets),
            "attention": label.cross_entropy(student.further["maps"]),
            "classifier": wrong / (label.micro.of * presence.shape[1]),
            "consistency": self.settings.lambda_consistency * (apart_B * targets.share).sum(),
        }

    @property
    def foreground(self) -> range:
        """The classes that the classifier knows."""
        return range(int(self.classes.background), self.classes.count)

    def mapped(self, unlabeled: Images, strong: StrongView, step: Step) -> Output:
        """Maps and scores of the weak view, in evaluation mode but for the norm behind the maps.

        As in the released code the attention does not go where the strong view is cut out, though this one is not.
        """
        self.student.eval()
        output = without_gradient(
            self.student,
            unlabeled.image,
            micro_batch=self.recipe.micro_batch,
            generator=step.generator,
            reached=strong.kept,
            maps_alone=True,
        )
        self.student.train()
        return output

    def fused(self, decoder: Tensor, maps: Tensor) -> Tensor:
        """Soft labels, (b, C, h, w); both predictions are scaled by one number for each group of the batch."""
        images = len(decoder)
        each = processes.size() * images // self.recipe.replicas
        mean_square_G = self.whole_batch.sum(mean_square(decoder, maps)) / each
        mean_square_B = self.whole_batch.of_images(mean_square_G, images)
        return fused(decoder, maps, mean_square_B, self.settings.temperature)

    def diagnose(
        self, predictions: dict[str, Tensor], kept: Tensor, unlabeled: Images, score: Tensor
    ) -> dict[str, Tensor | float]:
        """How often the classifier finds nothing, how sure the labels are, and how often each prediction is right.

        Args:
            predictions: (b, C, h, w) each, by name; the labels that are taught are the first.
            kept: (b, h, w) bool, the points that count.
            unlabeled: the images.
            score: (b, F), of the classifier.
        """
        truth = aligned(unlabeled.mask, kept.shape[1:])
        judged = kept & (truth != self.classes.ignore_index)
        right = [((each.argmax(dim=1) == truth) & judged).sum() for each in predictions.values()]
        sure = (next(iter(predictions.values())).amax(dim=1) * kept).sum()
        empty = (score < 0).all(dim=1)
        counts = [sure, kept.sum(), empty.sum(), torch.ones_like(empty).sum(), judged.sum(), *right]
        total = processes.total(torch.stack([count.double() for count in counts])).float()
        confidence, points, nothing, images, known, *hits = total
        return {
            "presence/empty": nothing / images,
            "fused/confidence": confidence / points,
            **{f"{name}/accuracy": hit / known for name, hit in zip(predictions, hits, strict=True)},
        }


def present(label: Tensor, classes: Iterable[int]) -> Tensor:
    """Which images have which of some classes, (B, F) bool; labels that are none of them, as ignored, count nowhere.

    Args:
        label: (B, H, W) int64.
        classes: F of them.
    """
    return torch.stack([(label == c).flatten(1).any(dim=1) for c in classes], dim=1)
