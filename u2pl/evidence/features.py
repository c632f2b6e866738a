"""Features of the same pixels in several runs, brought to two dimensions by t-SNE (Fig. A2).

A supervised run has no representation head, so the features are those that every network's segmentation head reads:
the low-level features beside the upsampled ones of the atrous pyramid.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import grid_sample

from u2pl.batches.transforms import normalise, resize_image
from u2pl.data.description import Progress
from u2pl.data.prepared import Split
from u2pl.errors import UsageError, UserError
from u2pl.evidence.figure_runs import LoadedRun, evenly_spaced

IMAGES = 100
"""Validation images that pixels are drawn from, if nothing else is said."""
PER_CLASS = 100
NEIGHBORS = 10
_PERPLEXITY = 30


@dataclass(frozen=True)
class Embedding:
    """The features of one run."""

    label: str
    position_P2: NDArray[np.float32]
    agreement: float
    """Of each pixel's nearest neighbours among all features, before they are brought to two dimensions, the share
    (0 to 1) that is of its class."""


@dataclass(frozen=True)
class Embeddings:
    """The same pixels in several runs."""

    dataset: str
    classes: list[str]
    colors: list[tuple[int, int, int]]
    class_P: NDArray[np.int64]
    runs: list[Embedding]
    per_class: int
    left_out: list[str]
    """Classes with too few pixels."""
    images: int


@dataclass(frozen=True)
class Pixel:
    """Where a pixel lies."""

    image: str
    row: int
    column: int
    of_class: int


def embed(
    runs: Sequence[LoadedRun],
    *,
    images: int | None = IMAGES,
    per_class: int = PER_CLASS,
    progress: Progress = lambda *_: None,
) -> Embeddings:
    """Bring the features of the same pixels to two dimensions, for each run by itself.

    Equally many pixels of each class are drawn, all of a class alike, whichever image they lie in. Images go through
    the networks whole. The same input always gives the same positions.

    Args:
        runs: of one data set.
        images: so many validation images, evenly spread over the list; None: all.
        per_class: pixels of a class; one that has fewer is left out.
        progress: told what is done.

    Raises:
        UsageError: the runs have other validation images.
        UserError: there are fewer than two classes with so many pixels.
    """
    split = runs[0].split
    if any(run.split.val != split.val for run in runs):
        raise UsageError("The runs have different validation images. Name runs of one split.")
    names = evenly_spaced(split.val, images)
    pixels = balanced_pixels(split, names, per_class)
    class_P = np.array([pixel.of_class for pixel in pixels])
    present = set(class_P.tolist())
    if len(present) < 2:
        raise UserError(
            f"Of the classes of {split.dataset!r} {len(present)} have {per_class} pixels in {len(names)} validation "
            "images, and two are needed. Look at more of them with --images."
        )
    embeddings = []
    for run in runs:
        features_PD = pixel_features(run, pixels, progress)
        progress(f"embedding {run.label}", 0, 1)
        embeddings.append(Embedding(run.label, tsne(features_PD), agreement(features_PD, class_P)))
        progress(f"embedding {run.label}", 1, 1)
    return Embeddings(
        dataset=split.dataset,
        classes=split.classes,
        colors=split.colors,
        class_P=class_P,
        runs=embeddings,
        per_class=per_class,
        left_out=[name for c, name in enumerate(split.classes) if c not in present],
        images=len(names),
    )


def balanced_pixels(split: Split, names: Sequence[str], per_class: int) -> list[Pixel]:
    """`per_class` pixels of each class that has as many, drawn without replacement; by image, then by class.

    A mask is open at a time: first pixels are counted, then those whose numbers were drawn are looked up.
    """
    classes = len(split.classes)
    counts_NC = np.array([np.bincount(split.mask(n).reshape(-1), minlength=256)[:classes] for n in names])
    drawn: dict[int, dict[int, NDArray[np.int64]]] = {}
    for c in range(classes):
        ends = counts_NC[:, c].cumsum()
        if ends[-1] < per_class:
            continue
        numbers = np.sort(np.random.default_rng([0, c]).choice(ends[-1], per_class, replace=False))
        image_of = np.searchsorted(ends, numbers, side="right")
        for k in np.unique(image_of).tolist():
            drawn.setdefault(k, {})[c] = numbers[image_of == k] - (ends[k] - counts_NC[k, c])
    pixels = []
    for k in sorted(drawn):
        mask_HW = split.mask(names[k])
        for c, numbers in sorted(drawn[k].items()):
            for place in np.flatnonzero(mask_HW == c)[numbers].tolist():
                row, column = divmod(place, mask_HW.shape[1])
                pixels.append(Pixel(names[k], row, column, c))
    return pixels


@torch.no_grad()
def pixel_features(
    run: LoadedRun, pixels: Sequence[Pixel], progress: Progress = lambda *_: None
) -> NDArray[np.float32]:
    """What the segmentation head reads at some pixels, (P, D), interpolated as logits are.

    Args:
        pixels: of masks; those of an image one after the other.
        progress: told how many images are done.
    """
    network, split = run.network, run.split
    device = next(network.parameters()).device
    read: list[Tensor] = []

    def keep_input(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        read.append(arguments[0])

    names = list(dict.fromkeys(pixel.image for pixel in pixels))
    found = []
    hook = network.classifier[0].register_forward_pre_hook(keep_input)
    try:
        for done, name in enumerate(names, 1):
            picture = split.image(name)
            small = torch.from_numpy(resize_image(picture, run.recipe.resize))[None]
            network(normalise(small.to(device)), represent=False)
            here = [(pixel.row, pixel.column) for pixel in pixels if pixel.image == name]
            found.append(at_pixels(read.pop(), here, picture.shape[:2]).cpu())
            progress(f"features of {run.label}", done, len(names))
    finally:
        hook.remove()
    return torch.cat(found).numpy()


def at_pixels(map_1DHW: Tensor, places: Sequence[tuple[int, int]], size: tuple[int, int]) -> Tensor:
    """A map's values at pixels of an image of `size`, (P, D) float32: bilinear, corners aligned."""
    yx_P2 = torch.tensor(places, dtype=torch.float32, device=map_1DHW.device)
    last_2 = torch.tensor(size, device=yx_P2.device).clamp(min=2) - 1
    grid_P2 = (2 * yx_P2 / last_2 - 1).flip(1)
    sampled = grid_sample(map_1DHW.float(), grid_P2[None, None], mode="bilinear", align_corners=True)
    return sampled[0, :, 0].T


def tsne(features_PD: NDArray[np.float32]) -> NDArray[np.float32]:
    """t-SNE of the features, (P, 2): started from their principal components, with a fixed random state."""
    from sklearn.manifold import TSNE  # takes a second to import

    return TSNE(
        n_components=2,
        init="pca",
        random_state=0,
        perplexity=min(_PERPLEXITY, (len(features_PD) - 1) / 3),
    ).fit_transform(features_PD)


def agreement(features_PD: NDArray[np.float32], class_P: NDArray[np.int64]) -> float:
    """Of each pixel's nearest neighbours (but itself), the share that is of its class, on average."""
    from sklearn.neighbors import NearestNeighbors

    count = min(NEIGHBORS, len(class_P) - 1)
    # Asked without points, it takes none for its own neighbour.
    index_PK = NearestNeighbors(n_neighbors=count).fit(features_PD).kneighbors(return_distance=False)
    return float((class_P[index_PK] == class_P[:, None]).mean())
