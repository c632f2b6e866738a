"""`u2pl evaluate`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import completion
from . import run_options as options
from .progress import counting
from .terminal import console, next_step, say, say_json

if TYPE_CHECKING:
    from u2pl.data.picture_folder import PictureFolder
    from u2pl.inference.tta import TTA
    from u2pl.project import Project
    from u2pl.runs.records import Metrics


def evaluate(
    run: Annotated[
        str,
        typer.Argument(help="Name of a finished run, or its folder.", autocompletion=completion.run_names),
    ],
    into: Annotated[
        Path | None,
        typer.Option(help="Results folder that receives a folder of the run's name.", show_default="none"),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(help="Score a folder of pictures instead.", show_default="the validation images"),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(
            help="Their masks, each called like its picture.", show_default="`masks` beside --images"
        ),
    ] = None,
    class_numbers: Annotated[
        bool,
        typer.Option(
            "--class-numbers",
            help="These masks hold the classes' numbers, where the data set's own hold other values.",
        ),
    ] = False,
    evaluation: Annotated[
        str | None,
        typer.Option(
            help="whole, sliding or center.",
            autocompletion=completion.among("whole", "sliding", "center"),
            show_default="the run's own protocol",
        ),
    ] = None,
    scales: Annotated[
        str, typer.Option(help="Scales whose class probabilities are averaged, such as 0.5,0.75,1,1.25.")
    ] = "1",
    flip: Annotated[bool, typer.Option("--flip", help="Average with the mirror image too.")] = False,
    worst: Annotated[int, typer.Option(min=0, help="Write pictures of the images of lowest mIoU.")] = 0,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Score the network a finished run is reported by on the validation images, class by class.

    With --into, what was found of the same weights before is taken over instead of measured again.
    By another protocol than the run's own, the result stays in a folder of its own, and no table shows it.
    With --images any folder of pictures and masks is scored; that result too stays in a folder of its own.

    Example: u2pl evaluate shapes-1_8-u2pl-s0 --worst 10
    """
    from u2pl.errors import UsageError
    from u2pl.project import Project

    project = Project.find()
    if images is None:
        if masks is not None or class_numbers:
            raise UsageError(
                "--masks and --class-numbers are for --images, which names the pictures. Add it."
            )
        _validation(project, run, into, evaluation, scales, flip, worst, json)
        return
    if into is not None:
        raise UsageError(
            f"{into} holds what tables are made of, which are scores on the validation images. Leave --into out."
        )
    from u2pl.data.picture_folder import picture_folder
    from u2pl.inference.tta import TTA

    tta = TTA.parse(scales, flip)
    folder = picture_folder(images, masks, class_numbers=class_numbers)
    _pictures(project, run, folder, evaluation, tta, worst, json)


def _validation(
    project: "Project",
    run: str,
    into: Path | None,
    evaluation: str | None,
    scales: str,
    flip: bool,
    worst: int,
    json: bool,
) -> None:
    from u2pl.runs import stored_evaluation

    path = stored_evaluation.run_path(project, run)
    is_own = (evaluation, scales, flip, worst) == (None, "1", False, 0)
    if into is not None and is_own:

        def measure() -> "Metrics":
            from u2pl.runs.results import evaluate_run

            with counting() as progress:
                return evaluate_run(project, str(path), progress=progress)

        metrics = stored_evaluation.own_evaluation(project, path, measure, into)
        folder = into / metrics["name"]
    else:
        from u2pl.inference.tta import TTA
        from u2pl.runs.results import evaluate_run, evaluation_folder

        tta = TTA.parse(scales, flip)
        with counting() as progress:
            metrics = evaluate_run(
                project, run, into, evaluation=evaluation, tta=tta, worst=worst, progress=progress
            )
        folder = evaluation_folder(path, evaluation, tta)
    if json:
        say_json(metrics)
        return
    _show(metrics)
    say(stored_evaluation.result_in_words(metrics))
    say(f"Confusion matrix, IoU and pictures are in {folder}.")
    next_step("u2pl", "report")


def _pictures(
    project: "Project",
    run: str,
    folder: "PictureFolder",
    evaluation: str | None,
    tta: "TTA",
    worst: int,
    json: bool,
) -> None:
    from u2pl.runs import picture_scores
    from u2pl.runs.stored_evaluation import run_path

    with counting() as progress:
        scores, notes = picture_scores.score_pictures(
            project, run, folder, evaluation=evaluation, tta=tta, worst=worst, progress=progress
        )
    for note in notes:
        say(note, err=True)
    if json:
        say_json(scores)
        return
    _show(scores)
    say(picture_scores.in_words(scores))
    written = picture_scores.scores_folder(run_path(project, run), folder, evaluation, tta)
    say(f"Confusion matrix, IoU and pictures are in {written}.")


def _show(metrics: Mapping[str, Any]) -> None:
    """Print the IoU of each class."""
    from rich.table import Table

    from u2pl.runs import scored_classes

    protocol = metrics["protocol"]
    how = f"{protocol['network']}, {protocol['checkpoint']} checkpoint, {protocol['evaluation']}"
    table = Table(title=f"{metrics['name']}: {how}")
    table.add_column("class")
    table.add_column("IoU %", justify="right")
    for name, value in metrics["iou"].items():
        table.add_row(name, "-" if value is None else f"{value:.2f}")
    table.add_section()
    table.add_row(
        f"mIoU {scored_classes.counted_classes(metrics)}".rstrip(), f"{metrics['miou']['reported']:.2f}"
    )
    console().print(table)
