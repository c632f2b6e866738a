"""`u2pl import`."""

from pathlib import Path
from typing import Annotated

import typer

from .terminal import say


def import_(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint of the authors' released code.")],
    name: Annotated[str, typer.Option("--as", help="Name of the run it becomes.")],
    dataset: Annotated[str, typer.Option(help="Data set it was trained on.")] = "voc",
    split: Annotated[
        str | None, typer.Option(help="Split it was trained on; default: the first prepared one, else full.")
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="Method it was trained by; default: u2pl, without a teacher suponly.")
    ] = None,
    network: Annotated[
        str | None, typer.Option(help="teacher or student; default: the teacher where there is one.")
    ] = None,
    set_: Annotated[
        list[str], typer.Option("--set", help="Override a setting of the recipe: score_padding=true.")
    ] = [],  # noqa: B006
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
    say(
        f"{name}: the {done.network} of {checkpoint}; all of its {done.matched} tensors have found their place."
    )
    if done.auxiliary:
        say(f"For training alone (auxiliary head): {', '.join(done.auxiliary)}.")
    if done.unprepared:
        say(f"To evaluate it, its data set must be prepared. {done.unprepared} Then: u2pl evaluate {name}")
    else:
        say(f"Everything about it is in {done.path}. Next: u2pl evaluate {name}")
