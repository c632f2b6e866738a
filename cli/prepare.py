"""`u2pl prepare`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import completion
from .help import FROM_PARAMS
from .terminal import console, next_step, say, say_json

if TYPE_CHECKING:
    from u2pl.data.description import Progress
    from u2pl.data.prepare import Prepared
    from u2pl.project import Project
    from u2pl.settings import Params
    from u2pl.training.chosen_recipe import Choice


def prepare(
    lists: Annotated[
        list[Path] | None,
        typer.Argument(
            help="With --source FILE: a second file, with the unlabelled images.", show_default=False
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="shapes, camvid, facade, voc, cityscapes, or the YAML file that describes your own.",
            autocompletion=completion.known_datasets,
            show_default=FROM_PARAMS,
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="Which images keep their labels: full, 1/2, 1/8, any other 1/k; of voc classic-1/16, blender-1/8.",
            autocompletion=completion.splits,
            show_default=f"{FROM_PARAMS}; full of your own",
        ),
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the data set's files; needed once, then remembered.", show_default="as remembered"
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            help="Whose lists: u2pl, unimatch, seeded (drawn here), or a FILE with the labelled images.",
            autocompletion=completion.among("u2pl", "unimatch", "seeded"),
            show_default="published ones where there are, else seeded",
        ),
    ] = None,
    overlap: Annotated[
        bool,
        typer.Option("--overlap", help="With --source FILE: labelled images may be unlabelled ones too."),
    ] = False,
    seed: Annotated[
        int | None,
        typer.Option(help="Seed of a drawn split, from 0.", show_default="splits.seed of params.yaml"),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON, nothing else.")] = False,
) -> None:
    """Bring a data set in, check every file of it, and choose the images that keep their labels.

    Example: u2pl prepare --dataset voc --split classic-1/16
    """
    from u2pl.errors import UsageError
    from u2pl.project import Project
    from u2pl.settings import Params

    if lists and source is None:
        raise UsageError(
            f"What is {lists[0]}? A data set follows --dataset, a list of labelled images --source."
        )
    project = Project.find()
    params = Params.read(project)

    import warnings

    from PIL import Image

    from u2pl.data.prepare import prepare

    from .progress import counting

    # Pillow warns of photographs of 90 million pixels and more; those of twice as many are refused like damaged ones.
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    with counting() as progress:
        prepared = prepare(
            project,
            params.default("dataset") if dataset is None else dataset,
            params.default_split(dataset) if split is None else split,
            root,
            source=[*([source] if source else []), *map(str, lists or [])],
            overlap=overlap,
            seed=seed,
            progress=progress,
        )
        choices = _choose(project, params, prepared, progress)
    if json:
        shown = {"folder": str(prepared.folder), "warnings": prepared.warnings}
        say_json({**prepared.manifest, **shown})
    else:
        _show(project, prepared, choices)
    for warning in prepared.warnings:
        say(f"Warning: {warning}", err=True)


def _choose(
    project: "Project", params: "Params", prepared: "Prepared", progress: "Progress"
) -> "list[Choice]":
    """Settings for somebody's own data, where there are none yet."""
    name = prepared.description.name
    if not params.lacks_recipe(name, prepared.split):
        return []
    from u2pl.data.prepared import open_split
    from u2pl.training.chosen_recipe import choose_for

    return choose_for(project, params, open_split(project, name, prepared.split), progress)


def _show_choices(choices: "list[Choice]") -> None:
    from u2pl.settings import value_text

    say("Chosen for these images and this machine:")
    for choice in choices:
        say(f"  {choice.key.removeprefix('overrides.')}={value_text(choice.value)}: {choice.reason}")


def _show(project: "Project", prepared: "Prepared", choices: "list[Choice]") -> None:
    from rich.table import Table

    from u2pl.settings import chosen_recipe_path

    manifest, name = prepared.manifest, prepared.description.name
    for sentence in prepared.found:
        say(sentence)
    table = Table(title=f"{name}, images with a mask")
    table.add_column("class")
    for heading in ("% of train", "% of val", "images", "labelled"):
        table.add_column(heading, justify="right")
    for class_name, found in manifest["classes"].items():
        mark = "  (no label)" if not found["labeled_images"] else ""
        shares = [f"{100 * side.classes[class_name]:.1f}" for side in (prepared.train, prepared.val)]
        counts = (*shares, str(found["images"]), str(found["labeled_images"]))
        table.add_row(class_name + mark, *counts, style="red" if mark else None)
    table.add_section()
    table.add_row("void", *(f"{100 * side.void:.1f}" for side in (prepared.train, prepared.val)))
    console().print(table)
    counts = manifest["counts"]
    say(
        f"Split {prepared.split} ({manifest['source']}): {counts['labeled']} labelled, "
        f"{counts['unlabeled']} unlabelled, {counts['val']} validation images."
    )
    if "fine" in manifest:
        from u2pl.data.audit import fine_sentence

        say(fine_sentence(manifest))
    if choices:
        _show_choices(choices)
        path = chosen_recipe_path(project, name, prepared.split)
        say(f"These settings are in {path}, yours to change.")
    say(f"The lists are in {prepared.folder}.")
    next_step("u2pl", "train", "--dataset", name, "--split", prepared.split)
