"""`u2pl prepare`."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from u2pl.data.description import Progress
    from u2pl.data.prepare import Prepared


def prepare(
    dataset: Annotated[
        str | None, typer.Option(help="shapes, camvid, or the YAML file that describes your own.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Which images keep their labels: full, 1/2, 1/4, 1/8, 1/16, any 1/k.")
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Folder of the data set's files; needed once, then remembered.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the split's draw.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON, nothing else.")] = False,
) -> None:
    """Check a data set and choose the images that keep their labels.

    Example: u2pl prepare --dataset shapes --split 1/8
    """
    from u2pl.project import Project
    from u2pl.settings import Params

    project = Project.find()
    params = Params.read(project)

    from u2pl.data.prepare import prepare

    with _progress() as progress:
        prepared = prepare(
            project,
            dataset or params.default("dataset"),
            split or str(params.default("split")),
            root,
            params.values["splits"]["seed"] if seed is None else seed,
            progress,
        )
    if json:
        from json import dumps

        print(dumps({**prepared.manifest, "folder": str(prepared.folder)}, indent=2, ensure_ascii=False))
    else:
        _show(prepared)


def _show(prepared: "Prepared") -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    manifest, name = prepared.manifest, prepared.description.name
    total = sum(found["pixels"] for found in manifest["classes"].values())
    table = Table(title=f"{name}, training images")
    table.add_column("class")
    for heading in ("% of pixels", "images", "labelled"):
        table.add_column(heading, justify="right")
    for class_name, found in manifest["classes"].items():
        mark = "  (no label)" if not found["labeled_images"] else ""
        share = f"{100 * found['pixels'] / total:.1f}"
        counts = (share, str(found["images"]), str(found["labeled_images"]))
        table.add_row(escape(class_name) + mark, *counts, style="red" if mark else None)
    Console().print(table)
    counts = manifest["counts"]
    print(
        f"Split {prepared.split} ({manifest['source']}): {counts['labeled']} labelled, "
        f"{counts['unlabeled']} unlabelled, {counts['val']} validation images."
    )
    print(f"The lists are in {prepared.folder}. Next: u2pl train --dataset {name} --split {prepared.split}")


@contextmanager
def _progress() -> "Iterator[Progress]":
    """Show progress on stderr: a bar on a terminal, one line a stage elsewhere."""
    if not sys.stderr.isatty():
        yield _plain
        return
    from rich import progress as rich
    from rich.console import Console

    with rich.Progress(*rich.Progress.get_default_columns(), console=Console(stderr=True)) as bars:
        tasks: dict[str, rich.TaskID] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done)

        yield show


def _plain(what: str, done: int, total: int) -> None:
    if done == total:
        print(f"{what}: {done} images", file=sys.stderr, flush=True)
