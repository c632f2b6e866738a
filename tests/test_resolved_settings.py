"""The settings that each method has on each data set, in each flavour: kept from moving, wherever they are written.

After a change that is meant, and raises `RECIPE_VERSION` where results are no longer comparable:
`python tests/test_resolved_settings.py` writes resolved_settings.json anew.
"""

import itertools
import json
from pathlib import Path

from u2pl.errors import UsageError
from u2pl.project import Project
from u2pl.settings import Params, fingerprint

KNOWN = Path(__file__).parent / "resolved_settings.json"


def resolved() -> dict[str, str]:
    """Method, data set and flavour -> hash of the recorded recipe and the method's settings, or why refused."""
    params = Params.read(Project(Path(__file__).parents[1]))
    found = {}
    for method, dataset, flavor in itertools.product(
        params.methods, params.values["recipes"], params.values["flavors"]
    ):
        spec = params.spec(dataset, "1/8", method, 0, {"flavor": flavor})
        try:
            run = params.resolve(spec, bfloat16=False)
        except UsageError as error:
            found[f"{method} {dataset} {flavor}"] = str(error)
            continue
        facts = {"recipe": run.recipe.recorded(), "hyper": dict(run.hyper)}
        found[f"{method} {dataset} {flavor}"] = fingerprint(facts)
    return found


def test_no_setting_of_any_run_has_moved():
    assert resolved() == json.loads(KNOWN.read_text())


if __name__ == "__main__":
    KNOWN.write_text(json.dumps(resolved(), indent=2) + "\n")
