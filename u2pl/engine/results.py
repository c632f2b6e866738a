"""Evaluates finished runs and writes what tables and reports read."""

import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from u2pl.data.loader import scored_mask
from u2pl.data.prepared import Split, open_split
from u2pl.data.transforms import center_crop, resize_image
from u2pl.engine.evaluator import Evaluation, evaluate
from u2pl.errors import UserError, unknown
from u2pl.files import read_json, write_json
from u2pl.models.deeplab import DeepLabV3Plus
from u2pl.project import Project, slug
from u2pl.settings import RECIPE_VERSION, Recipe, load


def run_path(project: Project, name: str) -> Path:
    """The folder of a run that exists, by its name or its path."""
    path = project.runs / name
    if not (path / "run.json").is_file():
        path = Path(name)
    if not (path / "run.json").is_file():
        known = [p.parent.name for p in project.runs.glob("*/run.json")]
        raise (
            unknown("run", name, known)
            if known
            else UserError("There is no run yet. Train one: u2pl train --dataset shapes --split 1/8")
        )
    return path


def load_network(path: Path, classes: int) -> tuple[DeepLabV3Plus, Recipe]:
    """The network a finished run is reported by, in evaluation mode, and its recipe.

    Raises:
        UserError: the run is not finished, or its weights are damaged.
    """
    run = read_json(path / "run.json")
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
    recipe = load(Recipe, run["recipe"], "recipe")
    try:
        state = torch.load(path / "weights.pt", map_location="cpu", weights_only=True)["state"]
    except Exception as error:
        raise UserError(f"{path / 'weights.pt'} cannot be read ({type(error).__name__}). {again}") from None
    representation = any(key.startswith("representer.") for key in state)
    network = DeepLabV3Plus(
        classes, recipe.model_copy(update={"weights": "none"}), representation=representation
    )
    network.load_state_dict(state)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.eval(), recipe


def train_command(run: dict[str, Any]) -> str:
    """The command line that trains the run again."""
    words = ["u2pl", "train"]
    for key in ("dataset", "split", "method", "seed"):
        words += [f"--{key}", str(run[key])]
    for key, value in run["overrides"].items():
        words += ["--set", f"{key}={value}"]
    return shlex.join(words)


def import_command(run: dict[str, Any]) -> str:
    """The command line that imports the run's checkpoint again."""
    words = ["u2pl", "import", run["imported"]["file"], "--as", run["name"]]
    for key in ("dataset", "split", "method"):
        words += [f"--{key}", run[key]]
    words += ["--network", run["imported"]["network"]]
    for key, value in run["overrides"].items():
        words += ["--set", f"{key}={value}"]
    return shlex.join(words)


def evaluate_run(project: Project, name: str, into: Path | None = None) -> dict[str, Any]:
    """Score the network a finished run is reported by, and write a results folder.

    Args:
        into: folder that receives NAME/ with metrics.json, history.csv and samples/; default: the run's own folder
            receives the samples.

    Returns:
        The metrics, as in metrics.json.
    """
    path = run_path(project, name)
    run = read_json(path / "run.json")
    split = open_split(project, run["dataset"], run["split"])
    network, recipe = load_network(path, len(split.classes))
    result = evaluate(network, split, recipe, keep_samples=True)
    metrics: dict[str, Any] = read_json(path / "metrics.json")
    miou = metrics["miou"]
    miou["reported"] = result.miou
    if metrics["protocol"]["checkpoint"] == "last" or miou["best_epoch"] == metrics["epochs"] - 1:
        miou["last"] = result.miou
    metrics["iou"] = result.iou(split.classes)
    metrics["revision"] = revision(project)
    write_samples(path / "samples", split, recipe, result)
    if into is not None:
        target = into / run["name"]
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(path / "samples", target / "samples")
        shutil.copy(path / "history.csv", target / "history.csv")
        write_json(target / "metrics.json", metrics)
    return metrics


def revision(project: Project) -> str | None:
    """The project's git commit, None outside a repository."""
    try:
        command = ["git", "-C", str(project.root), "rev-parse", "--short=12", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def write_samples(folder: Path, split: Split, recipe: Recipe, result: Evaluation) -> None:
    """Write input, truth and prediction of the images that an evaluation kept, as colour pictures.

    They show what was scored: the whole image, or its centre crop.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, prediction in result.samples.items():
        pictures = {
            "input": _scored_image(split, recipe, name),
            "truth": colored(scored_mask(split, recipe, name).numpy(), split.colors),
            "prediction": colored(prediction.numpy(), split.colors),
        }
        for kind, picture in pictures.items():
            Image.fromarray(picture).save(folder / f"{slug(name)}.{kind}.png")


def _scored_image(split: Split, recipe: Recipe, name: str) -> np.ndarray:
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
