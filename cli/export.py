"""`u2pl export`."""

from pathlib import Path
from typing import Annotated

import typer

from . import completion
from . import run_options as options
from .models import named_model
from .terminal import next_step, say, say_json


def export(
    model: Annotated[
        str,
        typer.Argument(help="A finished run, or a model file NAME.u2pl.", autocompletion=completion.models),
    ],
    out: Annotated[Path, typer.Option(help="Folder that receives the files.")] = Path(),
    onnx: Annotated[
        bool, typer.Option("--onnx", help="Write NAME.onnx, for ONNX Runtime and others.")
    ] = False,
    torchscript: Annotated[
        bool, typer.Option("--torchscript", help="Write NAME.torchscript.pt, for torch.jit.load.")
    ] = False,
    torch_export: Annotated[
        bool, typer.Option("--torch-export", help="Write NAME.pt2, for torch.export.load.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Write a trained network as one file: NAME.u2pl, or in a format that other programs run.

    A model file holds weights, classes, colours, settings, scores and a model card; `u2pl predict` and `u2pl.load`
    take it anywhere. What is written in another format is run again on pictures of three sizes, and compared.

    Example: u2pl export shapes-1_8-u2pl-s0 --onnx --out deploy
    """
    from u2pl.errors import UsageError
    from u2pl.exchange import exporter, model_file

    asked = {"onnx": onnx, "torchscript": torchscript, "torch-export": torch_export}
    forms = [form for form, wanted in asked.items() if wanted]
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file. Name a folder with --out.")
    if not forms:
        if model_file.is_model_file(model):
            raise UsageError(
                f"{model} is a model file already. Say what to make of it: --onnx, --torchscript or --torch-export."
            )
        from u2pl.project import Project
        from u2pl.runs.stored_evaluation import run_path

        project = Project.find()
        run = run_path(project, model)
        path = model_file.write_of_run(project, run, out / model_file.default_path(run).name)
        if json:
            say_json([{"file": str(path), "format": "u2pl", "bytes": path.stat().st_size}])
            return
        say(f"{path} ({path.stat().st_size / 1e6:.1f} MB).")
        next_step("u2pl", "predict", str(path), "PHOTOS", "--out", "FOLDER")
        return
    network = named_model(model)
    written = []
    for form in forms:
        path, difference = exporter.export(network, form, out)
        size = path.stat().st_size
        written.append({"file": str(path), "format": form, "bytes": size, "largest_difference": difference})
        if not json:
            say(
                f"{path} ({size / 1e6:.1f} MB): its probabilities differ by at most {difference:.1e} from ours."
            )
    if json:
        say_json(written)
        return
    say(f"Classes, colours, what goes in and what comes out: {out / network.name}.json")
