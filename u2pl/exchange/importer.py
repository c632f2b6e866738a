"""Makes a finished run of a released checkpoint, so that it can be evaluated, used and trained on like our own."""

import dataclasses
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import torch

from u2pl import methods
from u2pl.data.prepared import Split, description_of, open_split
from u2pl.data.records import Manifest
from u2pl.errors import UsageError, UserError
from u2pl.files import write_json, write_text
from u2pl.inference.evaluator import protocol
from u2pl.models import released, weights
from u2pl.models.deeplab import DeepLabV3Plus
from u2pl.project import Project, check_name
from u2pl.runs.folder import RunFolder, described
from u2pl.settings import RECIPE_VERSION, Params, ResolvedRun, initial_weights
from u2pl.typed_files import read

NETWORKS = {"teacher": "teacher_state", "student": "model_state"}
_SETTINGS = {"stem": "deep", "weights": "none", "precision": "float32"}
"""What the released networks are, whatever the recipe of the data set says."""


@dataclass(frozen=True)
class Imported:
    """What was imported, and what of it has no use here."""

    path: Path
    """The run's folder."""
    network: str
    matched: int
    """Tensors of the checkpoint that found their place."""
    auxiliary: list[str]
    """Tensors of the auxiliary head, which is kept for training that starts from this run."""
    unprepared: str | None
    """Why the run cannot be evaluated yet, in a sentence."""


def import_checkpoint(
    project: Project,
    checkpoint: Path,
    name: str,
    *,
    dataset: str,
    split: str | None = None,
    method: str | None = None,
    network: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Imported:
    """Write `runs/NAME/` with a network of a released checkpoint.

    Args:
        checkpoint: a file of the authors', with `model_state` and, but for SupOnly, `teacher_state`.
        name: of the run.
        dataset: what the network was trained on; its classes must be known, its images need not be there.
        split: which split the run is filed under; None: the first that is prepared, else full.
        method: what it was trained by; None: params.yaml's default, or without a teacher one that has none.
        network: "teacher" or "student"; None: the teacher where there is one.
        overrides: settings that differ from the data set's recipe (and from those that the checkpoint decides).

    Raises:
        UsageError: a name is unknown.
        UserError: there is such a run already; the file is no released checkpoint, or of other classes or shapes.
    """
    check_name("--as", name)
    if (project.runs / name).exists():
        raise UserError(
            f"{project.runs / name} exists already. Take another name, or delete that folder first."
        )
    content = weights.read(checkpoint)
    chosen, state = _state(content, checkpoint, network)
    named = weights.tensors(state, f"The {chosen} in {checkpoint}", "Copy or download the checkpoint again.")
    found = released.translate(named)
    classes = description_of(project, dataset).classes
    if found.classes not in (None, len(classes)):
        raise UserError(
            f"{checkpoint} tells {found.classes} classes apart, {dataset!r} has {len(classes)}. "
            "Say with --dataset what it was trained on."
        )
    resolved = _resolve(project, dataset, split, method, "teacher_state" in content, overrides or {})
    with torch.device("meta"):  # shapes alone
        empty = DeepLabV3Plus(len(classes), resolved.recipe, representation=found.has_representation)
    fit = weights.fit(found.state, empty)
    dataclasses.replace(fit, missing=[*fit.missing, *found.missing]).check(
        f"The {chosen} in {checkpoint}",
        f"It must be a network of the released code and fit the recipe of {dataset!r}: {resolved.recipe.backbone}, "
        f"width {resolved.recipe.width}. Others are named with --dataset, or --set backbone=... and --set width=...",
        allowed=(weights.FURTHER,),  # which nothing but training needs
    )
    opened, unprepared = _open(project, resolved)
    origin = {
        "file": str(checkpoint.resolve()),
        "sha256": initial_weights.sha256_of(checkpoint),
        "network": chosen,
        "epoch": _number(content.get("epoch")),
        "best_miou": _number(content.get("best_miou")),
    }
    folder = RunFolder.claim(project, name, _description(name, resolved, origin), fresh=False)
    try:
        tensors = {"network": chosen, "epoch": origin["epoch"], "state": found.state}
        folder.save("weights.pt", tensors)
        write_text(folder.path / "history.csv", "epoch,step\n")
        folder.event("end", 0, 0)
        write_json(folder.path / "metrics.json", _metrics(name, resolved, origin, classes, opened))
    except BaseException:
        # Whoever tries again would be told that there is such a run already. A folder that was not there before, and
        # that nothing was taken back into, holds what was just written alone.
        if folder.begun:
            shutil.rmtree(folder.path, ignore_errors=True)
        raise
    finally:
        folder.release()
    return Imported(folder.path, chosen, len(state) - len(found.auxiliary), found.auxiliary, unprepared)


def _state(
    content: Mapping[str, Any], checkpoint: Path, network: str | None
) -> tuple[str, Mapping[str, Any]]:
    """The network that is asked for, and what it is called."""
    if not isinstance(content.get("model_state"), Mapping):
        raise UserError(
            f"{checkpoint} is no checkpoint of the released code: it has no `model_state`. Weights of a backbone alone "
            f"are taken by training: u2pl train --weights {checkpoint}"
        )
    chosen = network or ("teacher" if "teacher_state" in content else "student")
    if chosen not in NETWORKS:
        raise UsageError(f"--network is teacher or student, not {chosen!r}.")
    state = content.get(NETWORKS[chosen])
    if not isinstance(state, Mapping):
        raise UserError(f"{checkpoint} has no {chosen}. Take the other: --network student")
    return chosen, state


def _resolve(
    project: Project,
    dataset: str,
    split: str | None,
    method: str | None,
    has_teacher: bool,
    overrides: Mapping[str, Any],
) -> ResolvedRun:
    params = Params.read(project)
    if method is None and not has_teacher:
        method = next(name for name in methods.names() if not methods.uses_unlabeled(name))
    if split is None:
        prepared = sorted((project.data(dataset) / "splits").glob("*/manifest.json"))
        split = read(Manifest, prepared[0])["split"] if prepared else "full"
    return params.resolve(params.spec(dataset, split, method, None, _SETTINGS | dict(overrides)))


def _open(project: Project, resolved: ResolvedRun) -> tuple[Split | None, str | None]:
    try:
        return open_split(project, resolved.spec.dataset, resolved.spec.split), None
    except UserError as error:
        return None, str(error)


def _number(value: Any) -> float | None:
    """A finite number, as JSON has it; None for anything else."""
    if isinstance(value, int):
        return value
    return float(value) if isinstance(value, Real) and math.isfinite(value) else None


def _description(name: str, resolved: ResolvedRun, origin: Mapping[str, Any]) -> dict[str, Any]:
    """The contents of run.json. How the network was trained is not known: there are no hyper-parameters."""
    spec = resolved.spec
    facts = {
        "recipe_version": RECIPE_VERSION,
        "dataset": spec.dataset,
        "split": spec.split,
        "method": spec.method,
        "seed": spec.seed,
        "recipe": initial_weights.recorded(resolved.recipe),
        "hyper": {},
        "imported": {"sha256": origin["sha256"], "network": origin["network"]},
    }
    return {**described(name, resolved, facts), "parent": None, "imported": dict(origin)}


def _metrics(
    name: str, resolved: ResolvedRun, origin: Mapping[str, Any], classes: list[str], split: Split | None
) -> dict[str, Any]:
    """The contents of metrics.json: everything but numbers, which only an evaluation gives."""
    run = _description(name, resolved, origin)
    for key in ("facts", "parent"):
        del run[key]
    return {
        **run,
        "protocol": {
            "evaluation": protocol(resolved.recipe),
            "network": origin["network"],
            "checkpoint": "imported",
        },
        "split_source": "not known (imported)",
        "labeled": len(split.labeled) if split else None,
        "unlabeled": len(split.unlabeled) if split else None,
        "miou": {"reported": None, "last": None, "best": None, "best_epoch": None},
        "iou": dict.fromkeys(classes),
        "steps": 0,
        "epochs": resolved.recipe.epochs,
        "seconds": 0.0,
        "images_per_second": 0.0,
    }
