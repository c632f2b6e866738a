"""`u2pl evaluate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .terminal import console, say, say_json

if TYPE_CHECKING:
    from u2pl.runs.records import Metrics


def evaluate(
    run: Annotated[str, typer.Argument(help="Name of a finished run, or its folder.")],
    into: Annotated[
        Path | None, typer.Option(help="Results folder that receives a folder of the run's name.")
    ] = None,
    evaluation: Annotated[
        str | None, typer.Option(help="whole, sliding or center instead of the run's own protocol.")
    ] = None,
    scales: Annotated[
        str, typer.Option(help="Scales whose class probabilities are averaged, such as 0.5,0.75,1,1.25.")
    ] = "1",
    flip: Annotated[bool, typer.Option("--flip", help="Average with the mirror image too.")] = False,
    worst: Annotated[int, typer.Option(min=0, help="Write pictures of the images of lowest mIoU.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print the metrics as JSON.")] = False,
) -> None:
    """Score the network a finished run is reported by on the validation images, class by class.

    With --into, what was found of the same weights before is taken over instead of measured again.
    By another protocol than the run's own, the result stays in a folder of its own, and no table shows it.

    Example: u2pl evaluate shapes-1_8-u2pl-s0 --worst 10
    """
    from u2pl.project import Project
    from u2pl.runs import scored_classes, stored_evaluation

    project = Project.find()
    path = stored_evaluation.run_path(project, run)
    is_own = (evaluation, scales, flip, worst) == (None, "1", False, 0)
    if into is not None and is_own:

        def measure() -> "Metrics":
            from u2pl.runs.results import evaluate_run

            return evaluate_run(project, str(path))

        metrics = stored_evaluation.own_evaluation(project, path, measure, into)
        folder = into / metrics["name"]
    else:
        from u2pl.inference.tta import TTA
        from u2pl.runs.results import evaluate_run, evaluation_folder

        tta = TTA.parse(scales, flip)
        metrics = evaluate_run(project, run, into, evaluation=evaluation, tta=tta, worst=worst)
        folder = evaluation_folder(path, evaluation, tta)
    if json:
        say_json(metrics)
        return
    from rich.table import Table

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
    say(stored_evaluation.result_in_words(metrics))
    say(f"Confusion matrix, IoU and pictures are in {folder}. Next: u2pl report")
