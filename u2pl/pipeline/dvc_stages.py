"""The stages that need many others, by name: pipelines/dvc.yaml, which `u2pl plan` writes beside the active plan.

DVC fills no list of any length into the stages of dvc.yaml, so comparisons, figures and tables are written out.
"""

import string
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from u2pl.files import sha256, write_text
from u2pl.project import RESULTS, Project

if TYPE_CHECKING:
    from .plans import ActivePlan

FILE = "pipelines/dvc.yaml"
_WRITTEN_OUT = ("ablate", "figure", "table")
_TAKEN = str.maketrans(dict.fromkeys(set(string.punctuation) - set("-_"), "_"))
"""What names of stages cannot hold, unless after an @."""


class Address(NamedTuple):
    """Where DVC knows a stage."""

    file: str
    """Relative to the project."""
    name: str
    """In that file."""

    @property
    def target(self) -> str:
        """What `dvc repro` takes."""
        return self.name if self.file == "dvc.yaml" else f"{self.file}:{self.name}"


def address(stage: str) -> Address:
    """Where DVC knows a stage that a plan calls KIND@KEY, or `report`."""
    kind, _, key = stage.partition("@")
    if kind not in _WRITTEN_OUT:
        return Address("dvc.yaml", stage)
    plain = key.translate(_TAKEN)
    return Address(FILE, f"{kind}-{plain}" if plain == key else f"{kind}-{plain}-{sha256(key.encode())[:8]}")


def write(project: Project, plan: "ActivePlan") -> None:
    """Write the stages of the active plan."""
    write_text(project.root / FILE, text(plan))


def text(plan: "ActivePlan") -> str:
    """The contents of pipelines/dvc.yaml; the same plan always gives the same."""
    stages = dict([*_ablations(plan), *_figures(plan), *_tables(plan)])
    curves = list(_curves(plan))
    content: dict[str, Any] = {"stages": stages} | ({"plots": curves} if curves else {})
    return (
        f"# Written by `u2pl plan {plan.plan}`: its stages that need the results of many runs. Change pipelines/plans/ "
        "instead.\n" + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=10**6)
    )


def _stage(
    name: str, desc: str, cmd: str, deps: Iterable[str], **others: Any
) -> tuple[str, Mapping[str, Any]]:
    return address(name).name, {"desc": desc, "wdir": "..", "cmd": cmd, "deps": list(deps), **others}


def _results(runs: Iterable[str]) -> list[str]:
    """The folders of their results."""
    return [f"{RESULTS}/{run}" for run in runs]


def _ablations(plan: "ActivePlan") -> Iterable[tuple[str, Mapping[str, Any]]]:
    for key, stage in plan.ablations.items():
        yield _stage(
            f"ablate@{key}",
            "The values of one setting compared, from runs that have been trained before.",
            f"u2pl ablate --compare --param {stage.param} {stage.values} {stage.args} --record {stage.record}",
            _results(stage.runs),
            outs=[{stage.record: {"cache": False, "persist": True}}],
        )


def _figures(plan: "ActivePlan") -> Iterable[tuple[str, Mapping[str, Any]]]:
    for key, stage in plan.figures.items():
        folder = f"{plan.reports}/figures"
        yield _stage(
            f"figure@{key}",
            "One figure of finished runs.",
            f"u2pl figure {key} {stage.args} --into {folder}",
            [*_results(stage.runs), f"pipelines/figures/{key}.yaml"],
            outs=[{f"{folder}/{key}.{suffix}": {"cache": False}} for suffix in ("png", "svg")],
        )


def _tables(plan: "ActivePlan") -> Iterable[tuple[str, Mapping[str, Any]]]:
    for key, table in plan.tables.items():
        records = [stage.record for stage in plan.ablations.values() if stage.shows == key]
        written = f"{plan.reports}/tables/{key}"
        yield _stage(
            f"table@{key}",
            "One table in Markdown, CSV and LaTeX, from whatever results there are.",
            f"u2pl table {key}",
            [*_results(table.cells), *records, f"pipelines/tables/{table.table}.yaml"],
            params=[{"pipelines/plan.yaml": [f"tables.{key}"]}],
            outs=[{f"{written}.{suffix}": {"cache": False}} for suffix in ("md", "csv", "tex")],
            metrics=[f"{written}.json"],
        )


def _curves(plan: "ActivePlan") -> Iterable[Mapping[str, Any]]:
    """The learning curves of each table's runs, in one plot."""
    for key, table in plan.tables.items():
        if table.cells:
            files = {f"../{folder}/history.csv": "val/miou" for folder in _results(table.cells)}
            labels = {"x_label": "epoch", "y_label": "mIoU on the validation images, %"}
            curves = {"x": "epoch", "y": files, "title": f"{key}: mIoU", **labels}
            yield {f"Learning curves of {key}": {**curves, "template": "pipelines/plots/curves.json"}}
