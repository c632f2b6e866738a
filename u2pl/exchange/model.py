"""A trained network as one uses it: pictures in; classes, probabilities and entropy out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from u2pl.batches.transforms import normalise, resize_image
from u2pl.data.description import Description
from u2pl.data.inspection import BadFile
from u2pl.data.pictures import read_image
from u2pl.errors import UserError
from u2pl.exchange import model_file
from u2pl.exchange.model_file import Facts
from u2pl.inference.windows import sliding_logits
from u2pl.models.backbone import Stages
from u2pl.models.deeplab import DeepLabV3Plus, upsample
from u2pl.models.trained import trained_network
from u2pl.project import Project
from u2pl.runs.results import description_of_run, load_network
from u2pl.runs.stored_evaluation import run_path
from u2pl.settings import FORMERLY, Recipe
from u2pl.settings import load as load_settings

WHOLE = 2**21
"""Most pixels of an image that goes through the network in one piece; of a batch too."""
WINDOW = 769
"""Least side of the windows of larger ones."""
BATCH = 8

Pixels = NDArray[np.uint8]
Picture = str | Path | Pixels
"""A file, or (H, W, 3) uint8 RGB."""


class Prediction(NamedTuple):
    """What a network says of a picture of H x W pixels."""

    classes: Pixels
    """(H, W) uint8: the likeliest class of each pixel, an index of `Model.classes`."""
    probabilities: NDArray[np.float32]
    """(C, H, W)."""
    entropy: NDArray[np.float32]
    """(H, W), in nats: 0 where the network is sure, ln C where it knows nothing (Eq. 3 of the paper)."""


class Pooled(NamedTuple):
    """Two of the encoder's maps, averaged over each picture, or over all windows that it is seen by; float32."""

    middle: Tensor
    """(B, M): of the last stage but one."""
    high: Tensor
    """(B, D): of the last."""


@dataclass(frozen=True)
class Model:
    """A trained network, in evaluation mode, and what its classes are."""

    facts: Facts
    """Name, recipe, score and provenance."""
    description: Description
    recipe: Recipe
    network: DeepLabV3Plus

    @classmethod
    def of_run(cls, project: Project, run: str) -> "Model":
        """Of a finished run, by its name or folder; on the GPU where there is one.

        Raises:
            UserError: there is no such run, it is not finished, or its classes are not known here.
        """
        path = run_path(project, run)
        description = description_of_run(project, path)
        network, recipe = load_network(path, len(description.classes))
        return cls(model_file.facts_of_run(path, description), description, recipe, network)

    @property
    def name(self) -> str:
        """Of the run it comes from."""
        return self.facts["name"]

    @property
    def classes(self) -> list[str]:
        """Names, in the order of their indices."""
        return self.description.classes

    @property
    def colors(self) -> list[tuple[int, int, int]]:
        """An RGB colour a class."""
        return self.description.colors

    @property
    def card(self) -> str:
        """The model card, Markdown."""
        return self.facts["card"]

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return next(self.network.parameters()).device

    def to(self, device: str | torch.device) -> Self:
        """Move the network to a device, such as "cuda" or "cpu"."""
        self.network.to(device)
        return self

    @overload
    def predict(self, images: Picture, *, window: int | None = None) -> Prediction: ...

    @overload
    def predict(
        self, images: list[Picture] | tuple[Picture, ...], *, window: int | None = None
    ) -> list[Prediction]: ...

    def predict(
        self, images: Picture | list[Picture] | tuple[Picture, ...], *, window: int | None = None
    ) -> Prediction | list[Prediction]:
        """Segment a picture, or several of any sizes, each at its own size.

        Args:
            images: a path, an array (H, W, 3) uint8 RGB; or of several a list, or an array (B, H, W, 3).
            window: side of windows that overlap; None: as the network was evaluated, or for large images alone.

        Raises:
            UserError: a file cannot be read, or an array is no picture.
        """
        if isinstance(images, (str, Path)) or (isinstance(images, np.ndarray) and images.ndim == 3):
            (prediction,) = self.predict([images], window=window)
            return prediction
        return [self._predict(_pixels(image), window) for image in images]

    def _predict(self, picture: Pixels, window: int | None) -> Prediction:
        (logits,) = self.logits([picture], window)
        log_prob = logits.float().log_softmax(dim=0)
        prob = log_prob.exp()
        entropy = -(prob * log_prob).sum(dim=0)
        return Prediction(
            prob.argmax(dim=0).to(torch.uint8).cpu().numpy(), prob.cpu().numpy(), entropy.cpu().numpy()
        )

    @torch.no_grad()
    def logits(self, pictures: Sequence[Pixels], window: int | None = None) -> Tensor:
        """(B, C, H, W) on the network's device, of (H, W, 3) uint8 pictures of one size; `window` as in `predict`."""
        if window is None and self.recipe.evaluation == "sliding":
            window = self.recipe.crop
        small = np.stack([resize_image(picture, self.recipe.resize) for picture in pictures])
        images = normalise(torch.from_numpy(small).to(self.device))
        if window is None and images.shape[2] * images.shape[3] > WHOLE:
            window = max(self.recipe.crop, WINDOW)
        if window is None:
            logits = self.network(images, represent=False).logits
        else:
            logits = sliding_logits(self.network, images, window)
        return upsample(logits, pictures[0].shape[:2])

    @torch.no_grad()
    def logits_and_features(
        self, pictures: Sequence[Pixels], window: int | None = None
    ) -> tuple[Tensor, Pooled]:
        """As `logits`, and what the encoder saw in the same forward pass."""
        seen: list[Pooled] = []

        def keep(module: torch.nn.Module, inputs: tuple[Tensor, ...], stages: Stages) -> None:
            seen.append(Pooled(*(each.float().mean(dim=(2, 3)) for each in (stages.middle, stages.high))))

        handle = self.network.backbone.register_forward_hook(keep)
        try:
            logits = self.logits(pictures, window)
        finally:
            handle.remove()
        # Windows come one after the other, each with all pictures.
        middle, high = (
            torch.cat(of_windows).unflatten(0, (-1, len(pictures))).mean(dim=0)
            for of_windows in zip(*seen, strict=True)
        )
        return logits, Pooled(middle, high)


def at_once(picture: Pixels) -> int:
    """How many images as large as this one make a batch."""
    height, width = picture.shape[:2]
    return max(1, min(BATCH, WHOLE // (height * width)))


def load(path: str | Path, device: str | torch.device | None = None) -> Model:
    """The network in a model file that `u2pl export` or a finished training wrote; nothing in the file is run.

    Args:
        path: NAME.u2pl.
        device: such as "cpu"; None: a GPU where there is one.

    Raises:
        UserError: there is no such file, or it is damaged.
    """
    path = Path(path)
    facts, description, state = model_file.read(path)
    again = "Copy it again, or make it again from its run: u2pl export RUN"
    recipe = load_settings(Recipe, {**FORMERLY, **facts["recipe"]}, f"{path}: recipe")
    network = trained_network(
        state, len(description.classes), recipe, where=str(path), remedy=again, device=device
    )
    return Model(facts, description, recipe, network)


def _pixels(image: Any) -> Pixels:
    if isinstance(image, (str, Path)):
        try:
            return read_image(Path(image))
        except BadFile as error:
            raise UserError(f"{image} cannot be read: {error.kind}. Mend or replace it.") from None
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        kind = (
            f"{image.dtype} of shape {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        )
        raise UserError(
            f"A picture is a path, or a numpy array (H, W, 3) of uint8, red, green and blue, not {kind}. "
            'Of a PIL image: numpy.asarray(image.convert("RGB")).'
        )
    return image
