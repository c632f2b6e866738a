"""What MLflow is told of a run beside its numbers: parameters, tags, and a description for people."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from u2pl.runs.origin import import_command, train_command
from u2pl.runs.records import AblationRow, Metrics, Run
from u2pl.settings import value_text

LONGEST_PARAM, LONGEST_TAG = 6000, 5000  # MLflow's own limits, of its earlier versions too
COMMIT, NOTE = "mlflow.source.git.commit", "mlflow.note.content"


def parameters(run: Run) -> dict[str, str]:
    """The settings: those of a recipe as `recipe.lr`, those of a method as `u2pl.alpha0`, and as plain `alpha0` too.

    A name with a method in it is an axis of its own where runs are compared; by the plain one methods share it.
    """
    own = {key: run[key] for key in ("dataset", "split", "method", "seed")}
    prefixed = {
        f"{section}.{key}": value
        for section, values in (("recipe", run["recipe"]), (run["method"], run["hyper"]))
        for key, value in values.items()
    }
    return {
        key: value_text(value)[:LONGEST_PARAM] for key, value in {**run["hyper"], **prefixed, **own}.items()
    }


def tags(run: Run) -> dict[str, str]:
    """Which run it is, what made it, and on which machine."""
    machine = {key: value for key, value in run["tags"].items() if key != "revision" and value is not None}
    commit = run["tags"].get("revision")
    made = "u2pl import" if "imported" in run else "u2pl train"
    return {key: value_text(value)[:LONGEST_TAG] for key, value in machine.items()} | {
        "u2pl.kind": "run",
        "u2pl.name": run["name"],
        "u2pl.fingerprint": run["fingerprint"],
        # The page shows of a longer one what stands behind the last slash.
        "mlflow.source.name": made,
        "mlflow.source.type": "LOCAL",
        **({COMMIT: str(commit)} if commit else {}),
    }


def note(run: Run, metrics: Metrics | None, pages: Mapping[str, str]) -> str:
    """A paragraph of Markdown on a run: what it is, how it ended, where more is.

    Args:
        run: whose folder it is.
        metrics: its result; None while there is none.
        pages: path of each report that shows it -> its address in MLflow.
    """
    recipe = run["recipe"]
    images = ""
    if metrics and metrics["labeled"] is not None:
        images = f" ({metrics['labeled']} labelled and {metrics['unlabeled'] or 0} unlabelled images)"
    verb = "imported for" if "imported" in run else "trained on"
    lines = [
        f"{code(run['method'])} {verb} split {code(run['split'])} of {code(run['dataset'])}{images}, "
        f"seed {run['seed']}: {code(recipe['backbone'])}, {_epochs(recipe['epochs'])}, batches of {recipe['batch']}.",
        # The page folds away all but the first lines.
        f"{_result(metrics)} {_pages(pages)}",
    ]
    if run["overrides"]:
        said = ", ".join(f"{key}={value_text(value)}" for key, value in run["overrides"].items())
        lines.append(f"Set otherwise than in params.yaml: {code(said[:1000])}")
    lines += [
        f"The same again: {code((import_command(run) if 'imported' in run else train_command(run))[:1500])}",
        f"Its files: {code('runs/' + run['name'])}",
    ]
    return "\n\n".join(lines)[:LONGEST_TAG]


def _epochs(count: int) -> str:
    return "1 epoch" if count == 1 else f"{count} epochs"


def _result(metrics: Metrics | None) -> str:
    if metrics is None:
        return "Not finished."
    miou, how = metrics["miou"]["reported"], metrics["protocol"]
    if miou is None:
        return "Not evaluated."
    return (
        f"**{miou:.2f} % mIoU** on the validation images ({how['evaluation']}; {how['network']}, "
        f"{how['checkpoint']} checkpoint)."
    )


def _pages(pages: Mapping[str, str]) -> str:
    if not pages:
        return f"No page shows it yet; {code('u2pl report')} writes one."
    return "Page: " + ", ".join(f"[{path}]({address})" for path, address in sorted(pages.items())) + "."


def ablation_note(
    parameter: str, rows: Sequence[AblationRow], addresses: Mapping[str, str], pages: Mapping[str, str]
) -> str:
    """A table of Markdown: each value of an ablation, its mIoU, and the run that has it.

    Args:
        parameter: what was varied.
        rows: the values.
        addresses: name of a run -> its address in MLflow; of those that are there.
        pages: as for `note`.
    """
    lines = [
        f"The runs that differ in {code(parameter)}.",
        "",
        "| value | mIoU % | run |",
        "| --- | ---: | --- |",
    ]
    for row in rows:
        run, miou = row["run"], row["miou_reported"]
        name = f"[{plain(run)}]({addresses[run]})" if run in addresses else plain(run)
        lines.append(f"| {code(row['value'])} | {'—' if miou is None else f'{miou:.2f}'} | {name} |")
    return "\n".join([*lines, "", _pages(pages)])[:LONGEST_TAG]


def code(text: str) -> str:
    """A text as code in Markdown, in a table too."""
    return "`" + " ".join(str(text).replace("`", "'").replace("|", "/").split()) + "`"


def plain(name: str) -> str:
    """A run's name, of letters, digits and `_.=+,-`, as it stands in Markdown."""
    return name.replace("_", "\\_")


def page_address(experiment: str, run: str, file: str = "") -> str:
    """A run's place in MLflow's page, from that page itself; or that of one of its files."""
    return f"#/experiments/{experiment}/runs/{run}" + (f"/artifacts/{file}" if file else "")


def shown_by(page: Path) -> set[str]:
    """What may be names of runs in a report's page."""
    text = page.read_text(encoding="utf-8", errors="replace")
    return {word.rstrip(".,") for word in re.findall(r"\w[\w.=+,-]*", text)}


def comparison(facts: Mapping[str, Any]) -> dict[str, Any]:
    """An ablation as the table that MLflow's page shows: names of columns, and rows."""
    columns = ["value", "miou_reported", "miou_last", "miou_best", "run"]
    return {"columns": columns, "data": [[row.get(key) for key in columns] for row in facts["runs"]]}
