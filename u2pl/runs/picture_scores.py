"""Scores a finished run on a folder of pictures and masks, beside its validation result and in no table."""

from pathlib import Path

import torch

from u2pl.data.description import Progress
from u2pl.data.picture_folder import PictureFolder, opened
from u2pl.files import sha256
from u2pl.inference.evaluator import evaluate, predictions, protocol
from u2pl.inference.tta import NO_TTA, TTA
from u2pl.project import Project, safe_name
from u2pl.runs import origin, results, scored_classes, stored_evaluation
from u2pl.runs.records import PictureScores, read_run


def scores_folder(
    path: Path, folder: PictureFolder, evaluation: str | None = None, tta: TTA = NO_TTA
) -> Path:
    """Where the run in `path` has what was found on a folder of pictures, by a protocol.

    Raises:
        UsageError: there is no such evaluation.
    """
    images, masks = folder.images.resolve(), folder.masks.resolve()
    # Many folders are called `images`; the one above mostly says which.
    name = safe_name("/".join(images.parts[-2:])).lstrip("_")
    which = sha256(repr((str(images), str(masks), folder.class_numbers)))[:8]
    by = results.evaluation_folder(path, evaluation, tta).name
    return path / "evaluations" / "pictures" / f"{name}-{which}" / by


def score_pictures(
    project: Project,
    name: str,
    folder: PictureFolder,
    *,
    evaluation: str | None = None,
    tta: TTA = NO_TTA,
    worst: int = 0,
    progress: Progress = lambda what, done, total: None,
) -> tuple[PictureScores, tuple[str, ...]]:
    """Score the network a finished run is reported by on the pictures, and write what came out to `scores_folder`.

    The run's data set need not be prepared here: its classes and colours are enough, and of the run's folder run.json
    and weights.pt.

    Args:
        project: where the run is.
        name: of the run, or its folder.
        folder: the pictures and masks.
        evaluation: whole, sliding or center instead of the run's own.
        tta: scales and mirror images to average over.
        worst: how many of the pictures with the lowest own mIoU are to be shown.
        progress: told how many pictures were looked at, and scored.

    Returns:
        What is in metrics.json, and what was taken for granted of the masks, in sentences.

    Raises:
        UserError: there is no such run, it is not finished, its classes are not known here, or something is wrong with
            the pictures or masks.
        UsageError: there is no such evaluation.
    """
    path = stored_evaluation.run_path(project, name)
    run, target = read_run(path), scores_folder(path, folder, evaluation, tta)
    description = results.description_of_run(project, path)
    network, recipe = results.load_network(path, len(description.classes))
    if evaluation is not None:
        recipe = recipe.model_copy(update={"evaluation": evaluation})
    with opened(folder, description, progress) as (images, notes):
        result = evaluate(network, images, recipe, tta=tta, keep_samples=True, progress=progress)
        scores: PictureScores = {
            "name": run["name"],
            "dataset": run["dataset"],
            "split": run["split"],
            "method": run["method"],
            "seed": run["seed"],
            "overrides": run["overrides"],
            "recipe": run["recipe"],
            "hyper": run["hyper"],
            "fingerprint": run["fingerprint"],
            "pictures": {
                "images": str(folder.images.resolve()),
                "masks": str(folder.masks.resolve()),
                "class_numbers": folder.class_numbers,
                "count": len(images.val),
            },
            "protocol": {
                "evaluation": protocol(recipe, tta),
                "network": torch.load(path / "weights.pt", map_location="cpu", weights_only=True)["network"],
                "checkpoint": "imported" if "imported" in run else recipe.checkpoint,
            },
            "miou": {"reported": result.miou},
            "iou": result.iou(images.classes),
            "revision": origin.revision(project.root),
        }
        with stored_evaluation.lock(path):
            results.store(target, images, recipe, scores, result)
            if worst:
                shown = predictions(network, images, recipe, result.worst(worst), tta)
                results.show_worst(target, images, recipe, result, shown)
    return scores, notes


def in_words(scores: PictureScores) -> str:
    """The mIoU, and of which pictures and which network it is."""
    over = scored_classes.counted_classes(scores)
    left_out = scored_classes.names_left_out(scores)
    pictures = scores["pictures"]
    images = "1 picture" if pictures["count"] == 1 else f"{pictures['count']:,} pictures"
    words = [f"mIoU {scores['miou']['reported']:.2f} %", over, f"on {images} in {pictures['images']},"]
    after = f" Left out: {left_out}, in no scored pixel and in no prediction." if over else ""
    return (
        f"{' '.join(filter(None, words))} {scores['protocol']['checkpoint']} network: no validation result, "
        f"and no number of the tables.{after}"
    )
