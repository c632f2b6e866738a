"""`u2pl train`."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .terminal import say


def train(
    dataset: Annotated[str | None, typer.Option(help="Data set that was prepared.")] = None,
    split: Annotated[
        str | None, typer.Option(help="Which images keep their labels: full, 1/8, classic-1/16.")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="suponly, mt, cutmix, u2pl, cps, ael, u2pl-ael, cct, gct, pseudoseg, pc2seg (a reconstruction, not "
            "verified against the authors' code), or a file in u2pl/methods."
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights, order and augmentation.")] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the run and its folder; default: made of all that is set.")
    ] = None,
    set_: Annotated[
        list[str], typer.Option("--set", help="Override a setting: alpha0=0.3, lr=0.01, flavor=released.")
    ] = [],  # noqa: B006
    batch: Annotated[
        int | None, typer.Option(help="Labelled images a step, and as many unlabelled ones: --set batch=.")
    ] = None,
    micro_batch: Annotated[
        int | None,
        typer.Option(
            help="How many of them go through the networks at once, for a small GPU: --set micro_batch=."
        ),
    ] = None,
    nproc: Annotated[
        int, typer.Option(min=1, help="Processes that share each batch, one a GPU; torchrun starts them.")
    ] = 1,
    recompute: Annotated[
        bool,
        typer.Option(
            "--recompute", help="Keep no activations: far less memory, a third more time, the same numbers."
        ),
    ] = False,
    compiled: Annotated[
        bool,
        typer.Option("--compile", help="Let torch.compile fuse operations; the first steps take minutes."),
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Processes that read images; default: 4 beside a GPU, else none."),
    ] = None,
    save_every: Annotated[
        float | None,
        typer.Option(min=0, help="Seconds between checkpoints; default: 60, more where they take long."),
    ] = None,
    limit_batches: Annotated[
        int | None, typer.Option(min=1, help="Most steps of an epoch, to try something out.")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="What to start from: none, imagenet, or a file; short for --set weights=."),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Move a run of other settings aside.")] = False,
    model: Annotated[Path | None, typer.Option(help="Copy the weights the run is reported by here.")] = None,
) -> None:
    """Train one run; a run that was killed goes on where it stopped, a finished one returns at once.

    Example: u2pl train --dataset shapes --split 1/8 --method u2pl --set u2pl.alpha0=0.3
    """
    import shutil
    from contextlib import nullcontext
    from dataclasses import replace

    from u2pl.project import Project
    from u2pl.settings import WORDS_FOR_WEIGHTS, Params, hyper, merged, parse_overrides

    from .targets import check_target, is_weights

    project = Project.find()
    check_target(project, model, "--model", is_weights)
    params = Params.read(project)
    given: dict[str, Any] = {"batch": batch, "micro_batch": micro_batch, "limit_batches": limit_batches}
    if weights is not None:
        # On the command line a file lies below the current folder, in the settings below the project's.
        given["weights"] = weights if weights in WORDS_FOR_WEIGHTS else project.relative(Path(weights))
    overrides = merged(
        parse_overrides(set_), {key: value for key, value in given.items() if value is not None}
    )
    spec = replace(params.spec(dataset, split, method, seed, overrides), name=name)
    resolved = params.resolve(spec)
    name = resolved.name

    from u2pl.files import write_atomically
    from u2pl.runs.records import read_metrics
    from u2pl.runs.stored_evaluation import result_in_words
    from u2pl.training import place
    from u2pl.training.finished import take_finished
    from u2pl.training.machine import Machine

    machine = Machine(recompute, compiled, workers, save_every)
    if nproc > 1 and not place.started():
        from u2pl.training import trainer
        from u2pl.training.launcher import launch

        # What is wrong with the words is better said once than by every process.
        trainer.describe(project, spec)
        trainer.check_processes(resolved.recipe, nproc)
        code = launch(sys.argv[1:], nproc)
        if code:
            raise typer.Exit(code)
        return

    first = place.is_first()
    if first and resolved.recipe.starts_deep_at_random:
        say(
            f"Note: {resolved.recipe.backbone} starts from random weights (weights: none), from which a deep network "
            "learns little in a short training. With --weights imagenet it starts from features learned elsewhere.",
            err=True,
        )
    about = hyper.find(spec.method)
    if first and about is not None and about.remark:
        say(about.remark)
    # Several processes look together, or some would wait for others that do not.
    path = None if place.started() else take_finished(project, resolved, fresh=fresh)
    if path is None:
        from .heavy import heavy_imports

        with heavy_imports():
            from u2pl.training import trainer
        from .progress import training

        with training(name) if first else nullcontext(lambda *_: None) as observe:
            path = trainer.train(project, spec, fresh=fresh, machine=machine, observe=observe)
    if not first:
        return
    if model is not None:

        def copy(target: Path) -> None:
            shutil.copyfile(path / "weights.pt", target)

        write_atomically(model, copy)
    else:
        from u2pl.exchange.model_file import write_of_run

        # A pipeline's stage leaves it out: of dozens of runs nobody wants the weights twice.
        write_of_run(project, path)
    say(f"{name}: {result_in_words(read_metrics(path))}")
    say(f"Everything about it is in {path}. Next: u2pl evaluate {name}")
