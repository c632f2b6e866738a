"""`u2pl prepare`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import completion
from .help import FROM_PARAMS
from .terminal import console, next_step, say, say_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
            show_default=f"{FROM_PARAMS}; full of your own; with --merge round-1, round-2, ...",
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
    merge: Annotated[
        Path | None,
        typer.Option(
            help="Folder with corrected masks, or a labelling tool's export: labels of a new split.",
            show_default=False,
        ),
    ] = None,
    onto: Annotated[
        str | None,
        typer.Option(
            help="With --merge: the split whose labels the new one keeps.",
            autocompletion=completion.splits,
            show_default="that of the suggestion, else the newest",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON, nothing else.")] = False,
) -> None:
    """Bring a data set in, check every file of it, and choose the images that keep their labels.

    Example: u2pl prepare --dataset voc --split classic-1/16

    Example: u2pl prepare --dataset boats --merge suggestions/boats-full-u2pl-s0/masks
    """
    from u2pl.errors import UsageError
    from u2pl.project import Project
    from u2pl.settings import Params

    if lists and source is None:
        raise UsageError(
            f"What is {lists[0]}? A data set follows --dataset, a list of labelled images --source."
        )
    if onto is not None and merge is None:
        raise UsageError("--onto is for --merge: the split whose labels the new one keeps. Leave it out.")
    if merge is not None and (source or lists or overlap or seed is not None):
        raise UsageError(
            "--merge makes the lists itself, from those of an earlier split (--onto). Leave out --source, --overlap "
            "and --seed."
        )
    project = Project.find()
    params = Params.read(project)

    import warnings

    from PIL import Image

    from u2pl.data.prepare import prepare

    from .progress import counting

    # Pillow warns of photographs of 90 million pixels and more; those of twice as many are refused like damaged ones.
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    chosen = params.default("dataset") if dataset is None else dataset
    if merge is not None:
        _merge(project, params, chosen, merge, onto, split, root, json=json)
        return
    with counting() as progress:
        prepared = prepare(
            project,
            chosen,
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


def _merge(
    project: "Project",
    params: "Params",
    dataset: str,
    folder: Path,
    onto: str | None,
    split: str | None,
    root: Path | None,
    *,
    json: bool,
) -> None:
    """Take corrected masks as labels of a new split."""
    from u2pl.labeling.merge import merge

    from .progress import counting

    with counting() as progress:
        found = merge(project, dataset, folder, onto=onto, split=split, root=root, progress=progress)
        choices = _choose(project, params, found.prepared, progress, found.onto)
    prepared = found.prepared
    if json:
        merged = {
            "onto": found.onto,
            "taken": found.taken,
            "labeled_before": found.again,
            "validation": found.validation,
            "empty": found.empty,
            "untouched": found.untouched,
            "elsewhere": found.elsewhere,
            "run": found.run,
        }
        say_json(
            {
                **prepared.manifest,
                "folder": str(prepared.folder),
                "warnings": prepared.warnings,
                "taken_from": str(folder),
                "round": merged,
            }
        )
    else:
        from u2pl.data.problems import count

        say(
            f"{count(len(found.taken), 'mask')} of {folder} taken, onto split {found.onto} ({found.why_onto})."
        )
        if found.again:
            say(f"{count(len(found.again), 'image')} had a label before; the new masks count from here on.")
        if found.validation:
            say(f"{count(len(found.validation), 'validation image')} left as they are: the masks agree.")
        if found.empty:
            say(f"{count(len(found.empty), 'image')} of the export left out: nothing is drawn on them.")
        _show(project, prepared, choices, _start(project, found.run) if found.run else [])
    for warning in (*prepared.warnings, *_untouched(found.untouched), *_elsewhere(found.elsewhere)):
        say(f"Warning: {warning}", err=True)


def _start(project: "Project", name: str) -> list[str]:
    """The options of a training that goes on from a run: its method and settings, and its network."""
    from u2pl.runs.records import read_run
    from u2pl.settings import value_text

    if not (project.runs / name / "weights.pt").is_file():
        return []
    run = read_run(project.runs / name)
    settings = [
        f"--set={key}={value_text(value)}"
        for key, value in run["overrides"].items()
        if key != "recipe.weights"
    ]
    return ["--method", run["method"], *settings, "--from", name]


def _untouched(names: "Sequence[str]") -> list[str]:
    if not names:
        return []
    from u2pl.data.problems import count

    some = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return [
        f"{count(len(names), 'mask')} exactly as u2pl suggest wrote them, perhaps not looked at yet: {some}. A model "
        "that learns its own predictions learns its errors."
    ]


def _choose(
    project: "Project", params: "Params", prepared: "Prepared", progress: "Progress", onto: str | None = None
) -> "list[Choice]":
    """Settings for somebody's own data, where there are none yet; of a round those of the split it goes on with."""
    name = prepared.description.name
    if not params.lacks_recipe(name, prepared.split):
        return []
    if onto is not None and _same_recipe(project, name, onto, prepared.split):
        return []
    from u2pl.data.prepared import open_split
    from u2pl.training.chosen_recipe import choose_for

    return choose_for(project, params, open_split(project, name, prepared.split), progress)


def _elsewhere(missed: "Mapping[str, int]") -> list[str]:
    return [
        f"Split {split} has corrected masks of {number} images that this one does not know. To go on with them, merge "
        f"again with --onto {split}."
        for split, number in missed.items()
    ]


def _same_recipe(project: "Project", dataset: str, onto: str, split: str) -> bool:
    """Give a split the settings that were chosen for another, so that the next model can start from the last."""
    from u2pl.files import write_text
    from u2pl.settings import chosen_recipe_path

    before = chosen_recipe_path(project, dataset, onto)
    if not before.is_file():
        return False
    write_text(chosen_recipe_path(project, dataset, split), before.read_text(encoding="utf-8"))
    return True


def _show_choices(choices: "list[Choice]") -> None:
    from u2pl.settings import value_text

    say("Chosen for these images and this machine:")
    for choice in choices:
        say(f"  {choice.key.removeprefix('overrides.')}={value_text(choice.value)}: {choice.reason}")


def _show(
    project: "Project", prepared: "Prepared", choices: "list[Choice]", start: "Sequence[str]" = ()
) -> None:
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
    next_step("u2pl", "train", "--dataset", name, "--split", prepared.split, *start)
