"""Trains one run, described by its settings and data, in a folder of its own that is claimed and tracked."""

import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from u2pl import methods, processes
from u2pl.batches.suitability import check_counts, check_crop
from u2pl.data.prepared import Split, open_split
from u2pl.errors import UsageError
from u2pl.project import Project
from u2pl.runs.folder import RunFolder
from u2pl.runs.results import store_last_validation
from u2pl.settings import Params, Recipe, ResolvedRun, RunSpec, device
from u2pl.tracking.sidecar import Sidecar
from u2pl.training import distributed
from u2pl.training.description import description
from u2pl.training.finished import looks_finished
from u2pl.training.loop import Observer, Run, classes_of
from u2pl.training.machine import Machine
from u2pl.training.stopping import stop_signals

_log = logging.getLogger(__name__)

_PROCESSES = 8
"""That a machine without a GPU may always have; more where it has more cores."""


def describe(project: Project, spec: RunSpec) -> tuple[ResolvedRun, Split, dict[str, Any]]:
    """A run's settings, its data, and what run.json says of it (with the fingerprint of all that decides numbers).

    Raises:
        UserError: the run could never train.
    """
    resolved = Params.read(project).resolve(spec)
    split = open_split(project, spec.dataset, spec.split)
    checked = methods.settings(spec.method, classes_of(split), resolved.recipe, resolved.hyper)
    check_counts(split, resolved.recipe.batch, methods.uses_unlabeled(spec.method))
    check_crop(split, resolved.recipe)
    return resolved, split, description(resolved, split, checked)


def train(
    project: Project,
    spec: RunSpec,
    *,
    fresh: bool = False,
    parent: str | None = None,
    machine: Machine = Machine(),  # noqa: B008
    observe: Observer = lambda *_: None,
) -> Path:
    """Train a run to its end and return its folder; a finished one is returned at once.

    Called by each of the processes that torchrun starts for one run; the first of them alone writes and tracks.

    Args:
        fresh: move a run of other settings that has the same name aside.
        parent: the ablation this run is trained for.
        machine: what changes how fast it goes and how much memory it takes, but not what comes out.
        observe: told about steps and epochs, in the first process.

    Raises:
        UserError: bad settings or data, a folder held by another process, a loss that is not finite.
        Interrupted: SIGTERM or Ctrl-C came, or `dvc repro` died; the state is saved.
    """
    resolved, split, described = describe(project, spec)

    def claim() -> RunFolder:
        return RunFolder.claim(project, resolved.name, {**described, "parent": parent}, fresh=fresh)

    with stop_signals() as stopped, distributed.joined(stopped):
        check_processes(resolved.recipe, processes.size())
        # Built before there is a folder: what is refused leaves none, and moves none aside.
        parts = [] if _is_finished(project, described) else [Run(resolved, split, machine)]
        folder = distributed.first_alone(claim) or RunFolder(project.runs / resolved.name, writes=False)
        try:
            # Handed over: of its objects none may be left when the processes part.
            _train_in(folder, project, resolved, split, machine, parts, observe, stopped)
        finally:
            folder.release()
    return folder.path


def _is_finished(project: Project, described: Mapping[str, Any]) -> bool:
    """Whether the run of these settings has come to its end; the same in all processes."""
    return distributed.any_of(looks_finished(project, described))[0]


def _train_in(
    folder: RunFolder,
    project: Project,
    resolved: ResolvedRun,
    split: Split,
    machine: Machine,
    parts: "list[Run]",
    observe: Observer,
    stopped: Callable[[], bool],
) -> None:
    """Train the run to its end, unless it has come there; of its objects none is left afterwards.

    Args:
        parts: the run, taken out of the list, unless it looked finished before the folder was held.
    """
    finished = folder.is_finished()
    folder.sweep(finished=finished)
    if finished:
        parts.clear()
        return
    run = parts.pop() if parts else Run(resolved, split, machine)
    with _tracked(project, folder):
        run.train(folder, observe if folder.writes else lambda *_: None, stopped)
    if run.scored and folder.writes:
        store_last_validation(project, folder.path, split, resolved.recipe, run.scored)


def check_processes(recipe: Recipe, size: int) -> None:
    """Check that so many processes can share a batch.

    Raises:
        UsageError: they cannot.
    """
    batch, groups = recipe.batch, recipe.replicas
    gpu = device.is_gpu()
    if gpu and size > 1 and device.chosen_gpu() is not None:
        raise UsageError(
            f"--device cuda:{device.chosen_gpu()} is one GPU, and {size} processes take one each, from the first on. "
            "Use --device cuda, and choose GPUs with CUDA_VISIBLE_DEVICES."
        )
    if gpu and size > torch.cuda.device_count():
        raise UsageError(
            f"{size} processes need as many GPUs, and there are {torch.cuda.device_count()}. "
            f"Use at most --nproc {torch.cuda.device_count()}"
        )
    if size == 1:
        return
    most = max(_PROCESSES, os.cpu_count() or 1)
    if not gpu and size > most:
        raise UsageError(f"{size} processes are more than this machine can bear. Use at most --nproc {most}")
    if batch % size:
        raise UsageError(
            f"A batch of {batch} cannot be shared by {size} processes. Use a number of processes that divides it, "
            f"or --set batch={size * max(batch // size, 1)}"
        )
    each = batch // size
    if recipe.micro_batch and each % recipe.micro_batch:
        raise UsageError(
            f"Of a batch of {batch} each of {size} processes has {each} images, no multiple of "
            f"micro_batch={recipe.micro_batch}. Use --micro-batch {math.gcd(each, recipe.micro_batch)}"
        )
    if groups % size and size % groups:
        raise UsageError(
            f"{groups} replicas and {size} processes: one must be a multiple of the other. Use --nproc {groups}, or "
            "--set replicas=1"
        )
    if not gpu and recipe.batch_norm == "batch" and each < 2:
        raise UsageError(
            f"Of a batch of {batch} each of {size} processes has one image, too few for batch norm on a CPU, where it "
            f"is not synchronised. Use at most --nproc {batch // 2}, or --set batch_norm=fixed"
        )


@contextmanager
def _tracked(project: Project, folder: RunFolder) -> Iterator[None]:
    """Mirror the run into the tracking store while it trains, from a process of its own."""
    if not folder.writes:
        yield
        return
    sidecar = Sidecar.start(project, folder.path)
    try:
        yield
    finally:
        warning = sidecar.close()
        if warning:
            _log.warning(warning)
