"""`u2pl import`."""

from pathlib import Path
from typing import Annotated

import typer

from . import completion
from . import run_options as options
from .terminal import next_step, say, say_json


def import_(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint of the authors' released code.")],
    name: Annotated[str, typer.Option("--as", help="Name of the run it becomes.")],
    dataset: Annotated[
        str, typer.Option(help="Data set it was trained on.", autocompletion=completion.datasets)
    ] = "voc",
    split: Annotated[
        str | None,
        typer.Option(
            help="Split it was trained on.",
            autocompletion=completion.splits,
            show_default="the first prepared one, else full",
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="Method it was trained by.",
            autocompletion=completion.methods,
            show_default="u2pl, without a teacher suponly",
        ),
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(
            help="teacher or student.",
            autocompletion=completion.among("teacher", "student"),
            show_default="the teacher where there is one",
        ),
    ] = None,
    set_: Annotated[
        list[str],
        typer.Option(
            "--set",
            help="Override a setting of the recipe: score_padding=true.",
            autocompletion=completion.settings,
            show_default="all as in params.yaml",
        ),
    ] = [],  # noqa: B006
    json: options.Json = False,
) -> None:
    """Make a finished run of a released checkpoint, to evaluate, to predict with and to train on from.

    Example: u2pl import ckpt_best.pth --as published --dataset voc --split classic-1/16
    """
    from u2pl.exchange.importer import import_checkpoint
    from u2pl.project import Project
    from u2pl.settings import parse_overrides

    done = import_checkpoint(
        Project.find(),
        checkpoint,
        name,
        dataset=dataset,
        split=split,
        method=method,
        network=network,
        overrides=parse_overrides(set_),
    )
    if json:
        facts = {"name": name, "folder": str(done.path), "network": done.network, "tensors": done.matched}
        say_json({**facts, "left_out": list(done.auxiliary), "unprepared": done.unprepared or None})
        return
    say(
        f"{name}: the {done.network} of {checkpoint}; all of its {done.matched} tensors have found their place."
    )
    if done.auxiliary:
        say(f"For training alone (auxiliary head): {', '.join(done.auxiliary)}.")
    if done.unprepared:
        say(f"To evaluate it, its data set must be prepared. {done.unprepared} Then: u2pl evaluate {name}")
    else:
        say(f"Everything about it is in {done.path}.")
        next_step("u2pl", "evaluate", name)
