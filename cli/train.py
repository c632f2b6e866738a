"""`u2pl train`."""

from pathlib import Path
from typing import Annotated

import typer


def train(
    dataset: Annotated[str | None, typer.Option(help="Data set that was prepared.")] = None,
    split: Annotated[
        str | None, typer.Option(help="Which images keep their labels: full, 1/8, classic-1/16.")
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="suponly, mt, cutmix, u2pl, or a file in u2pl/methods.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights, order and augmentation.")] = None,
    set_: Annotated[
        list[str], typer.Option("--set", help="Override a setting: alpha0=0.3, lr=0.01, flavor=released.")
    ] = [],  # noqa: B006
    fresh: Annotated[bool, typer.Option("--fresh", help="Move a run of other settings aside.")] = False,
    model: Annotated[Path | None, typer.Option(help="Copy the weights the run is reported by here.")] = None,
) -> None:
    """Train one run; a run that was killed goes on where it stopped, a finished one returns at once.

    Example: u2pl train --dataset shapes --split 1/8 --method u2pl --set u2pl.alpha0=0.3
    """
    import shutil

    from u2pl.project import Project
    from u2pl.settings import Params, parse_overrides

    project = Project.find()
    params = Params.read(project)
    spec = params.spec(dataset, split, method, seed, parse_overrides(set_))
    name = params.resolve(spec).name

    from u2pl.engine import trainer
    from u2pl.engine.results import result_in_words
    from u2pl.files import read_json, write_atomically

    from .progress import training

    with training(name) as observe:
        path = trainer.train(project, spec, fresh=fresh, observe=observe)
    if model is not None:

        def copy(target: Path) -> None:
            shutil.copyfile(path / "weights.pt", target)

        write_atomically(model, copy)
    print(f"{name}: {result_in_words(read_json(path / 'metrics.json'))}")
    print(f"Everything about it is in {path}. Next: u2pl evaluate {name}")
