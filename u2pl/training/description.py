"""What run.json says of a run: all that decides its numbers, and the fingerprint of that. Knows no torch."""

from typing import Any

from u2pl.data.prepared import Split
from u2pl.files import sha256_json
from u2pl.runs.folder import described
from u2pl.settings import RECIPE_VERSION, ResolvedRun, Settings
from u2pl.settings.initial_weights import recorded


def description(resolved: ResolvedRun, split: Split, hyper: Settings) -> dict[str, Any]:
    """The contents of run.json but for what is known when the run begins.

    Args:
        resolved: the run.
        split: its data.
        hyper: the method's settings, as its class has read them.

    Raises:
        UserError: the file of weights that it starts from cannot be read.
    """
    spec = resolved.spec
    facts = {
        "recipe_version": RECIPE_VERSION,
        "dataset": spec.dataset,
        "split": spec.split,
        "data": sha256_json(split.manifest),
        "method": spec.method,
        "seed": spec.seed,
        "recipe": recorded(resolved.recipe),
        "hyper": hyper.model_dump(mode="json"),
    }
    return described(resolved.name, resolved, facts)
