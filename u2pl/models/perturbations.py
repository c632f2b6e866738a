"""Seven ways of perturbing features (Ouali et al., CVPR 2020, Sec. 3.3).

Whatever is random comes as an argument, so that an image is perturbed alike however its batch is cut.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate, kl_div, log_softmax, softmax

_OUTLINE = 50
"""Points that an object's outline must exceed to be cut; as they stand where straight runs have become their ends."""
_WINDOW = 0.4
"""Of each side of an object's box, how much is cut."""
_STEP = 1e-6
"""Length of the step by which a decoder's worst direction is found."""

Box = tuple[int, int, int, int]
"""Top, left, height and width."""


def f_noise(z_BDHW: Tensor, noise_DHW: Tensor) -> Tensor:
    """Return z (1 + N), one field for all images.

    Args:
        z_BDHW: features.
        noise_DHW: N, uniform from -0.3 to 0.3.
    """
    return z_BDHW * (1 + noise_DHW)


def f_drop(z_BDHW: Tensor, share: float) -> Tensor:
    """Without the places whose mean over channels is at least a share of the greatest in the image.

    Args:
        z_BDHW: features.
        share: uniform from 0.7 to 0.9, one for all images.
    """
    attention = z_BDHW.mean(dim=1, keepdim=True)
    return z_BDHW * (attention < share * attention.amax(dim=(2, 3), keepdim=True))


def dropout(z_BDHW: Tensor, kept_BD: Tensor) -> Tensor:
    """Without half of the channels, the others doubled.

    Args:
        z_BDHW: features.
        kept_BD: bool, which stay, of each image.
    """
    return z_BDHW * (2 * kept_BD[:, :, None, None])


def masked(z_BDHW: Tensor, keep_BHW: Tensor) -> Tensor:
    """Without the places outside a mask of the image's pixels, bool.

    With the objects alone this is Con-Msk, with all but them Obj-Msk, with windows cut out of them G-Cutout.
    """
    keep = interpolate(keep_BHW[:, None].to(z_BDHW.dtype), size=z_BDHW.shape[2:], mode="nearest")
    return z_BDHW * keep


def objects(foreground_HW: NDArray[np.bool_]) -> list[Box]:
    """The boxes around the objects of a mask whose outline is ragged enough.

    A clean rectangle's outline has four points, and is never cut: that is how the original behaves.
    """
    import cv2

    contours, _ = cv2.findContours(foreground_HW.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    boxes = []
    for contour in contours:
        if len(contour) > _OUTLINE:
            (left, top), (right, bottom) = contour[:, 0].min(axis=0), contour[:, 0].max(axis=0)
            boxes.append((int(top), int(left), int(bottom - top), int(right - left)))
    return boxes


def cut(shape: tuple[int, int], boxes: list[Box], rng: np.random.Generator) -> NDArray[np.bool_]:
    """True but in one window of each box, anywhere in it, of two fifths of its sides."""
    keep = np.ones(shape, dtype=bool)
    for top, left, height, width in boxes:
        window = int(_WINDOW * height), int(_WINDOW * width)
        y, x = (
            start + rng.integers(0, int((1 - _WINDOW) * side), endpoint=True)
            for start, side in ((top, height), (left, width))
        )
        keep[y : y + window[0], x : x + window[1]] = False
    return keep


def adversarial(
    z_BDHW: Tensor, direction_BDHW: Tensor, decode: Callable[[Tensor], Tensor], length: float
) -> Tensor:
    """Return z + r, where r is the direction in which a decoder's prediction changes most (I-VAT, one power iteration).

    In float64: a step of 1e-6 is nothing in float32. No gradient flows through r, nor into the decoder while r is
    found.

    Args:
        z_BDHW: features.
        direction_BDHW: where the search begins, uniform from -0.5 to 0.5.
        decode: float64 features -> logits.
        length: of r, in each image.
    """
    with torch.enable_grad():
        clean = z_BDHW.detach().double()
        with torch.no_grad():
            wanted = softmax(decode(clean), dim=1)
        direction = _unit(direction_BDHW.double()).requires_grad_()
        said = log_softmax(decode(clean + _STEP * direction), dim=1)
        (gradient,) = torch.autograd.grad(kl_div(said, wanted, reduction="batchmean"), direction)
    return z_BDHW + (length * _unit(gradient)).to(z_BDHW.dtype)


def _unit(vector_BDHW: Tensor) -> Tensor:
    """Each image's vector at length 1; one of zeros stays what it is."""
    length_B = vector_BDHW.flatten(1).norm(dim=1).clamp(min=torch.finfo(vector_BDHW.dtype).tiny)
    return vector_BDHW / length_B[:, None, None, None]
