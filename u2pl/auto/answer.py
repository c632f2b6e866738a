"""The answer to a folder: facts as JSON, sentences, and one self-contained page."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from u2pl.auto.closer_look import look, remembered
from u2pl.auto.portfolio import BASELINE
from u2pl.auto.session import Session
from u2pl.auto.verdict import Verdict
from u2pl.data.description import Progress
from u2pl.data.problems import count
from u2pl.escaping import command_line
from u2pl.exchange import model_file
from u2pl.files import write_atomically, write_json, write_text
from u2pl.reporting import charts, examples
from u2pl.reporting.axes import miou_span
from u2pl.reporting.page import environment
from u2pl.runs.records import KINDS
from u2pl.runs.results import description_of_run, network_so_far
from u2pl.settings import chosen_recipe_path

SAMPLES = 4
"""Validation images that the page shows."""

Facts = dict[str, Any]


def page_of(session: Session) -> Path:
    """Where the page is."""
    return session.data_set.folder / "answer.html"


def write(
    session: Session,
    *,
    budget: float,
    whole: bool = False,
    progress: Progress = lambda what, done, total: None,
) -> Facts:
    """Write answer.json, answer.html and the model file of the best run so far.

    Args:
        session: with what has finished so far.
        budget: seconds.
        whole: also how far the model can be believed, and what to label next, which takes a pass over all pictures.
        progress: told how far that is.
    """
    verdict = session.verdict()
    facts = _facts(session, verdict, budget)
    folder = session.data_set.folder
    if verdict.run and whole:
        facts["closer_look"] = look(session, verdict.run, progress)
    if verdict.run:
        # After a closer look the file has what it found, for u2pl predict --review.
        facts["model"] = _keep_model(session, verdict.run)
    elif leader := session.race.leader():
        contender, epoch, miou = leader
        facts["unfinished"] = {"title": contender.title, "run": contender.run, "epoch": epoch, "miou": miou}
        facts["model"] = _model_of_unfinished(session, contender.run)
    facts["predict"] = _predict(session, facts) if facts["model"] else None
    write_json(folder / "answer.json", facts)
    write_text(page_of(session), _page(session, facts))
    return facts


def _keep_model(session: Session, run: str) -> str:
    """Put the model file of a run beside the answer."""
    source = model_file.default_path(session.project.runs / run)
    target = session.data_set.folder / f"{session.data_set.name}.u2pl"

    def copy(path: Path) -> None:
        shutil.copyfile(source, path)

    if source.is_file():
        write_atomically(target, copy)
    return str(target)


def _model_of_unfinished(session: Session, run: str) -> str | None:
    """Write the best network that a run has had so far as a model file, which says that it was not evaluated."""
    path = session.project.runs / run
    state = network_so_far(path)
    if state is None:
        return None
    target = session.data_set.folder / f"{session.data_set.name}.u2pl"
    model_file.write(target, model_file.facts_of_run(path, description_of_run(session.project, path)), state)
    return str(target)


def _facts(session: Session, verdict: Verdict, budget: float) -> Facts:
    race, data_set = session.race, session.data_set
    state = race.state
    runs = []
    for (method, repeat), each in race.contenders.items():
        runs.append(
            {
                "run": each.run,
                "method": method,
                "title": _title(session, method, each.split, each.seed),
                "repeat": repeat,
                "miou": race.miou(each),
                "stopped": state.stopped.get(each.run),
                "failed": state.failed.get(each.run),
                "begun": bool(race.curve(each)),
            }
        )
    return {
        "data_set": data_set.name,
        "folder": str(session.found.folder.resolve()),
        "page": str(page_of(session)),
        "predict": None,
        "pictures": len(session.found.images),
        "labeled": data_set.labeled,
        "unlabeled": data_set.unlabeled,
        "val": data_set.val,
        "folds": len(data_set.splits) if data_set.has_folds else 0,
        "classes": data_set.shares,
        "left_out": [list(problem) for problem in data_set.left_out],
        "understood": session.found.said,
        "warnings": list(session.warnings),
        "budget": budget,
        "seconds": state.seconds,
        "steps": state.portfolio.steps,
        **{"class_gains" if key == "classes" else key: value for key, value in asdict(verdict).items()},
        "model": None,
        "unfinished": None,
        "closer_look": before if (before := remembered(session)) and before["run"] == verdict.run else None,
        "runs": runs,
        "plan": session.plan.stem,
        "recipe": str(chosen_recipe_path(session.project, data_set.name, data_set.splits[0])),
    }


def _title(session: Session, method: str, split: str, seed: int) -> str:
    name = session.titles.get(method, method)
    return f"{name}, {f'seed {seed}' if split == 'full' else split}"


def sentences(facts: Facts) -> Iterator[str]:
    """What the page says first, for a terminal."""
    yield facts["headline"]
    if facts["doubt"]:
        yield facts["doubt"]
    if facts["run"]:
        yield f"The network to take is that of {facts['run']}: {facts['model']}"
    if begun := facts["unfinished"]:
        yield (
            f"The best network so far is that of {begun['title']}: {begun['miou']:.1f} % mIoU at epoch "
            f"{begun['epoch']}; its run has not ended. It is kept in {facts['model']}"
        )
    yield from _what_became(facts)
    found = facts["closer_look"]
    if not found:
        return
    if found["trust"]:
        yield from found["trust"]["sentences"]
        yield from _to_be_looked_at(found["trust"])
    if found["suggested"]:
        names = ", ".join(name for name, _ in found["suggested"]["images"][:3])
        yield (
            f"Label next ({len(found['suggested']['images'])} pictures, with masks to start from, for CVAT and Label "
            f"Studio and as PNG, in {found['suggested']['folder']}): {names}, ..."
        )
    yield from found["problems"]


def _to_be_looked_at(trust: Mapping[str, Any]) -> Iterator[str]:
    """What was noticed in the data."""
    if trust["leaks_in_all"]:
        one, other, *_ = trust["leaks"][0]
        yield f"{trust['leaks_in_words']} Such as {one} and {other}."
    if trust["novel_in_all"]:
        names = ", ".join(name for name, _ in trust["novel"][:3])
        yield f"{count(trust['novel_in_all'], 'unlabelled picture')} unlike those with labels, above all {names}."
    if trust["doubtful"]:
        names = ", ".join(name for name, *_ in trust["doubtful"][:3])
        yield f"The network disagrees most with the masks of {names}: look at them (list in {trust['folder']})."


def _what_became(facts: Facts) -> Iterator[str]:
    for run in facts["runs"]:
        if run["stopped"]:
            yield f"{run['title']} was stopped early: {run['stopped']}."
        elif run["failed"]:
            yield f"{run['title']} failed: {run['failed']}"
    left = [
        run["title"] for run in facts["runs"] if run["begun"] and run["miou"] is None and not run["stopped"]
    ]
    if left:
        yield f"The budget was up before {', '.join(left)} ended; a larger --budget goes on with it."


# ---- the page ------------------------------------------------------------------------------------------


def _page(session: Session, facts: Facts) -> str:
    return (
        environment("u2pl.auto")
        .get_template("answer.html.jinja")
        .render(
            facts=facts,
            repeats=session.race.state.portfolio.repeats,
            unit=session.unit,
            rows=list(_rows(session, facts)),
            became=list(_what_became(facts)),
            curves=_curves(session),
            samples=_samples(session, facts),
            noticed=list(_to_be_looked_at(trust))
            if (trust := (facts["closer_look"] or {}).get("trust"))
            else [],
            sheet=_sheet(facts),
            commands=[command_line(*words) for words in _commands(session, facts)],
            count=count,
        )
    )


def _rows(session: Session, facts: Facts) -> Iterator[Mapping[str, Any]]:
    """A row a method: its numbers, their mean, and its gain."""
    gains = {pair["label"]: pair for pair in facts["comparisons"]}
    for method in session.race.state.portfolio.methods:
        numbers = pd.Series(facts["numbers"].get(method, []), dtype="float64")
        if numbers.count():
            yield {
                "title": session.titles.get(method, method),
                "numbers": [None if pd.isna(value) else value for value in numbers],
                "mean": numbers.mean(),
                "sd": None if numbers.count() < 2 else numbers.std(),
                "gain": gains.get(method),
                "is_best": method == facts["method"],
            }


def _curves(session: Session) -> Mapping[str, Any]:
    """The learning curves of the first round, in which all methods have the same pictures, and their legend."""
    curves = [
        charts.curve(session.titles.get(method, method), index, [pd.Series(dict(found), dtype="float64")])
        for index, method in enumerate(session.race.state.portfolio.methods)
        if (found := session.race.curve(session.race.contenders[method, 0]))
    ]
    if not curves:
        return {"svg": "", "legend": []}
    span = miou_span(value for each in curves for value in each.mean)
    panel = charts.Panel(f"mIoU on what validates, first {session.unit}", "mIoU %", tuple(curves), span)
    legend = [(each.label, *charts.dashes(each.style)) for each in curves]
    return {"svg": Markup(charts.svg(panel, "curves")), "legend": legend}


def _samples(session: Session, facts: Facts) -> list[Mapping[str, str]]:
    """Validation images: input, truth, the baseline's prediction and the chosen network's."""
    run, repeat = facts["run"], next((r["repeat"] for r in facts["runs"] if r["run"] == facts["run"]), 0)
    if run is None:
        return []
    base = session.race.contenders[BASELINE, repeat].run
    folder, other = (session.project.runs / name / "samples" for name in (run, base))
    found: list[Mapping[str, str]] = []
    names = sorted(path.name.removesuffix(".input.png") for path in folder.glob("*.input.png"))
    for name in names[:SAMPLES]:
        kinds = {kind.capitalize(): folder / f"{name}.{kind}.png" for kind in KINDS[:2]}
        if base != run:
            kinds[session.titles.get(BASELINE, BASELINE)] = other / f"{name}.{KINDS[2]}.png"
        kinds[session.titles.get(facts["method"], facts["method"])] = folder / f"{name}.{KINDS[2]}.png"
        found.append({title: examples.thumbnail(path) for title, path in kinds.items() if path.is_file()})
    return found


def _sheet(facts: Facts) -> str | None:
    """The contact sheet of what to label next."""
    suggested = (facts["closer_look"] or {}).get("suggested")
    path = Path(suggested["folder"]) / "contact_sheet.png" if suggested else None
    return examples.thumbnail(path, 1200) if path and path.is_file() else None


def _predict(session: Session, facts: Facts) -> tuple[str, ...]:
    """How to segment all pictures; by their links, since beside the pictures themselves lie masks."""
    review = ("--review",) if (facts["closer_look"] or {}).get("trust") else ()
    images, out = session.data_set.folder / "images", session.data_set.folder / "predictions"
    return "u2pl", "predict", facts["model"], str(images), "--out", str(out), *review


def _commands(session: Session, facts: Facts) -> Iterator[tuple[str, ...]]:
    yield "cd", str(session.project.root)
    if facts["predict"]:
        yield facts["predict"]
    if (facts["closer_look"] or {}).get("suggested"):
        yield "u2pl", "prepare", "--dataset", facts["data_set"], "--merge", "FOLDER_WITH_CORRECTED_MASKS"
    yield "u2pl", "plan", facts["plan"]
    yield "u2pl", "auto", facts["folder"], "--budget", f"{max(2, round(2 * facts['budget'] / 3600))}h"
