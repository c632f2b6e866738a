"""CCT: decoders that see perturbed features learn what the main one says of clean ones (cross-consistency training).

Ouali et al., *Semi-Supervised Semantic Segmentation with Cross-Consistency Training*, CVPR 2020. Here the features are
those in front of the classifier's last convolution, which is what a decoder is.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, repeat
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from u2pl import processes
from u2pl.batches.loader import Batch
from u2pl.errors import UsageError
from u2pl.losses.ramp import sigmoid_ramp
from u2pl.methods.base import Classes, Method, Step, Targets
from u2pl.methods.registry import method
from u2pl.models import perturbations
from u2pl.models.deeplab import DeepLabV3Plus, Output, upsample
from u2pl.settings import Recipe, Settings
from u2pl.settings.hyper import CCTSettings
from u2pl.steps.forward import Forward
from u2pl.steps.micro_batch import MicroBatch
from u2pl.steps.pixels import aligned
from u2pl.steps.whole_batch import WholeBatch

_NOISE = 0.3
_DROP = (0.7, 0.9)
_VAT_LENGTH = 2.0


@dataclass(frozen=True)
class Draws:
    """What is random in a step's perturbations: seeds, since what they give is as large as the features."""

    decoder_K: list[int]
    """Of each decoder, for what all images share."""
    image_bK: Tensor
    """(b, K) int64, of each image of this process and decoder, for what is an image's own."""

    @classmethod
    def draw(cls, images: int, decoders: int, generator: torch.Generator) -> "Draws":
        """Those of this process, which has so many unlabelled images.

        Args:
            generator: of the step.
        """
        of_decoders = torch.randint(2**62, (decoders,), generator=generator)
        of_images = torch.randint(2**62, (processes.size() * images, decoders), generator=generator)
        return cls(of_decoders.tolist(), of_images[WholeBatch.own(images)])

    def of(self, micro: MicroBatch) -> "Draws":
        """Those of a micro-batch."""
        return replace(self, image_bK=self.image_bK[micro.own])


@dataclass(frozen=True, kw_only=True)
class CCTTargets(Targets):
    """Which pixels the decoders are to agree on."""

    valid: Tensor
    """(b, H, W) bool, of the unlabelled images."""
    share: Tensor
    """(b,): what such a pixel counts in the mean."""
    truth: Tensor
    """(b, H, W) int64, of the unlabelled images, to measure with."""
    weight: float
    """Of the consistency loss."""


class ManyDecoders(DeepLabV3Plus):
    """DeepLabv3+ with a decoder for each perturbation.

    Args:
        classes: number of classes C.
        recipe: as for DeepLabv3+.
        kinds: the perturbation of each decoder.
        context: classes that are no objects.
    """

    def __init__(self, classes: int, recipe: Recipe, kinds: Sequence[str], context: Sequence[int]):
        super().__init__(classes, recipe, representation=False)
        self.kinds, self.context = kinds, context
        self.further["decoders"] = nn.ModuleList(nn.Conv2d(recipe.width, classes, 1) for _ in kinds)

    def forward(
        self, image: Tensor, *, represent: bool | Tensor = False, draws: Draws | None = None
    ) -> Output:
        """Logits of all images; with draws also, in `further`, of each decoder of the second half, and what it shows.

        Args:
            image: (B, 3, H, W), normalised.
            represent: means nothing here.
            draws: for the second half, the unlabelled images.
        """
        with self.in_precision(image.device):
            features = self.features(image)
            output = self.answers(features, represent=False)
            if draws is None:
                return output
            z, said = (maps[len(image) // 2 :] for maps in (features.hidden, output.logits))
            scene = _Scene(said.detach(), image.shape[2:], self.context)
            decoders: Any = self.further["decoders"]
            decoded = {
                str(k): decoder(
                    self._perturbed(z, scene, decoder, kind, draws.decoder_K[k], draws.image_bK[:, k])
                ).float()
                for k, (decoder, kind) in enumerate(zip(decoders, self.kinds, strict=True))
            }
        seen = {"label": scene.label, "foreground": scene.foreground}
        return output._replace(further={**output.further, **decoded, **seen})

    def _perturbed(
        self, z: Tensor, scene: "_Scene", decoder: nn.Conv2d, kind: str, seed: int, seed_B: Tensor
    ) -> Tensor:
        """Features as a decoder sees them."""
        uniform = partial(torch.rand, device=z.device)
        match kind:
            case "f_noise":
                shared = torch.Generator(z.device).manual_seed(seed)
                noise = _NOISE * (2 * uniform(z.shape[1:], generator=shared) - 1)
                return perturbations.f_noise(z, noise.to(z.dtype))
            case "f_drop":
                least, most = _DROP
                share = least + (most - least) * float(np.random.default_rng(seed).random())
                return perturbations.f_drop(z, share)
            case "dropout":
                kept = _each(seed_B, lambda own: uniform(z.shape[1], generator=own) >= 0.5, z.device)
                return perturbations.dropout(z, kept)
            case "con_msk":
                return perturbations.masked(z, scene.foreground)
            case "obj_msk":
                return perturbations.masked(z, ~scene.foreground)
            case "g_cutout":
                return perturbations.masked(z, scene.cut(seed_B))
        start = _each(seed_B, lambda own: uniform(z.shape[1:], generator=own) - 0.5, z.device)
        with torch.autocast(z.device.type, enabled=False):
            weight, bias = (p.detach().double() for p in (decoder.weight, decoder.bias) if p is not None)
            return perturbations.adversarial(z, start, lambda x: conv2d(x, weight, bias), _VAT_LENGTH)


def _each(seed_B: Tensor, make: Callable[[torch.Generator], Tensor], device: torch.device) -> Tensor:
    """What a generator of its own gives to each image, stacked."""
    own = torch.Generator(device)
    return torch.stack([make(own.manual_seed(seed)) for seed in seed_B.tolist()])


class _Scene:
    """Where the main decoder sees objects."""

    def __init__(self, logits: Tensor, size: Sequence[int], context: Sequence[int]):
        self.label = upsample(logits, tuple(size)).argmax(dim=1)
        """(B, H, W) int64."""
        self.foreground = ~torch.isin(self.label, torch.tensor(context, device=logits.device))
        """(B, H, W) bool."""
        self._boxes: list[list[perturbations.Box]] | None = None

    def cut(self, seed_B: Tensor) -> Tensor:
        """The same as `foreground`, True but in windows that are cut out of its objects."""
        masks = self.foreground.cpu().numpy()  # waits for the device
        if self._boxes is None:
            self._boxes = [perturbations.objects(mask) for mask in masks]
        keep = [
            perturbations.cut(mask.shape, boxes, np.random.default_rng(seed))
            for mask, boxes, seed in zip(masks, self._boxes, seed_B.tolist(), strict=True)
        ]
        return torch.from_numpy(np.stack(keep)).to(self.foreground.device)


@method("cct")
class CCT(Method):
    """L_s + w(t) L_u."""

    settings_class: ClassVar[type[Settings]] = CCTSettings
    settings: CCTSettings

    @classmethod
    def check(cls, classes: Classes, recipe: Recipe, settings: Any) -> None:
        """Refuse a context of classes that there are not, or of all."""
        super().check(classes, recipe, settings)
        classes.check("context", settings.context, "[0]")
        if len(set(settings.context)) == classes.count:
            raise UsageError("context names every class, so that there are no objects. Leave one out.")

    def network(self) -> DeepLabV3Plus:
        """DeepLabv3+ with the decoders that the settings ask for."""
        settings = self.settings
        kinds = list(chain.from_iterable(repeat(kind, count) for kind, count in settings.decoders.items()))
        return ManyDecoders(self.classes.count, self.recipe, kinds, settings.context)

    def targets(self, batch: Batch, step: Step) -> CCTTargets:
        """The images, and what is random about the decoders."""
        labeled, unlabeled, s = batch.labeled, batch.unlabeled, self.settings
        assert unlabeled is not None
        draws = Draws.draw(len(unlabeled.image), sum(s.decoders.values()), step.generator)
        options: Mapping[str, Any] = {"represent": False, "draws": draws}
        weight = s.weight * sigmoid_ramp(step.index, s.ramp * step.epochs * step.epoch_steps)
        return CCTTargets(
            forwards=(Forward(self.student, (labeled.image, unlabeled.image), options),),
            label=self.labels(labeled.mask),
            valid=unlabeled.valid,
            share=self.whole_batch.shares(unlabeled.valid),
            truth=unlabeled.mask,
            weight=weight,
            diagnostics={"consistency/weight": weight},
        )

    def losses(self, student: Output, targets: CCTTargets) -> dict[str, Tensor]:
        """L_s of the main decoder; the mean over the others of the squared distance from its prediction."""
        _, on_unlabeled = student.logits.chunk(2)
        wanted = on_unlabeled.detach().softmax(dim=1)
        size = wanted.shape[2:]
        valid = aligned(targets.valid, size)
        decoded = [student.further[str(k)] for k in range(sum(self.settings.decoders.values()))]
        errors = [((logits.softmax(dim=1) - wanted) ** 2).mean(dim=1).where(valid, 0) for logits in decoded]
        sum_B = torch.stack(errors).sum(dim=(0, 2, 3))
        # Pixels are counted, since the points of all images are not known here; each stands for as many.
        area = targets.valid[0].numel() / size.numel()
        consistency = (sum_B * targets.share).sum() * (area / len(decoded))
        self._measure(student.further, wanted, decoded, valid, targets)
        return {
            "supervised": self.supervised(student, targets),
            "consistency": targets.weight * consistency,
        }

    def _measure(
        self,
        seen: Mapping[str, Tensor],
        wanted: Tensor,
        decoded: Sequence[Tensor],
        valid: Tensor,
        targets: CCTTargets,
    ) -> None:
        shares, truth = targets.shares, targets.truth
        for logits in decoded:
            shares.add("decoders/agree", logits.argmax(dim=1) == wanted.argmax(dim=1), valid)
        shares.add("decoders/objects", seen["foreground"], targets.valid)
        judged = targets.valid & (truth != targets.label.ignore_index)
        shares.add("decoders/accuracy", seen["label"] == truth, judged)
