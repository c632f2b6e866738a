"""What `u2pl check` found of a network, few enough numbers to go wherever its model file goes."""

import base64
import binascii
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import TypedDict

from u2pl.errors import UserError
from u2pl.typed_files import Count, Finite

FILE = "trust.json"
"""Beside a run."""

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class ImageFacts(TypedDict):
    """See `trust.thresholds.ImageThreshold`."""

    threshold: Finite
    poor_below: Finite
    found: Share
    flagged: Share
    spearman: Finite
    aurc: Finite
    aurc_random: Finite
    aurc_best: Finite
    images: Count


class PixelFacts(TypedDict):
    """See `trust.thresholds.PixelThreshold`."""

    threshold: Share
    wrong_found: Share
    flagged: Share
    wrong_of_flagged: Share


class NoveltyFacts(TypedDict):
    """See `trust.novelty.Novelty`."""

    count: Annotated[int, Field(ge=1, le=1000)]
    size: Annotated[int, Field(ge=1, le=2**16)]
    neighbour: Annotated[int, Field(ge=1)]
    threshold: Positive
    features: str
    """Base64 of `count` x `size` numbers, little-endian float16, row by row."""


class TrustFacts(TypedDict):
    """trust.json, and the second entry in the header of a model file."""

    format: Literal[1]
    weights: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """SHA-256 of the weights.pt that was looked at."""
    temperature: Positive
    ece_before: Share | None
    ece_after: Share | None
    validation_images: Count
    image: ImageFacts | None
    pixel: PixelFacts | None
    novelty: NoveltyFacts | None


def packed(features_ND: NDArray[np.floating]) -> str:
    """Features as text."""
    return base64.b64encode(np.ascontiguousarray(features_ND, dtype="<f2").tobytes()).decode()


def unpacked(facts: NoveltyFacts) -> NDArray[np.float16]:
    """The features that `packed` wrote, (N, D) float16.

    Raises:
        UserError: they are not as many as is said, or no numbers.
    """
    try:
        numbers = np.frombuffer(base64.b64decode(facts["features"], validate=True), "<f2")
        features = numbers.reshape(facts["count"], facts["size"]).astype(np.float16)
    except (binascii.Error, ValueError):
        features = None
    if features is None or not np.isfinite(features).all() or facts["neighbour"] > facts["count"]:
        raise UserError("What u2pl check found of this network is damaged. Make it again: u2pl check RUN")
    return features
