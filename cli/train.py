"""`u2pl train`."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from . import run_options as options
from .terminal import next_step, say, say_json

if TYPE_CHECKING:
    from u2pl.runs.records import Metrics
    from u2pl.settings import ResolvedRun


def train(
    dataset: options.Dataset = None,
    split: options.Split = None,
    method: options.Method = None,
    seed: options.Seed = None,
    seeds: options.Seeds = None,
    name: Annotated[
        str | None,
        typer.Option(help="Name of the run and its folder.", show_default="made of all that is set"),
    ] = None,
    set_: options.Set = [],  # noqa: B006
    batch: options.Batch = None,
    micro_batch: options.MicroBatch = None,
    nproc: options.Nproc = 1,
    device: options.Device = "auto",
    recompute: options.Recompute = False,
    compiled: options.Compiled = False,
    workers: options.Workers = None,
    save_every: options.SaveEvery = None,
    limit_batches: options.LimitBatches = None,
    weights: options.Weights = None,
    from_: options.From = None,
    fresh: options.Fresh = False,
    model: Annotated[
        Path | None,
        typer.Option(
            help="Copy the weights the run is reported by here.",
            show_default="a model file in the run's folder",
        ),
    ] = None,
    parent: Annotated[
        str | None, typer.Option(hidden=True, help="The ablation that the run is trained for.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Train one run, or one for each of several seeds; a run that was killed goes on where it stopped, a finished
    one returns at once.

    Example: u2pl train --dataset shapes --split 1/8 --method u2pl --set u2pl.alpha0=0.3

    Example: u2pl train --dataset shapes --split 1/8 --seeds 0,1,2
    """
    from u2pl.errors import EndedElsewhere, Interrupted, UsageError
    from u2pl.project import Project
    from u2pl.runs.stored_evaluation import result_in_words
    from u2pl.training import place

    from .targets import check_target, is_weights

    project = Project.find()
    check_target(project, model, "--model", is_weights)
    given = options.training(
        project, set_=set_, batch=batch, micro_batch=micro_batch, limit_batches=limit_batches,
        weights=weights, from_=from_, dataset=dataset,
        seed=seed, seeds=seeds, recompute=recompute, compiled=compiled, workers=workers, save_every=save_every,
    )  # fmt: skip
    for option, value in (("--name", name), ("--model", model)):
        if value is not None and len(given.seeds) > 1:
            raise UsageError(
                f"{option} is for one run, and --seeds asks for {len(given.seeds)}. Leave one out."
            )
    if len(given.seeds) > 1 and place.started():
        raise UsageError("Under torchrun one run is trained. Use --seed, or --nproc in place of torchrun.")
    specs = [
        replace(given.params.spec(dataset, split, method, each, given.overrides), name=name)
        for each in given.seeds
    ]
    runs = [given.params.resolve(spec) for spec in specs]
    training = _Training(given, nproc, fresh=fresh, parent=parent, model=model)
    training.check(runs)
    done: list[_Result] = []
    for run in runs:
        try:
            found = training.run(run)
        except (Interrupted, EndedElsewhere) as error:
            if len(runs) == 1 or error.exit_code != Interrupted.exit_code:
                raise
            raise Interrupted(
                f"{error} It goes on with seed {run.spec.seed}; {len(done)} of {len(runs)} runs are finished.".lstrip()
            ) from None
        if found is None:  # another process speaks
            return
        done.append(found)
        if not json:
            say(f"{found.metrics['name']}: {result_in_words(found.metrics)}")
            say(f"Everything about it is in {found.folder}.")
    if json:
        values = [found.as_json() for found in done]
        say_json(values if seeds is not None else values[0])
    else:
        next_step("u2pl", "evaluate", done[0].metrics["name"])


class _Result(NamedTuple):
    """A run that has finished."""

    metrics: "Metrics"
    folder: Path
    model: Path
    """File with the network it is reported by."""

    def as_json(self) -> dict[str, Any]:
        """Its metrics, and where its files are."""
        return {**self.metrics, "folder": str(self.folder), "model": str(self.model)}


class _Training:
    """Trains runs with what the options say of all of them."""

    def __init__(
        self, given: options.Training, processes: int, *, fresh: bool, parent: str | None, model: Path | None
    ):
        self.given, self.processes = given, processes
        self.fresh, self.parent, self.model = fresh, parent, model

    def check(self, runs: "Sequence[ResolvedRun]") -> None:
        """Say what is to be known, or wrong, of runs before the first of them begins."""
        from u2pl.settings import hyper
        from u2pl.training import place

        if self.processes > 1 and not place.started():
            from u2pl.training import trainer

            # What is wrong with the words is better said once than by every process.
            for run in runs:
                trainer.describe(self.given.project, run.spec)
                trainer.check_processes(run.recipe, self.processes)
            return
        if not place.is_first():
            return
        recipe = runs[0].recipe
        if recipe.starts_deep_at_random:
            say(
                f"Note: {recipe.backbone} starts from random weights (weights: none), from which a deep network "
                "learns little in a short training. With --weights imagenet it starts from features learned elsewhere.",
                err=True,
            )
        about = hyper.find(runs[0].spec.method)
        if about is not None and about.remark:
            say(about.remark, err=True)

    def run(self, run: "ResolvedRun") -> _Result | None:
        """Train a run, unless it has finished; its result, or None in a process that is not the first of several."""
        from u2pl.errors import EndedElsewhere
        from u2pl.runs.records import read_metrics
        from u2pl.training import place

        if self.processes > 1 and not place.started():
            from u2pl.training.launcher import launch

            code = launch(_of_one_seed(sys.argv[1:], run.spec.seed), self.processes)
            if code:
                raise EndedElsewhere(code)  # they have said why
            path = self.given.project.runs / run.name
            own = self._model_file(path)
        else:
            path = self._train(run)
            if not place.is_first():
                return None
            own = self._write_model(path)
        return _Result(read_metrics(path), path, own)

    def _train(self, run: "ResolvedRun") -> Path:
        from contextlib import nullcontext

        from u2pl.training import place
        from u2pl.training.finished import take_finished

        project = self.given.project
        # Several processes look together, or some would wait for others that do not.
        path = None if place.started() else take_finished(project, run, fresh=self.fresh)
        if path is not None:
            return path
        from .heavy import heavy_imports

        with heavy_imports():
            from u2pl.training import trainer
        from .progress import training

        with training(run.name) if place.is_first() else nullcontext(lambda *_: None) as observe:
            return trainer.train(
                project,
                run.spec,
                fresh=self.fresh,
                parent=self.parent,
                machine=self.given.machine,
                observe=observe,
            )

    def _model_file(self, path: Path) -> Path:
        from u2pl.exchange.model_file import default_path

        return self.model if self.model is not None else default_path(path)

    def _write_model(self, path: Path) -> Path:
        import shutil

        from u2pl.files import write_atomically

        if self.model is None:
            from u2pl.exchange.model_file import write_of_run

            # A pipeline's stage leaves it out: of dozens of runs nobody wants the weights twice.
            return write_of_run(self.given.project, path)

        def copy(target: Path) -> None:
            shutil.copyfile(path / "weights.pt", target)

        write_atomically(self.model, copy)
        return self.model


def _of_one_seed(words: Sequence[str], seed: int) -> list[str]:
    """A command line of several seeds as that of one."""
    words = list(words)
    for index, word in enumerate(words):
        if word == "--seeds":
            return [*words[:index], "--seed", str(seed), *words[index + 2 :]]
        if word.startswith("--seeds="):
            return [*words[:index], "--seed", str(seed), *words[index + 1 :]]
    return words
