"""PC²Seg: a strong view is to agree with the weak one, in the direction of its probabilities and in its features.

Zhong et al., *Pixel Contrastive-Consistent Semi-Supervised Semantic Segmentation*, ICCV 2021. A reconstruction, not
verified against the authors' code, which was never released: docs/fidelity.md lists what is a guess.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from u2pl import processes
from u2pl.batches.loader import Batch
from u2pl.batches.strong_view import StrongDraws, strong_view
from u2pl.losses import contrastive, debiased_negatives
from u2pl.losses.debiased_negatives import Places
from u2pl.losses.label_consistency import direction_distance
from u2pl.losses.ramp import sigmoid_ramp
from u2pl.methods.base import Method, Step, Targets
from u2pl.methods.registry import method
from u2pl.models.deeplab import DeepLabV3Plus, Output
from u2pl.settings import Recipe, Settings
from u2pl.settings.hyper import PC2SegSettings
from u2pl.steps.forward import Forward
from u2pl.steps.micro_batch import MicroBatch
from u2pl.steps.pixels import aligned
from u2pl.steps.shares import Shares

_PROJECTOR = "projector"


class ProjectingNetwork(DeepLabV3Plus):
    """DeepLabv3+ and a projection of what its last layer sees, which are its representations."""

    def __init__(self, classes: int, recipe: Recipe, projection: int):
        super().__init__(classes, recipe, representation=False)
        self.further[_PROJECTOR] = nn.Sequential(
            nn.Conv2d(recipe.width, recipe.width, 1, bias=False),
            nn.BatchNorm2d(recipe.width),
            nn.ReLU(inplace=True),
            nn.Conv2d(recipe.width, projection, 1),
        )

    def forward(self, image: Tensor, *, represent: bool | Tensor = False) -> Output:
        """Logits, and representations where `represent`.

        Args:
            image: (B, 3, H, W), normalised.
        """
        with self.in_precision(image.device):
            features = self.features(image)
            output = self.answers(features, represent=False)
            if not represent:
                return output
            representation = self.further[_PROJECTOR](features.hidden)
        return output._replace(representation=representation.float())


@dataclass(frozen=True)
class Pool:
    """The points that negatives are drawn from, of the weak views of all processes' images."""

    feature: Tensor
    """(K, D)."""
    label: Tensor
    """(K, C): one-hot of labelled images, the prediction's probabilities of unlabelled ones."""
    at: Places
    """(K,); unlabelled images are numbered after the labelled ones."""
    group: Tensor
    """(K,) int64: whose points meet no other group's anchors."""
    usable: Tensor
    """(K,) bool; False where an image has too few points."""
    truth: Tensor
    """(K,) int64, to measure with."""


@dataclass(frozen=True)
class Contrast:
    """Anchors of the unlabelled images' strong views, M of each, and what they are compared with."""

    index: Tensor
    """(b, M) int64, places in the heads' map."""
    usable: Tensor
    """(b, M) bool: neither padding nor cut out, and with negatives."""
    share: Tensor
    """(b,): what an anchor counts in the mean."""
    positive: Tensor
    """(b, M, D): the same points of the weak view."""
    negative: Tensor
    """(b, M, N) int64, rows of `table`."""
    table: Tensor
    """(K, D)."""

    def of(self, micro: MicroBatch) -> "Contrast":
        """Those of a micro-batch."""
        own = {f.name: getattr(self, f.name)[micro.own] for f in fields(self) if f.name != "table"}
        return replace(self, **own)


@dataclass(frozen=True, kw_only=True)
class PC2SegTargets(Targets):
    """What the weak view says, at the heads' resolution."""

    prob: Tensor
    """(b, C, h, w), of the unlabelled images."""
    kept: Tensor
    """(b, h, w) bool: points of the strong view that are neither padding nor cut out."""
    share: Tensor
    """(b,): what such a point counts in the mean."""
    contrast: Contrast
    ramp: float
    """Factor of both weights."""


@method("pc2seg")
class PC2Seg(Method):
    """L_s + lambda_cy L_cy + lambda_ct L_ct."""

    settings_class: ClassVar[type[Settings]] = PC2SegSettings
    settings: PC2SegSettings
    has_representation: ClassVar[bool] = True

    def network(self) -> ProjectingNetwork:
        """With the projection."""
        return ProjectingNetwork(self.classes.count, self.recipe, self.settings.projection)

    def targets(self, batch: Batch, step: Step) -> PC2SegTargets:
        """Predictions and features of labelled images and weak views, in training mode; and what is compared."""
        labeled, unlabeled, s = batch.labeled, batch.unlabeled, self.settings
        assert unlabeled is not None
        images = len(unlabeled.image)
        own, everywhere = self.whole_batch.own(images), processes.size() * images
        draws = StrongDraws.draw(s, everywhere, step.generator).part(own)
        seeds = torch.randint(2**62, (everywhere, 4), generator=step.generator)[own].T.tolist()
        strong = strong_view(unlabeled.image, unlabeled.valid, draws)
        weak = self.forward_without_gradient(
            self.student, labeled.image, unlabeled.image, step=step, represent=True
        )
        assert weak.representation is not None
        size = weak.logits.shape[2:]
        prob = weak.logits[images:].softmax(dim=1)
        kept, valid = aligned(strong.kept, size), aligned(unlabeled.valid, size)
        label, truth = aligned(labeled.mask, size), aligned(unlabeled.mask, size)
        pool = self.pool(weak.representation, label, prob, valid, truth, seeds[:2])
        contrast, false = self.contrast(pool, weak.representation[images:], prob, kept, truth, seeds[2:])
        shares = Shares()
        judged = valid & (truth != self.classes.ignore_index)
        shares.add("weak/accuracy", prob.argmax(dim=1) == truth, judged)
        shares.add("negatives/false", *false)
        ramp = sigmoid_ramp(step.index, s.ramp * step.epochs * step.epoch_steps)
        return PC2SegTargets(
            forwards=(Forward(self.student, (labeled.image, strong.image), {"represent": True}),),
            label=self.labels(labeled.mask),
            prob=prob,
            kept=kept,
            share=self.whole_batch.shares(kept),
            contrast=contrast,
            ramp=ramp,
            diagnostics={
                "ramp": ramp,
                "contrast/anchors": processes.total(contrast.usable.sum()).float(),
            },
            shares=shares,
        )

    def losses(self, student: Output, targets: PC2SegTargets) -> dict[str, Tensor]:
        """L_s on the labelled images; on the strong views how far they are from the weak ones, in both spaces."""
        s, its = self.settings, targets.contrast
        assert student.representation is not None
        _, on_strong = student.logits.chunk(2)
        prob = on_strong.softmax(dim=1)
        apart_B = (direction_distance(prob, targets.prob) * targets.kept).sum(dim=(1, 2))
        targets.shares.add("views/agree", targets.prob.argmax(dim=1) == prob.argmax(dim=1), targets.kept)
        anchor = taken(student.representation.chunk(2)[1], its.index)
        loss_A = contrastive.info_nce(  # each anchor a class of its own, whose centre is the weak view
            anchor.flatten(0, 1)[:, None],
            its.positive.flatten(0, 1),
            its.table,
            its.negative.flatten(0, 1)[:, None],
            s.tau,
            its.usable.flatten()[:, None],
        )
        unlike_B = loss_A.view(its.usable.shape).where(its.usable, 0).sum(dim=1)
        return {
            "supervised": self.supervised(student, targets),
            "consistency": targets.ramp * s.lambda_cy * (apart_B * targets.share).sum(),
            "contrastive": targets.ramp * s.lambda_ct * (unlike_B * its.share).sum(),
        }

    def pool(
        self,
        representation: Tensor,
        label: Tensor,
        prob: Tensor,
        valid: Tensor,
        truth: Tensor,
        seeds: Sequence[list[int]],
    ) -> Pool:
        """As many points of each image as fit, of all processes, in an order that does not depend on their number.

        Args:
            representation: (2b, D, h, w), of the labelled images, then of the unlabelled ones.
            label: (b, h, w), of the labelled ones.
            prob: (b, C, h, w), of the unlabelled ones.
            valid: (b, h, w) bool, likewise.
            truth: (b, h, w), likewise.
            seeds: of each image, for either stream.
        """
        images, width = len(label), label.shape[2]
        known = (label >= 0) & (label < self.classes.count) & (label != self.classes.ignore_index)
        one_hot = functional.one_hot(label.where(known, 0), self.classes.count).permute(0, 3, 1, 2)
        everywhere = processes.size() * images
        each = max(self.settings.pool // (2 * everywhere), 1)
        parts = []
        for stream, (mask, soft, true) in enumerate(((known, one_hot, label), (valid, prob, truth))):
            index, usable = debiased_negatives.choose(mask, each, seeds[stream])
            number = processes.rank() * images + torch.arange(images, device=index.device)[:, None]
            parts.append(
                (
                    taken(representation[stream * images : (stream + 1) * images], index),
                    taken(soft.to(prob.dtype), index),
                    (number + stream * everywhere).expand_as(index),
                    index,
                    (number // (everywhere // self.recipe.replicas)).expand_as(index),
                    usable,
                    true.flatten(1).gather(1, index),
                )
            )
        feature, soft, image, index, group, usable, true = (
            processes.gather(torch.stack(both, dim=1)).flatten(0, 2) for both in zip(*parts, strict=True)
        )
        return Pool(feature, soft, Places(image, index // width, index % width), group, usable, true)

    def contrast(
        self,
        pool: Pool,
        representation: Tensor,
        prob: Tensor,
        kept: Tensor,
        truth: Tensor,
        seeds: Sequence[list[int]],
    ) -> tuple[Contrast, tuple[Tensor, Tensor]]:
        """The anchors with what they are compared with; and which negatives are of their class, of which it is known.

        Args:
            pool: to draw negatives from.
            representation: (b, D, h, w), of the weak views of the unlabelled images.
            prob: (b, C, h, w), likewise.
            kept: (b, h, w) bool, where anchors may be.
            truth: (b, h, w), to measure with.
            seeds: of each image, for the anchors and for the negatives.
        """
        s, images, width = self.settings, len(prob), prob.shape[3]
        index, usable = debiased_negatives.choose(kept, s.anchors_per_image, seeds[0])
        everywhere = processes.size() * images
        first = processes.rank() * images
        soft = taken(prob, index)
        negatives, possible = [], []
        for b, seed in enumerate(seeds[1]):
            number = torch.full_like(index[b], everywhere + first + b)
            group = (first + b) // (everywhere // self.recipe.replicas)
            weight = debiased_negatives.weights(
                s.negatives,
                soft[b],
                pool.label,
                Places(number, index[b] // width, index[b] % width),
                pool.at,
                pool.usable & (pool.group == group),
            )
            drawn, any_at_all = debiased_negatives.draw(weight, s.negatives_per_anchor, seed)
            negatives.append(drawn)
            possible.append(any_at_all)
        negative, usable = torch.stack(negatives), usable & torch.stack(possible)
        ignore, anchor_truth = self.classes.ignore_index, truth.flatten(1).gather(1, index)[..., None]
        drawn_truth = pool.truth[negative]
        known = usable[..., None] & (anchor_truth != ignore) & (drawn_truth != ignore)
        contrast = Contrast(
            index=index,
            usable=usable,
            share=self.whole_batch.shares(usable[:, None]),
            positive=taken(representation, index),
            negative=negative,
            table=pool.feature,
        )
        return contrast, (anchor_truth == drawn_truth, known)


def taken(map_BDHW: Tensor, index_BN: Tensor) -> Tensor:
    """Each image's values at some of its points, (B, N, D)."""
    rows = map_BDHW.flatten(2).transpose(1, 2)
    return rows.gather(1, index_BN[..., None].expand(-1, -1, rows.shape[2]))
