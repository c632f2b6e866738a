"""Options that several commands share, above all `u2pl train` and `u2pl ablate`, and what they come to."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import completion
from .help import FROM_PARAMS, METHODS

if TYPE_CHECKING:
    from u2pl.project import Project
    from u2pl.settings import Params
    from u2pl.training.machine import Machine

Dataset = Annotated[
    str | None,
    typer.Option(
        help="Data set that was prepared.", autocompletion=completion.datasets, show_default=FROM_PARAMS
    ),
]
Split = Annotated[
    str | None,
    typer.Option(
        help="Which images keep their labels: full, 1/8, classic-1/16.",
        autocompletion=completion.splits,
        show_default=FROM_PARAMS,
    ),
]
Method = Annotated[
    str | None,
    typer.Option(help=f"One of {METHODS}.", autocompletion=completion.methods, show_default=FROM_PARAMS),
]
Seed = Annotated[
    int | None,
    typer.Option(help="Seed of weights, order and augmentation.", show_default=FROM_PARAMS),
]
Seeds = Annotated[
    str | None,
    typer.Option(help="Several seeds, one run for each: 0,1,2.", show_default="the one of --seed"),
]
Set = Annotated[
    list[str],
    typer.Option(
        "--set",
        help="Override a setting of every run: alpha0=0.3, lr=0.01, flavor=released.",
        autocompletion=completion.settings,
        show_default="all as in params.yaml",
    ),
]
Batch = Annotated[
    int | None,
    typer.Option(
        help="Labelled images a step, and as many unlabelled ones: --set batch=.",
        show_default="that of the data set's recipe",
    ),
]
MicroBatch = Annotated[
    int | None,
    typer.Option(
        help="How many of them go through the networks at once, for a small GPU: --set micro_batch=.",
        show_default="that of the data set's recipe",
    ),
]
Nproc = Annotated[
    int, typer.Option(min=1, help="Processes that share each batch, one a GPU; torchrun starts them.")
]
Recompute = Annotated[
    bool,
    typer.Option(
        "--recompute", help="Keep no activations: far less memory, a third more time, the same numbers."
    ),
]
Compiled = Annotated[
    bool,
    typer.Option("--compile", help="Let torch.compile fuse operations; the first steps take minutes."),
]
Workers = Annotated[
    int | None,
    typer.Option(min=0, help="Processes that read images.", show_default="4 beside a GPU, else none"),
]
SaveEvery = Annotated[
    float | None,
    typer.Option(min=0, help="Seconds between checkpoints.", show_default="60, more where they take long"),
]
LimitBatches = Annotated[
    int | None,
    typer.Option(min=1, help="Most steps of an epoch, to try something out.", show_default="all there are"),
]
Weights = Annotated[
    str | None,
    typer.Option(
        help="What to start from: none, imagenet, or a file; short for --set weights=.",
        autocompletion=completion.among("none", "imagenet"),
        show_default="that of the data set's recipe",
    ),
]
From = Annotated[
    str | None,
    typer.Option(
        "--from",
        help="Start from the network of a finished run, heads and all, or of a model file of the same classes.",
        autocompletion=completion.models,
        show_default="not",
    ),
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Move runs of other settings aside.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, nothing else.")]


def _choose_device(ctx: typer.Context, word: str) -> str:
    """Compute on the device from here to the command's end."""
    if not ctx.resilient_parsing:
        from u2pl.settings import device

        ctx.with_resource(device.using(word))
    return word


Device = Annotated[
    str,
    typer.Option(
        help="Where to compute: auto (a GPU where there is one), cpu, cuda, or cuda:1 for the second GPU.",
        callback=_choose_device,
        autocompletion=completion.devices,
    ),
]


@dataclass(frozen=True)
class Training:
    """What the options of a training come to, but for what is a command's own."""

    project: "Project"
    params: "Params"
    machine: "Machine"
    overrides: dict[str, Any]
    seeds: list[int | None]
    """None: that of params.yaml."""


def training(
    project: "Project",
    *,
    set_: list[str],
    batch: int | None,
    micro_batch: int | None,
    limit_batches: int | None,
    weights: str | None,
    from_: str | None,
    dataset: str | None,
    seed: int | None,
    seeds: str | None,
    recompute: bool,
    compiled: bool,
    workers: int | None,
    save_every: float | None,
) -> Training:
    """Put the options of a training together.

    Raises:
        UsageError: two of them contradict each other, or one has a value that it cannot have.
    """
    from u2pl.errors import UsageError
    from u2pl.settings import WORDS_FOR_WEIGHTS, Params, merged, parse_overrides
    from u2pl.training.machine import Machine

    params = Params.read(project)
    if from_ is not None:
        if weights is not None:
            raise UsageError(
                f"--from {from_} and --weights {weights} both say what to start from. Leave one out."
            )
        chosen = params.default("dataset") if dataset is None else dataset
        weights = str(project.root / model_to_start_from(project, chosen, from_))
    given: dict[str, Any] = {"batch": batch, "micro_batch": micro_batch, "limit_batches": limit_batches}
    if weights is not None:
        # On the command line a file lies below the current folder, in the settings below the project's.
        given["weights"] = weights if weights in WORDS_FOR_WEIGHTS else project.relative(Path(weights))
    overrides = merged(
        parse_overrides(set_), {key: value for key, value in given.items() if value is not None}
    )
    machine = Machine(recompute, compiled, workers, save_every)
    return Training(project, params, machine, overrides, _all_seeds(seed, seeds))


def model_to_start_from(project: "Project", dataset: str, text: str) -> str:
    """The model file that a run is to start from, as the setting `weights` names it.

    Args:
        project: where the run will be.
        dataset: that it is trained on.
        text: a finished run, or a model file.

    Raises:
        UserError: there is no such model, or it has other classes than the data set.
    """
    from u2pl.data.prepared import description_of
    from u2pl.errors import UserError
    from u2pl.exchange import model_file
    from u2pl.runs.stored_evaluation import run_path

    path = (
        Path(text)
        if model_file.is_model_file(text)
        else model_file.write_of_run(project, run_path(project, text))
    )
    theirs, ours = model_file.read_facts(path)["classes"], description_of(project, dataset).classes
    if theirs != ours:
        raise UserError(
            f"The model of {text} is for the classes {', '.join(theirs)}, and {dataset!r} has {', '.join(ours)}. Start "
            "from a model of the same classes in the same order; or take what fits of it, the encoder above all: "
            f"--weights {path}"
        )
    return project.relative(path)


def _all_seeds(seed: int | None, seeds: str | None) -> list[int | None]:
    from u2pl.errors import UsageError

    if seeds is None:
        return [seed]
    if seed is not None:
        raise UsageError(f"--seed {seed} and --seeds {seeds} both say which seeds. Leave one of them out.")
    return [*parse_seeds(seeds)]


def parse_seeds(text: str) -> list[int]:
    """`0,1,2` as numbers.

    Raises:
        UsageError: they are no whole numbers from 0, or one is named twice.
    """
    from u2pl.errors import UsageError

    words = [word.strip() for word in text.split(",")]
    if not all(re.fullmatch("[0-9]{1,19}", word) for word in words):
        raise UsageError(f"--seeds takes whole numbers from 0, not {text!r}. Example: --seeds 0,1,2")
    numbers = [int(word) for word in words]
    for number in numbers:
        if numbers.count(number) > 1:
            raise UsageError(f"--seeds names {number} twice. Name each seed once. Example: --seeds 0,1,2")
    return numbers
