"""Lets torchvision, and timm which imports it, be imported beside any torch; this room imports it first of all."""

import importlib.util
from pathlib import Path

import torch

from u2pl.errors import UserError


def _declare_missing_torchvision_operators() -> None:
    """Let torchvision import beside a torch built without CUDA.

    torchvision's published wheels are linked against CUDA. Where that library cannot be loaded, its
    import ends with "operator torchvision::nms does not exist", although nothing here detects boxes.
    Declaring the two names is all the import asks for.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise UserError("torchvision is not installed. Install the project again: make install")
    try:
        for library in Path(spec.origin).parent.glob("_C*.so"):
            torch.ops.load_library(str(library))
    except OSError:
        for name in ("nms", "qnms"):
            _fragment.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


_fragment = torch.library.Library("torchvision", "FRAGMENT")  # the declarations live as long as this object
_declare_missing_torchvision_operators()
