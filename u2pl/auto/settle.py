"""Chooses settings for a data set, and what to train on it, by the speed of this machine and a budget."""

from pathlib import Path

import yaml

from u2pl.auto.data_set import DataSet
from u2pl.auto.portfolio import Costs, Portfolio, choose, least_seconds
from u2pl.data.description import Progress
from u2pl.data.prepared import open_split
from u2pl.errors import UsageError
from u2pl.files import write_text
from u2pl.pipeline import read_table
from u2pl.project import Project
from u2pl.reporting.durations import duration
from u2pl.settings import Params, chosen_recipe_path
from u2pl.training import chosen_recipe

_BESIDE = 1.25
"""Times as long as passes through the network a step takes, with its losses, its optimiser and its images."""
_LOOK_SPEED = 3.0
"""Times as fast as a training image a validation image goes through: forwards alone."""


def settle(
    project: Project,
    data_set: DataSet,
    seconds: float,
    jobs: int,
    progress: Progress = lambda what, done, total: None,
) -> tuple[Portfolio, Costs]:
    """Choose the settings of all splits of a data set, and the portfolio; writes the recipes.

    Args:
        project: where the splits are prepared.
        data_set: of the folder.
        seconds: of the budget.
        jobs: runs that train side by side, which share the cores.
        progress: told how far it is.

    Raises:
        UsageError: the budget is too small for anything.
        UserError: no method could learn from so few labels.
    """
    params = Params.read(project)
    general = chosen_recipe.generally(params)
    split = open_split(project, data_set.name, data_set.splits[0])
    found = chosen_recipe.look(split, general, progress)
    choices = chosen_recipe.choose(found)
    recipe = chosen_recipe.recipe_of(general, choices)
    progress("trying the speed of this machine", 0, 1)
    threads = max(1, found.cores // jobs) if found.device == "cpu" else None
    speed = jobs * chosen_recipe.speed(recipe, found.classes, threads)
    progress("trying the speed of this machine", 1, 1)
    costs = Costs(
        step=_BESIDE * recipe.batch * recipe.crop**2 / speed,
        look=data_set.val * found.height * found.width * recipe.resize**2 / (_LOOK_SPEED * speed),
    )
    known = params.listed_methods
    best = choose(
        seconds,
        costs,
        device=found.device,
        repeats=data_set.repeats,
        unlabeled=data_set.unlabeled,
        known=known,
    )
    if best is None:
        least = least_seconds(costs, device=found.device, unlabeled=data_set.unlabeled, known=known)
        raise UsageError(
            f"{duration(seconds)} is too short for these pictures on this machine. The least that says something takes "
            f"{duration(least)}: --budget {max(1, round(least / 60 + 0.5))}m"
        )
    choices += chosen_recipe.length(found, recipe.batch, recipe.crop, speed, best.steps)
    for each in data_set.splits:
        # One that is there was written by a start that was cut off, for another budget.
        path = chosen_recipe_path(project, data_set.name, each)
        write_text(path, chosen_recipe.text(open_split(project, data_set.name, each), found, choices))
    return best, costs


def plan_name(data_set: DataSet) -> str:
    """Of the plan of the same runs."""
    return f"auto-{data_set.name}"


def write_plan(project: Project, data_set: DataSet, portfolio: Portfolio) -> Path:
    """Write the plan that trains what the portfolio has, for whoever wants to change it or go on from it."""
    labels = {row.method: row.label for row in reversed(read_table(project, "methods").rows)}
    rows = [labels[method] for method in portfolio.methods if method in labels]
    tables = {
        f"methods-{split}" if data_set.has_folds else "methods": {
            "table": "methods",
            "title": f"{data_set.name}, {split}",
            "splits": {"classic-1/8": split},
            "rows": rows,
        }
        for split in data_set.splits[: portfolio.repeats if data_set.has_folds else 1]
    }
    values = {
        "dataset": data_set.name,
        "reports": f"reports/{data_set.name}",
        "seeds": [0] if data_set.has_folds else list(range(portfolio.repeats)),
        "tables": tables,
    }
    path = project.pipelines / "plans" / f"{plan_name(data_set)}.yaml"
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)
    head = (
        f"# The runs of u2pl auto on {data_set.name}, and those that it left out. Change what you like, then:\n"
        f"# u2pl plan {plan_name(data_set)} && u2pl plan run\n"
    )
    if not path.exists():
        write_text(path, head + text)
    return path
