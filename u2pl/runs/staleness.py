"""Staleness: whether a run, or the result of one, is what the settings of today ask for.

Knows no torch, so that a whole plan is checked in no time.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from u2pl.data.records import Manifest
from u2pl.errors import UsageError, UserError
from u2pl.files import sha256_json, sha256_of
from u2pl.project import Project
from u2pl.settings import RECIPE_VERSION, WORDS_FOR_WEIGHTS, Params, RunSpec, differences, fingerprint
from u2pl.typed_files import read


def facts(project: Project, params: Params, spec: RunSpec, recorded: Mapping[str, Any]) -> dict[str, Any]:
    """All that decides a run's numbers today, as `trainer.describe` finds it, but without torch.

    Three things are taken on trust. Precision `auto` is what it was when the run began, if it can be, since asking
    the device takes seconds. A method's settings are compared as they stand in params.yaml, after the type of what
    was recorded; conversions of the method's own class are not made here. Lists and images are those that the
    split's manifest tells of; `u2pl train` refuses lists that were edited since.

    Args:
        project: whose splits and weights are looked at.
        params: the settings of today.
        spec: the run.
        recorded: the same of when it began.

    Raises:
        UserError: a setting is unknown or out of range.
    """
    old = recorded["recipe"]
    resolved = params.resolve(spec, bfloat16=old.get("precision") == "bfloat16")
    recipe = resolved.recipe.recorded()
    if resolved.recipe.weights not in WORDS_FOR_WEIGHTS:
        recipe["weights"] = _hash_of(Path(resolved.recipe.weights))
    manifest = _manifest(project, spec)
    return {
        "recipe_version": RECIPE_VERSION,
        "dataset": spec.dataset,
        "split": spec.split,
        "data": recorded["data"] if manifest is None else sha256_json(manifest),
        "method": spec.method,
        "seed": spec.seed,
        "recipe": recipe,
        "hyper": {key: _like(value, recorded["hyper"].get(key)) for key, value in resolved.hyper.items()},
    }


def changes(project: Project, params: Params, spec: RunSpec, metrics: Mapping[str, Any]) -> list[str]:
    """What has changed since the result of a run was made, a line each; none where it is as of today.

    The result alone is asked, so the run's folder and its model may be gone. Where the split is not prepared, nothing
    but the seed that its lists are drawn with is known of it; the images, lists that were not drawn and the version of
    the recipe are then taken on trust, as is a file of weights that cannot be read, and all that `facts` takes.

    Args:
        project: whose splits and weights are looked at.
        params: the settings of today.
        spec: the run.
        metrics: of the result, as in metrics.json.

    Raises:
        KeyError: metrics.json is not the result of a run.
    """
    try:
        today = facts(project, params, spec, {**metrics, "data": None})
    except UsageError as error:  # the result was made with settings that were not refused
        return [str(error)]
    own = {key: metrics[key] for key in ("dataset", "split", "method", "seed", "recipe", "hyper")}
    before, now = own["recipe"].get("weights"), today["recipe"]["weights"]
    if str(before).startswith("sha256:") and not now.startswith("sha256:") and now not in WORDS_FOR_WEIGHTS:
        today["recipe"]["weights"] = before
    lines = differences(own, {key: today[key] for key in own})
    if today["data"] is None:
        drawn, source = f"seeded {params.values['splits']['seed']}", metrics["split_source"]
        if source.startswith("seeded ") and source != drawn:
            lines.append(f"lists: {source} -> {drawn}")
    elif not lines and fingerprint({**today, **own}) != metrics["fingerprint"]:
        lines.append("the images, their lists or the version of the recipe")
    return lines


def _manifest(project: Project, spec: RunSpec) -> Manifest | None:
    """The manifest of a run's split; None where there is none, or it is damaged."""
    try:
        return read(Manifest, project.split(spec.dataset, spec.split) / "manifest.json")
    except (OSError, UserError):
        return None


def _like(value: Any, recorded: Any) -> Any:
    """`value` after the type of what was recorded: the text `1e-3`, as YAML reads it, is a number to a setting."""
    try:
        return value if recorded is None else TypeAdapter(type(recorded)).validate_python(value)
    except ValidationError:
        return value


def _hash_of(path: Path) -> str:
    """As a run records a file of weights; where it cannot be read, its path and why."""
    try:
        stat = path.stat()
        return f"sha256:{_digest(path, stat.st_mtime_ns, stat.st_size)}"
    except OSError as error:
        return f"{path} ({error.strerror})"


@functools.cache  # looked at again every other second by --watch, and shared by all runs
def _digest(path: Path, modified: int, size: int) -> str:
    return sha256_of(path)
