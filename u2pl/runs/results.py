"""Evaluates finished runs and writes what tables and reports read."""

import pickle
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from u2pl.batches.transforms import center_crop, resize_image
from u2pl.batches.validation import scored_mask
from u2pl.data.description import Description, Progress
from u2pl.data.image_set import ImageSet
from u2pl.data.prepared import Split, description_of, open_split
from u2pl.errors import UsageError, UserError, is_out_of_memory, unknown
from u2pl.files import sha256, write_csv, write_json
from u2pl.inference.evaluator import Evaluation, evaluate, predictions, protocol
from u2pl.inference.tta import NO_TTA, TTA
from u2pl.models.deeplab import DeepLabV3Plus
from u2pl.models.trained import trained_network
from u2pl.project import Project, slug
from u2pl.runs import stored_evaluation
from u2pl.runs.origin import import_command, revision, train_command
from u2pl.runs.records import Metrics, read_metrics, read_run
from u2pl.settings import FORMERLY, RECIPE_VERSION, Recipe, load


def load_network(path: Path, classes: int) -> tuple[DeepLabV3Plus, Recipe]:
    """The network a finished run is reported by, in evaluation mode, and its recipe.

    Raises:
        UserError: the run is not finished, or its weights are damaged.
    """
    run = read_run(path)
    again = f"Delete {path} and train the run again: {train_command(run)}"
    if "imported" in run:
        again = f"Delete {path} and import the checkpoint again: {import_command(run)}"
    if not (path / "weights.pt").is_file():
        raise UserError(
            f"{path.name} is not finished. "
            + (again if "imported" in run else f"Go on with: {train_command(run)}")
        )
    if run["facts"]["recipe_version"] != RECIPE_VERSION:
        raise UserError(
            f"{path.name} was made by an earlier version, whose settings are not today's. "
            + (again if "imported" in run else f"Train it again: {train_command(run)} --fresh")
        )
    recipe = load(Recipe, {**FORMERLY, **run["recipe"]}, "recipe")
    where = path / "weights.pt"
    try:
        state = torch.load(where, map_location="cpu", weights_only=True)["state"]
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise UserError(f"{where} cannot be read ({type(error).__name__}). {again}") from None
    network = trained_network(state, classes, recipe, where=str(where), remedy=again, device=None)
    return network, recipe


def network_so_far(path: Path) -> dict[str, torch.Tensor] | None:
    """The weights of a run that has not finished, as they were when they scored best; None where it has none yet."""
    where = path / "best.pt"
    if not where.is_file():
        return None
    try:
        return dict(torch.load(where, map_location="cpu", weights_only=True)["state"])
    except (OSError, RuntimeError, KeyError, pickle.UnpicklingError):
        return None  # it is being written, or the disk was full


def description_of_run(project: Project, path: Path) -> Description:
    """The classes and colours of the data set that a run was trained on, which need not be prepared here.

    Raises:
        UserError: they are not known here, or are others than when the run was trained.
    """
    dataset = read_run(path)["dataset"]
    description = description_of(project, dataset)
    # A run that was cut off has no metrics, nor has one of which only the network was kept.
    known = (path / "metrics.json").is_file()
    if known and list(read_metrics(path)["iou"]) != description.classes:
        raise UserError(
            f"The classes of {dataset!r} have changed since {path.name} was trained, so its predictions would get the "
            "wrong names and colours. Train it again, or prepare the data set as it was."
        )
    return description


def evaluate_run(
    project: Project,
    name: str,
    into: Path | None = None,
    *,
    evaluation: str | None = None,
    tta: TTA = NO_TTA,
    worst: int = 0,
    progress: Progress = lambda what, done, total: None,
) -> Metrics:
    """Score the network a finished run is reported by, and write what came out to `evaluation_folder`.

    That is metrics.json, iou.csv, confusion.csv, samples/, and worst/ if it is asked for. By the run's own protocol its
    samples/ are replaced too.

    Args:
        project: where the run is.
        name: of the run, or its folder.
        into: folder that receives NAME/ with the same and history.csv; by the run's own protocol alone.
        evaluation: whole, sliding or center instead of the run's own.
        tta: scales and mirror images to average over.
        worst: how many of the images with the lowest own mIoU are to be shown.
        progress: told how many images are scored.

    Returns:
        The metrics, as in metrics.json. By another protocol they have no last and no best mIoU, which were measured by
        the run's own.

    Raises:
        UserError: there is no such run or evaluation, or the run is not finished.
        UsageError: results of another protocol are to go where tables read the run's own.
    """
    path = stored_evaluation.run_path(project, name)
    run = read_run(path)
    split = open_split(project, run["dataset"], run["split"])
    network, recipe = load_network(path, len(split.classes))
    folder = evaluation_folder(path, evaluation, tta)
    own = folder == stored_evaluation.own_folder(path)
    if into is not None and not own:
        raise UsageError(
            f"{into} holds what tables are made of, each run by its own protocol alone. "
            f"Leave --into out: the result goes to {folder}."
        )
    if into is not None:
        stored_evaluation.check_results_folder(project, path, into / read_run(path)["name"])
    if evaluation is not None:
        recipe = recipe.model_copy(update={"evaluation": evaluation})
    result = evaluate(network, split, recipe, tta=tta, keep_samples=True, progress=progress)
    metrics = read_metrics(path)
    miou = metrics["miou"]
    miou["reported"] = result.miou
    if not own:
        metrics["miou"] = {"reported": result.miou}
        metrics["protocol"]["evaluation"] = protocol(recipe, tta)
    elif metrics["protocol"]["checkpoint"] == "last" or miou["best_epoch"] == metrics["epochs"] - 1:
        miou["last"] = result.miou
    metrics["iou"], metrics["revision"] = result.iou(split.classes), revision(project.root)
    with stored_evaluation.lock(path):
        store(folder, split, recipe, metrics, result)
        if worst:
            names = result.worst(worst)
            show_worst(folder, split, recipe, result, predictions(network, split, recipe, names, tta))
        if own:
            stored_evaluation.write_stamp(project, path)
            stored_evaluation.copy_pictures(folder / "samples", path / "samples")
        if into is not None:
            stored_evaluation.publish(project, path, into / read_run(path)["name"])
    return metrics


def store_last_validation(
    project: Project, path: Path, split: Split, recipe: Recipe, result: Evaluation
) -> None:
    """Store the validation after a run's last epoch as its evaluation, so that nobody has to measure it again.

    Args:
        project: where the run is.
        path: folder of the run, which is finished.
        split: its data.
        recipe: its recipe.
        result: of the network that the run is reported by.
    """
    metrics = read_metrics(path)
    metrics["revision"] = revision(project.root)
    with stored_evaluation.lock(path):
        store(stored_evaluation.own_folder(path), split, recipe, metrics, result)
        stored_evaluation.write_stamp(project, path)


def store(
    folder: Path, split: ImageSet, recipe: Recipe, metrics: Mapping[str, Any], result: Evaluation
) -> None:
    """Write an evaluation in place of the one before, of which nothing may pass for a part of this one."""
    (folder / "stamp.json").unlink(missing_ok=True)
    if (worst := folder / "worst").is_dir():
        stored_evaluation.clear_pictures(worst)
        (worst / "worst.csv").unlink(missing_ok=True)
        with suppress(OSError):  # something else lies there too
            worst.rmdir()
    _write_scores(folder, metrics, result.confusion)
    write_samples(folder / "samples", split, recipe, result)


def show_worst(
    folder: Path, split: ImageSet, recipe: Recipe, result: Evaluation, predicted: Mapping[str, Tensor]
) -> None:
    """Add worst/ to an evaluation: pictures of the images that are `predicted`, and their own mIoUs in a table."""
    _write_pictures(folder / "worst", split, recipe, predicted, {})
    rows = [(name, result.images[name]) for name in predicted]
    write_csv(folder / "worst" / "worst.csv", [("image", "miou"), *rows])


def evaluation_folder(path: Path, evaluation: str | None = None, tta: TTA = NO_TTA) -> Path:
    """Where the run in `path` stores what `evaluate_run` finds by a protocol: the run's own, if nothing else is said.

    Raises:
        UsageError: there is no such evaluation.
    """
    known = get_args(Recipe.model_fields["evaluation"].annotation)
    if evaluation is not None and evaluation not in known:
        raise unknown("evaluation", evaluation, known)
    own = read_run(path)["recipe"]["evaluation"]
    parts = [evaluation or own] if tta == NO_TTA else [evaluation or own, tta.text]
    return path / "evaluations" / slug(" ".join(parts))


def _write_scores(folder: Path, metrics: Mapping[str, Any], confusion_CC: Tensor) -> None:
    """Write metrics.json; iou.csv with each class's IoU and true pixels; confusion.csv, a row for each true class.

    And shares.csv, the same with a line for each cell, and how many percent of the true class's pixels it is.
    """
    classes, counts = list(metrics["iou"]), confusion_CC.tolist()
    write_json(folder / "metrics.json", metrics)
    iou = [(name, metrics["iou"][name], sum(row)) for name, row in zip(classes, counts, strict=True)]
    write_csv(folder / "iou.csv", [("class", "iou", "pixels"), *iou])
    rows = [(name, *row) for name, row in zip(classes, counts, strict=True)]
    write_csv(folder / "confusion.csv", [("truth / prediction", *classes), *rows])
    shares = (
        (truth, prediction, count, round(100 * count / max(1, sum(row)), 2))
        for truth, row in zip(classes, counts, strict=True)
        for prediction, count in zip(classes, row, strict=True)
    )
    write_csv(folder / "shares.csv", [("truth", "prediction", "pixels", "percent"), *shares])


def write_samples(folder: Path, split: ImageSet, recipe: Recipe, result: Evaluation) -> None:
    """Write input, truth, prediction and entropy of the images that an evaluation kept: colour pictures, a grey one.

    They show what was scored: the whole image, or its centre crop.
    """
    _write_pictures(folder, split, recipe, result.samples, result.entropies)


def _write_pictures(
    folder: Path,
    split: ImageSet,
    recipe: Recipe,
    predicted: Mapping[str, Tensor],
    entropies: Mapping[str, Tensor],
) -> None:
    stored_evaluation.clear_pictures(folder)
    files = _file_names(predicted)
    for name, prediction in predicted.items():
        pictures = {
            "input": scored_image(split, recipe, name),
            "truth": colored(scored_mask(split, recipe, name).numpy(), split.colors),
            "prediction": colored(prediction.numpy(), split.colors),
        }
        if name in entropies:
            pictures["entropy"] = entropies[name].numpy()
        for kind, picture in pictures.items():
            Image.fromarray(picture).save(folder / f"{files[name]}.{kind}.png")


def _file_names(images: Collection[str]) -> dict[str, str]:
    """What pictures of images are called; two whose names become one, such as a/b and a_b, have a hash each."""
    counts = Counter(map(slug, images))
    return {
        name: slug(name) if counts[slug(name)] == 1 else f"{slug(name)}-{sha256(name)[:8]}" for name in images
    }


def scored_image(split: ImageSet, recipe: Recipe, name: str) -> np.ndarray:
    """The validation picture, whole, or its centre crop with white padding, (H, W, 3) uint8."""
    image = split.image(name)
    if recipe.evaluation != "center":
        return image
    pixels = torch.tensor(resize_image(image, recipe.resize)).permute(2, 0, 1)
    return center_crop(pixels, recipe.crop, 255).permute(1, 2, 0).numpy()


def colored(mask: np.ndarray, colors: list[tuple[int, int, int]]) -> np.ndarray:
    """A class map (H, W) in the data set's colours, (H, W, 3) uint8; pixels of no class are white."""
    palette = np.full((256, 3), 255, np.uint8)
    palette[: len(colors)] = colors
    return palette[mask]
