"""PC²Seg: a strong view is to say what the weak one says, and its features are to be alike there and nowhere else.

A reconstruction, not verified against the authors' code, which was never published: Zhong et al., *Pixel
Contrastive-Consistent Semi-Supervised Semantic Segmentation*, ICCV 2021. Each guess is a row of docs/fidelity.md.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from u2pl import processes
from u2pl.batches.loader import Batch
from u2pl.batches.strong_view import StrongDraws, strong_view
from u2pl.losses.debiased_negatives import Places, choose, draw, weights
from u2pl.losses.label_consistency import direction_distance
from u2pl.losses.ramp import sigmoid_ramp
from u2pl.methods.base import Method, Step, Targets
from u2pl.methods.registry import method
from u2pl.models.deeplab import DeepLabV3Plus, Output, upsample
from u2pl.settings import Recipe, Settings
from u2pl.settings.hyper import PC2SegSettings
from u2pl.steps.forward import Forward
from u2pl.steps.pixels import aligned
from u2pl.steps.shares import Shares

_PROJECTOR = "projector"
PROJECTED = "projected"
"""The name of the projections among what the network says further."""


class ProjectingNetwork(DeepLabV3Plus):
    """DeepLabv3+, and a projector of what its classifier makes of the features before its last convolution.

    Args:
        classes: number of classes C.
        recipe: as for DeepLabv3+.
        projection: channels D of the projections.
    """

    def __init__(self, classes: int, recipe: Recipe, projection: int):
        super().__init__(classes, recipe, representation=False)
        self.further[_PROJECTOR] = nn.Sequential(
            nn.Conv2d(recipe.width, recipe.width, 1, bias=False),
            nn.BatchNorm2d(recipe.width),
            nn.ReLU(inplace=True),
            nn.Conv2d(recipe.width, projection, 1),
        )

    def forward(self, image: Tensor, *, represent: bool = False, project: bool = False) -> Output:
        """Logits, and where asked for (B, D, h, w) projections of length 1, `further`'s "projected".

        Args:
            image: (B, 3, H, W), normalised.
            represent: means nothing here.
            project: whether projections are wanted.
        """
        with self.in_precision(image.device):
            features = self.features(image)
            output = self.answers(features, represent=False)
            if not project:
                return output
            projected = self.further[_PROJECTOR](features.hidden)
        length_one = functional.normalize(projected.float(), dim=1)
        return output._replace(further={**output.further, PROJECTED: length_one})


@dataclass(frozen=True)
class Pool:
    """Points of the weak views of all images of all processes, labelled ones first; P in all."""

    z_PD: Tensor
    """Their projections."""
    label_PC: Tensor
    """Their soft labels: the truth of labelled images, else the network's prediction."""
    truth_P: Tensor
    """Their true classes, to measure with, or the ignore index."""
    at: Places
    allowed_P: Tensor
    """bool, False where an image had too few points."""


@dataclass(frozen=True, kw_only=True)
class PC2SegTargets(Targets):
    """What the weak views say, and which points are compared; of M anchors of an image with N negatives each."""

    prob: Tensor
    """(b, C, h, w), of the unlabelled images."""
    kept: Tensor
    """(b, h, w) bool: points of the strong view that are neither padding nor cut out."""
    kept_share: Tensor
    """(b,): what such a point counts in the mean."""
    anchor: Tensor
    """(b, M) int64: places in rows of h w points."""
    compared: Tensor
    """(b, M) bool: anchors that there are, and that have negatives."""
    compared_share: Tensor
    """(b,): what such an anchor counts in the mean."""
    positive: Tensor
    """(b, M, D): projections of the same points in the weak view."""
    negative: Tensor
    """(b, M, N) int64, in the pool."""
    pool: Pool
    rise: float
    """Factor of both losses."""


@method("pc2seg")
class PC2Seg(Method):
    """L_s + lambda_cy L_cy + lambda_ct L_ct."""

    settings_class: ClassVar[type[Settings]] = PC2SegSettings
    settings: PC2SegSettings

    def network(self) -> DeepLabV3Plus:
        """With the projector."""
        return ProjectingNetwork(self.classes.count, self.recipe, self.settings.projection)

    def targets(self, batch: Batch, step: Step) -> PC2SegTargets:
        """What the weak views say, without gradient, and which of their points anchors are compared with."""
        s, labeled, unlabeled = self.settings, batch.labeled, batch.unlabeled
        assert unlabeled is not None
        images, everywhere = len(unlabeled.image), processes.size() * len(unlabeled.image)
        own = self.whole_batch.own(images)
        draws = StrongDraws.draw(s, everywhere, step.generator)
        # Of each image: for its points in the pool as a labelled and as an unlabelled one, its anchors, its negatives.
        seeds = torch.randint(2**62, (4, everywhere), generator=step.generator)[:, own].tolist()
        strong = strong_view(unlabeled.image, unlabeled.valid, draws.part(own))
        weak = self.forward_without_gradient(
            self.student, labeled.image, unlabeled.image, step=step, project=True
        )
        size = weak.logits.shape[2:]
        prob, z = weak.logits.chunk(2)[1].softmax(dim=1), weak.further[PROJECTED]
        truth = aligned(torch.cat([labeled.mask, unlabeled.mask]), size)
        pool = self.pooled(batch, prob, z, truth, seeds[:2])

        kept = aligned(strong.kept, size)
        anchor, there = choose(kept, s.anchors_per_image, seeds[2])
        first = everywhere + processes.rank() * images
        negative, found = [], []
        for b, seed in enumerate(seeds[3]):
            at = _places(first + b, anchor[b], size[1])
            label_MC = prob[b].flatten(1).T[anchor[b]]
            weight_MP = weights(s.negatives, label_MC, pool.label_PC, at, pool.at, pool.allowed_P)
            index_MN, has_M = draw(weight_MP, s.negatives_per_anchor, seed)
            negative.append(index_MN)
            found.append(has_M)
        compared = there & torch.stack(found)
        unlabeled_z = z.chunk(2)[1].flatten(2).transpose(1, 2)
        targets = PC2SegTargets(
            forwards=(
                Forward(self.student, (labeled.image, strong.image), {"represent": False, "project": True}),
            ),
            label=self.labels(labeled.mask),
            prob=prob,
            kept=kept,
            kept_share=self.whole_batch.shares(kept),
            anchor=anchor,
            compared=compared,
            compared_share=self.whole_batch.shares(compared[:, None]),
            positive=_at(unlabeled_z, anchor),
            negative=torch.stack(negative),
            pool=pool,
            rise=sigmoid_ramp(step.index, s.ramp * step.epochs * step.epoch_steps),
        )
        targets.diagnostics.update(self.diagnosed(targets, truth.chunk(2)[1], there))
        return targets

    def losses(self, student: Output, targets: PC2SegTargets) -> dict[str, Tensor]:
        """L_s; on the strong views L_cy in label space, and L_ct, an InfoNCE of each anchor, in feature space."""
        s = self.settings
        on_labeled, on_strong = student.logits.chunk(2)
        apart = direction_distance(on_strong.softmax(dim=1), targets.prob).where(targets.kept, 0)
        consistency = (apart.sum(dim=(1, 2)) * targets.kept_share).sum()
        z_BMD = _at(student.further[PROJECTED].chunk(2)[1].flatten(2).transpose(1, 2), targets.anchor)
        right_BM = (z_BMD * targets.positive).sum(dim=2) / s.tau
        # With all of the pool, since rows of it for every negative would take far more memory.
        wrong_BMN = (z_BMD @ targets.pool.z_PD.T / s.tau).gather(2, targets.negative)
        logits = torch.cat([right_BM[..., None], wrong_BMN], dim=2)
        loss_BM = (logits.logsumexp(dim=2) - right_BM).where(targets.compared, 0)
        contrast = (loss_BM.sum(dim=1) * targets.compared_share).sum()
        return {
            "supervised": self.supervised(student, upsample(on_labeled, targets.label.size), targets),
            "consistency": targets.rise * s.lambda_cy * consistency,
            "contrastive": targets.rise * s.lambda_ct * contrast,
        }

    def pooled(self, batch: Batch, prob: Tensor, z: Tensor, truth: Tensor, seeds: list[list[int]]) -> Pool:
        """As many points of each image's weak view, those of all processes.

        Args:
            batch: of this process.
            prob: (b, C, h, w), of the unlabelled images.
            z: (2b, D, h, w), of all images, the labelled ones first.
            truth: (2b, h, w), likewise.
            seeds: of the labelled images, and of the unlabelled ones.
        """
        labeled, unlabeled = batch.labeled, batch.unlabeled
        assert unlabeled is not None
        size, images, everywhere = prob.shape[2:], len(prob), processes.size() * len(prob)
        each = max(self.settings.pool // (2 * everywhere), 1)
        known = truth[:images] != self.classes.ignore_index
        one_hot = functional.one_hot(truth[:images].where(known, 0), self.classes.count)
        halves = (
            (aligned(labeled.valid, size) & known, one_hot.to(prob.dtype), z[:images], truth[:images]),
            (aligned(unlabeled.valid, size), prob.permute(0, 2, 3, 1), z[images:], truth[images:]),
        )
        parts = []
        for half, (mask, label, projected, true) in enumerate(halves):
            index, allowed = choose(mask, each, seeds[half])
            number = half * everywhere + torch.arange(everywhere, device=z.device)
            index, allowed = processes.gather(index), processes.gather(allowed)
            values = (
                processes.gather(_at(rows, index[self.whole_batch.own(images)]))
                for rows in (
                    projected.flatten(2).transpose(1, 2),
                    label.flatten(1, 2),
                    true.flatten(1)[..., None],
                )
            )
            parts.append((*values, index, allowed, number[:, None].expand_as(index)))
        z_PD, label_PC, truth_P1, index_P, allowed_P, image_P = (
            torch.cat(pair).flatten(0, 1) for pair in zip(*parts, strict=True)
        )
        return Pool(z_PD, label_PC, truth_P1[:, 0], _places(image_P, index_P, size[1]), allowed_P)

    def diagnosed(self, targets: PC2SegTargets, truth: Tensor, there: Tensor) -> dict[str, Tensor | float]:
        """How often the weak view is right, which share of the negatives is of the anchor's class, and who has any.

        Args:
            targets: of the step.
            truth: (b, h, w), of the unlabelled images.
            there: (b, M) bool, the anchors that there are.
        """
        ignore, shares = self.classes.ignore_index, Shares()
        shares.add("weak/accuracy", targets.prob.argmax(dim=1) == truth, targets.kept & (truth != ignore))
        own = _at(truth.flatten(1)[..., None], targets.anchor)
        other = targets.pool.truth_P[targets.negative]
        judged = targets.compared[..., None] & (own != ignore) & (other != ignore)
        shares.add("negatives/false", own == other, judged)
        shares.add("anchors/compared", targets.compared, there)
        return {"weight": targets.rise, **shares.diagnostics()}


def _at(rows_BPD: Tensor, index_BM: Tensor) -> Tensor:
    """Rows of each image, (B, M, D)."""
    return rows_BPD.gather(1, index_BM[..., None].expand(-1, -1, rows_BPD.shape[2]))


def _places(image: Any, index: Tensor, width: int) -> Places:
    """Where points of an image (or of one each) lie, given their places in its rows."""
    number = image if isinstance(image, Tensor) else torch.full_like(index, image)
    return Places(number, index // width, index % width)
