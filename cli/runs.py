"""`u2pl runs`: the runs of the project, listed, shown, compared, labelled, removed and cleaned away."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import completion
from .terminal import one_line, say, say_json

if TYPE_CHECKING:
    import pandas as pd

    from u2pl.project import Project

app = typer.Typer(invoke_without_command=True)
Run = Annotated[
    str, typer.Argument(help="Name of a run, or its folder.", autocompletion=completion.run_names)
]


# ---- the list ------------------------------------------------------------------------------------------


@app.callback()
def runs(
    context: typer.Context,
    dataset: Annotated[
        str | None, typer.Option(help="Only runs on this data set.", autocompletion=completion.datasets)
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Only runs on this split.", autocompletion=completion.splits)
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="Only runs of this method.", autocompletion=completion.methods)
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Only runs with this seed.")] = None,
    state: Annotated[
        str | None,
        typer.Option(
            help="Only runs that are done, running, interrupted, failed, waiting or damaged.",
            autocompletion=completion.among("done", "running", "interrupted", "failed", "waiting", "damaged"),
        ),
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option(help="Only runs with this tag; repeatable: with all.")
    ] = None,
    sort: Annotated[
        str, typer.Option(help="run, miou, seconds, bytes, started, ...: numbers and times from the highest.")
    ] = "run",
    reverse: Annotated[bool, typer.Option("--reverse", help="The other way round.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="So many lines at most.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print them as JSON, nothing else.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print them as CSV, nothing else.")] = False,
) -> None:
    """List the project's runs; show, compare, label and remove them.

    Example: u2pl runs --dataset shapes --method u2pl --sort miou
    """
    from u2pl.errors import UsageError

    wanted = {"dataset": dataset, "split": split, "method": method, "seed": seed, "state": state}
    wanted = {column: value for column, value in wanted.items() if value is not None}
    if context.invoked_subcommand is not None:
        if wanted or tag or limit or json or csv or reverse or sort != "run":
            raise UsageError(
                f"What stands before `{context.invoked_subcommand}` chooses runs for the list, and is nothing to it. "
                f"See: u2pl runs {context.invoked_subcommand} --help"
            )
        return
    _check_one_format(json, csv)
    from u2pl.project import Project
    from u2pl.runs import frames

    every = frames.runs(Project.find())
    found = _sorted(_filtered(every, wanted, tag or []), sort, reverse=reverse)
    found = found if limit is None else found.head(limit)
    if json:
        say_json(_records(found))
    elif csv:
        say(frames.csv(found).removesuffix("\n"))
    elif len(found):
        from .run_views import show_runs

        show_runs(found, len(every))
    else:
        say(_nothing(every, wanted, tag or []))


def _check_one_format(json: bool, csv: bool) -> None:
    from u2pl.errors import UsageError

    if json and csv:
        raise UsageError("--json and --csv are two formats. Name one of them.")


def _filtered(every: "pd.DataFrame", wanted: dict[str, Any], tags: list[str]) -> "pd.DataFrame":
    from u2pl.errors import check_known
    from u2pl.runs.events import RunState

    if "state" in wanted:
        # What people say of a run that `u2pl status` calls done.
        wanted["state"] = {"finished": "done"}.get(wanted["state"], wanted["state"])
        check_known(
            "state", [wanted["state"]], [state.value for state in RunState if state != RunState.STALE]
        )
    found = every
    for column, value in wanted.items():
        found = found[(found[column] == value).fillna(False).astype(bool)]
    for tag in tags:
        found = found[[tag in words.split(", ") for words in found["tags"]]]
    return found


def _sorted(found: "pd.DataFrame", by: str, *, reverse: bool) -> "pd.DataFrame":
    from u2pl.errors import check_known

    check_known("column", [by], found.columns)
    is_text = found[by].dtype.kind in "OTUS" or str(found[by].dtype) in ("str", "string")
    return found.sort_values(by, ascending=is_text != reverse, kind="stable", na_position="last")


def _records(found: "pd.DataFrame") -> list[dict[str, Any]]:
    """The rows in plain values; what is missing is null, and tags are a list."""
    import json

    rows = json.loads(found.to_json(orient="records", date_format="iso", date_unit="s"))
    return [{**row, "tags": row["tags"].split(", ") if row["tags"] else []} for row in rows]


def _nothing(every: "pd.DataFrame", wanted: dict[str, Any], tags: list[str]) -> str:
    from difflib import get_close_matches

    if not len(every):
        return "There is no run yet. Train one: u2pl train --dataset shapes --split 1/8"
    there = {column: sorted(set(every[column].dropna().map(str))) for column in wanted}
    there["tag"] = sorted({tag for words in every["tags"] for tag in words.split(", ") if tag})
    for column, value in [*wanted.items(), *(("tag", tag) for tag in tags)]:
        if str(value) not in there[column]:
            near = get_close_matches(str(value), there[column], n=1, cutoff=0.5)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            known = f" There is: {', '.join(there[column])}." if there[column] else " None has any."
            return f"None of the {len(every)} runs has {column} {value!r}.{hint}{known}"
    return f"None of the {len(every)} runs has all of that. All of them: u2pl runs"


# ---- one run -------------------------------------------------------------------------------------------


@app.command()
def show(
    run: Run,
    json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON, nothing else.")] = False,
) -> None:
    """Show one run: state, settings, scores, curve, time and disk, what shows it, where its files lie, what next.

    Example: u2pl runs show shapes-1_8-u2pl-s0
    """
    from u2pl.project import Project
    from u2pl.reporting.run_card import card
    from u2pl.runs.stored_evaluation import run_path

    project = Project.find()
    found = card(project, run_path(project, run))
    if json:
        say_json(found.as_json())
        return
    from .run_views import show_card

    show_card(found)


def _own_folder(project: "Project", name: str) -> Path:
    """The folder of a run that is the project's, to be changed."""
    from u2pl.errors import UsageError
    from u2pl.runs.stored_evaluation import run_path

    folder = run_path(project, name)
    if folder.parent != project.runs:
        raise UsageError(f"{folder} lies outside {project.runs}. Name a run of the project: u2pl runs")
    return folder


# ---- several runs --------------------------------------------------------------------------------------


@app.command()
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            help="Names of runs; names without -s0, for all seeds; or patterns such as 'shapes-1_8-u2pl-*'.",
            autocompletion=completion.run_names,
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="PNG file that receives the learning curves.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON, nothing else.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print the numbers as CSV, nothing else.")] = False,
) -> None:
    """Compare runs with the first: settings that differ, mIoU, classes, curves, and over seeds what can be said of it.

    Runs that differ in the seed alone are one group, and groups are compared seed by seed.

    Example: u2pl runs compare shapes-1_8-cutmix shapes-1_8-u2pl --out curves.png
    """
    from u2pl.project import Project
    from u2pl.reporting import run_groups
    from u2pl.runs import frames

    _check_one_format(json, csv)
    project = Project.find()
    _check_picture(project, out)
    found = run_groups.compare(run_groups.grouped(run_groups.chosen(project, runs)))
    if out is not None:
        from u2pl.reporting import run_curves

        run_curves.write(found, out)
    if json:
        say_json(run_groups.as_json(found))
    elif csv:
        say(frames.csv(run_groups.side_by_side(found)).removesuffix("\n"))
    else:
        from .run_views import show_comparison

        show_comparison(found)
    if out is not None:
        say(f"Wrote {one_line(str(out))}.", err=json or csv)


def _check_picture(project: "Project", out: Path | None) -> None:
    from u2pl.errors import UsageError

    from .targets import check_target

    if out is not None and out.suffix.lower() != ".png":
        raise UsageError(f"--out names a PNG file, and {out} does not end in .png. Example: --out curves.png")
    check_target(project, out, "--out", lambda path: path.read_bytes().startswith(b"\x89PNG"))


# ---- labels --------------------------------------------------------------------------------------------


@app.command()
def tag(
    run: Run,
    tags: Annotated[list[str], typer.Argument(help="Words that the run is to be found by.")],
    remove: Annotated[bool, typer.Option("--remove", help="Take them off instead.")] = False,
) -> None:
    """Give a run tags, by which `u2pl runs --tag` finds it; `u2pl runs gc` keeps what has one.

    Example: u2pl runs tag shapes-1_8-u2pl-s0 good paper
    """
    from u2pl.project import Project
    from u2pl.runs import labels

    folder = _own_folder(Project.find(), run)
    found = (labels.remove_tags if remove else labels.add_tags)(folder, tags)
    say(f"{one_line(folder.name)}: {', '.join(found['tags']) or 'no tag'}")


@app.command()
def note(
    run: Run,
    text: Annotated[list[str], typer.Argument(help="The note; '' takes the one before away.")],
) -> None:
    """Write a note beside a run, in place of the one before.

    Example: u2pl runs note shapes-1_8-u2pl-s0 'the learning rate was too high'
    """
    from u2pl.project import Project
    from u2pl.runs.labels import write_note

    folder = _own_folder(Project.find(), run)
    found = write_note(folder, " ".join(text))
    say(f"{one_line(folder.name)}: {one_line(found['note']) or 'no note'}")


# ---- what goes -----------------------------------------------------------------------------------------


@app.command("rm")
def remove(
    runs: Annotated[
        list[str],
        typer.Argument(help="Names of runs, or their folders.", autocompletion=completion.run_names),
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also runs that a table or figure of the active plan needs.")
    ] = False,
) -> None:
    """Remove runs; `u2pl runs restore` brings them back until `u2pl runs gc --yes` frees their space.

    What a table or figure of the active plan needs stays without --force, what is being trained stays anyhow.

    Example: u2pl runs rm shapes-1_8-u2pl-s0
    """
    from u2pl.pipeline import needed
    from u2pl.project import Project
    from u2pl.runs import removal
    from u2pl.runs.disk import in_words, size

    project = Project.find()
    folders = list(dict.fromkeys(_own_folder(project, name) for name in runs))
    shown = needed.shown_in(project)
    for folder in folders:
        _check_removable(folder, "" if force else needed.in_words(shown, folder.name))
    sizes = {folder: size(folder) for folder in folders}
    if not yes:
        said = ", ".join(f"{one_line(folder.name)} ({in_words(count)})" for folder, count in sizes.items())
        _ask(f"Remove {said}?")
    for folder, count in sizes.items():
        consequence = _consequence(folder, needed.in_words(shown, folder.name))
        removal.remove(project, folder)
        say(f"Removed {one_line(folder.name)} ({in_words(count)}). {consequence}".rstrip())
    back = one_line(folders[0].name)
    say(f"Back: u2pl runs restore {back}. For good, and to free the space: u2pl runs gc --yes")


def _check_removable(folder: Path, places: str) -> None:
    """Check that a run may go.

    Args:
        folder: of the run.
        places: the tables and figures that stand against it.

    Raises:
        UserError: it may not.
    """
    from u2pl.errors import UserError
    from u2pl.files import holder_in_words, is_held

    if is_held(folder / "lock"):
        raise UserError(
            f"{folder.name} is being trained right now{holder_in_words(folder)}. Stop it first: Ctrl-C where it "
            "runs. Nothing was removed."
        )
    if places:
        raise UserError(
            f"{folder.name} is needed by {places} of the active plan. Nothing was removed. With --force it goes: "
            "numbers that stand in results/ stay, but to make them anew the run has to be trained again."
        )


def _consequence(folder: Path, places: str) -> str:
    """What the removal of a run means for the tables and figures that show it; nothing where none does."""
    from u2pl.errors import UserError
    from u2pl.runs.origin import import_command, train_command
    from u2pl.runs.records import read_run

    if not places:
        return ""
    said = (
        f"What {places} shows of it stays as it is; to make that anew, bring the run back, or make it again"
    )
    try:
        run = read_run(folder)
    except UserError:  # it is damaged, and nobody knows how it was made
        return f"{said}."
    return f"{said}: {one_line(import_command(run) if 'imported' in run else train_command(run))}"


def _ask(question: str) -> None:
    """Go on if that is wanted.

    Raises:
        UsageError: nobody is there to be asked.
    """
    import sys

    from u2pl.errors import UsageError

    if not (sys.stdin and sys.stdin.isatty()):
        raise UsageError("Nobody is there to be asked, so nothing was removed. Add --yes.")
    if not typer.confirm(question):
        say("Nothing was removed.")
        raise typer.Exit(1)


@app.command()
def restore(
    run: Annotated[
        str, typer.Argument(help="Name of a run that was removed.", autocompletion=completion.removed_names)
    ],
) -> None:
    """Bring back a run that `u2pl runs rm` removed; of several of the name, the one that was removed last.

    Example: u2pl runs restore shapes-1_8-u2pl-s0
    """
    from u2pl.project import Project
    from u2pl.runs.removal import restore

    folder = restore(Project.find(), run)
    say(f"{one_line(run)} is back in {one_line(str(folder))}. Next: u2pl runs show {one_line(run)}")


@app.command()
def gc(
    yes: Annotated[
        bool, typer.Option("--yes", help="Delete, for good; without it nothing is deleted.")
    ] = False,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="Also runs that have not come to their end.")
    ] = False,
    finished: Annotated[
        bool, typer.Option("--finished", help="Also runs that have, with their weights.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print what there is as JSON, nothing else.")] = False,
) -> None:
    """Say what of runs/ costs disk and could go; with --yes delete it.

    That is what `u2pl runs rm` has removed, and checkpoints of finished runs. Runs themselves go with --unfinished or
    --finished alone. What a table or figure of the active plan needs, what is being trained, and what has a tag or a
    note stays in any case.

    Example: u2pl runs gc --unfinished
    """
    from u2pl.pipeline import garbage
    from u2pl.project import Project
    from u2pl.runs.disk import in_words

    project = Project.find()
    found = garbage.find(project)
    chosen = found.chosen(unfinished=unfinished, finished=finished)
    for item in chosen if yes else ():
        garbage.delete(project, item)
    total = sum(item.bytes for item in chosen)
    if json:
        say_json(
            {
                "items": [
                    {"run": i.run, "what": i.what, "bytes": i.bytes, "folder": str(i.folder), "asks": i.asked.value,
                     "chosen": i in chosen}
                    for i in found.items
                ],
                "bytes": found.bytes,
                "needed": found.needed,
                "chosen": total,
                "deleted": yes,
            }
        )  # fmt: skip
        return
    from .run_views import show_garbage

    show_garbage(found, chosen, done=yes)
    if yes:
        say(f"Freed {in_words(total)}.")
    elif chosen:
        say(f"{in_words(total)} could go; nothing was deleted. To delete it for good, add --yes.")
    else:
        say("Nothing of that would be deleted." if found.items else "There is nothing to clean away.")
