"""Writes a network in formats that other programs run, and checks that what they hold computes the same."""

import warnings
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from u2pl.errors import UserError
from u2pl.exchange.model import Model
from u2pl.files import write_atomically, write_json
from u2pl.models.deeplab import upsample

TOLERANCE = 1e-4
"""Most by which a probability of an exported network may differ from ours."""
_SIZES = ((1, 96, 128), (2, 161, 97), (1, 65, 224))
"""Batch, height and width of the pictures that are compared; the first is what an exporter sees."""
INPUT, OUTPUT = "image", "probabilities"

Run = Callable[[Tensor], Tensor]


class Exported(nn.Module):
    """What is exported: RGB values from 0 to 255, (B, 3, H, W) float32, to probabilities (B, C, H, W)."""

    def __init__(self, model: Model):
        super().__init__()
        self.network = deepcopy(model.network).to("cpu", torch.float32)
        self.network.autocast = None
        self.mean: Tensor
        self.register_buffer("mean", torch.tensor(model.facts["mean"])[:, None, None])
        self.std: Tensor
        self.register_buffer("std", torch.tensor(model.facts["std"])[:, None, None])

    def forward(self, image: Tensor) -> Tensor:
        """See the class."""
        logits = self.network((image - self.mean) / self.std, represent=False).logits
        return upsample(logits, image.shape[2:]).softmax(dim=1)


def onnx(network: Exported, path: Path) -> Run:
    """Write an ONNX file, of any batch, height and width; what runs it again."""
    try:
        import onnx as library
        import onnxruntime
    except ImportError as error:
        raise UserError(
            f"ONNX needs the package {error.name}: pip install 'u2pl[onnx]', or pip install onnx onnxruntime"
        ) from None
    axes = {0: "batch", 2: "height", 3: "width"}
    # The exporter that traces: the newer one keeps the size of its example wherever the network looks at a shape.
    torch.onnx.export(
        network,
        (_pictures(0),),
        path,
        dynamo=False,
        opset_version=17,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_axes={INPUT: axes, OUTPUT: axes},
    )
    library.checker.check_model(str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda image: torch.from_numpy(session.run([OUTPUT], {INPUT: image.numpy()})[0])


def torchscript(network: Exported, path: Path) -> Run:
    """Write a TorchScript file; what runs it again."""
    torch.jit.save(torch.jit.trace(network, _pictures(0), check_trace=False), path)
    run: Run = torch.jit.load(path)
    return run


def torch_export(network: Exported, path: Path) -> Run:
    """Write a program of torch.export, of any batch, height and width; what runs it again."""
    sizes = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    # Of a batch of two, since a size of one is taken for a constant.
    program = torch.export.export(network, (_pictures(1),), dynamic_shapes=(sizes,))
    # As streams: of a name it asks that it end in .pt2.
    with path.open("wb") as file:
        torch.export.save(program, file)
    with path.open("rb") as file:
        run: Run = torch.export.load(file).module()
    return run


FORMATS: dict[str, tuple[str, Callable[[Exported, Path], Run]]] = {
    "onnx": (".onnx", onnx),
    "torchscript": (".torchscript.pt", torchscript),
    "torch-export": (".pt2", torch_export),
}
"""Format -> suffix of its files, and what writes one."""


def export(model: Model, form: str, folder: Path) -> tuple[Path, float]:
    """Write a model in one of `FORMATS`, and beside it NAME.json with classes, colours and what goes in and out.

    Returns:
        The file, and by how much the probabilities of what it holds differ at most from ours, over pictures of three
        sizes.

    Raises:
        UserError: a library is missing, or they differ by more than `TOLERANCE`; then there is no file.
    """
    suffix, write = FORMATS[form]
    path = folder / f"{model.name}{suffix}"
    network = Exported(model).eval()
    worst = 0.0

    def write_and_check(target: Path) -> None:
        nonlocal worst
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of exporters, about what the comparison finds out
            run = write(network, target)
            worst = max(
                float((run(_pictures(number)) - network(_pictures(number))).abs().max())
                for number in range(len(_SIZES))
            )
        if not worst <= TOLERANCE:
            raise UserError(
                f"What {form} makes of {model.name} differs by up to {worst:.1e} in a probability, so nothing was "
                "written. Try another format."
            )

    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, write_and_check)
    write_json(folder / f"{model.name}.json", describe(model))
    return path, worst


def describe(model: Model) -> dict[str, Any]:
    """What a program must know that runs an exported network."""
    return {
        "name": model.name,
        "input": {
            "name": INPUT,
            "shape": ["batch", 3, "height", "width"],
            "type": "float32",
            "values": "red, green and blue from 0 to 255",
            "resized_by": model.recipe.resize,
        },
        "output": {"name": OUTPUT, "shape": ["batch", len(model.classes), "height", "width"]},
        "classes": model.classes,
        "colors": [list(color) for color in model.colors],
    }


def _pictures(number: int) -> Tensor:
    batch, height, width = _SIZES[number]
    generator = torch.Generator().manual_seed(number)
    return torch.rand(batch, 3, height, width, generator=generator) * 255
