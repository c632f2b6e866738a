from pathlib import Path
from typing import Any

import pytest

from u2pl.pipeline import resolve
from u2pl.pipeline.departures import APART, HYPER, METHODS, NO_MATTER, RECIPES, departures, of_plan
from u2pl.project import Project
from u2pl.settings import Params
from u2pl.settings.hyper import settings_of

REPOSITORY = Project(Path(__file__).parents[2])
STEM = "the backbone's stem is one 7x7 convolution, in the released code three of 3x3"


def of_run(dataset: str, swept: tuple[str, ...] = (), method: str = "u2pl", **overrides: Any) -> list[str]:
    params = Params.read(REPOSITORY)
    resolved = params.resolve(params.spec(dataset, "1/4", method, 0, overrides), bfloat16=False)
    return departures(dataset, method, resolved.recipe.model_dump(), resolved.hyper, swept)


def test_the_recipes_of_params_yaml_are_the_papers_but_for_what_is_said() -> None:
    """Independent of the recipe: the numbers of Sec. 4.1 and App. A are written out in the module."""
    assert of_run("voc") == [STEM]
    assert of_run("cityscapes") == [STEM]
    assert of_run("voc", stem="deep") == []


@pytest.mark.parametrize("method", Params.read(REPOSITORY).methods)
def test_no_method_departs_from_its_own_defaults(method: str) -> None:
    assert of_run("voc", method=method, stem="deep") == []
    assert of_run("cityscapes", method=method, stem="deep") == []


@pytest.mark.parametrize(
    ("changed", "phrase"),
    [
        ({"crop": 321}, "crop 321 instead of 513"),
        ({"batch": 8}, "batch 8 instead of 16"),
        ({"micro_batch": 4}, "batch norm over 4 images instead of 16"),
        ({"batch_norm": "fixed"}, "batch norm's statistics fixed instead of batch"),
        ({"lr": 0.002}, "learning rate 0.002 instead of 0.001"),
        ({"scale": [0.75, 1.5]}, "random scale 0.75 to 1.5 instead of 0.5 to 2.0"),
        ({"weights": "runs/x/weights.pt"}, "start from weights a file of one's own instead of imagenet"),
        ({"alpha0": 0.3}, "alpha0 0.3 instead of 0.2"),
        ({"warm_start_epochs": 0}, "warm start, epochs 0 instead of 1"),
        ({"evaluation": "whole"}, "evaluated by whole instead of center"),
        ({"replicas": 4}, "groups of a batch with thresholds and centres of their own: 4 instead of 1"),
        ({"dpa": False}, "dynamic partition adjustment off instead of on"),
        ({"contrast": "L_b"}, "contrastive loss L_b instead of L_c"),
        ({"representation": 64}, "representation 64 instead of 256"),
        ({"checkpoint": "best"}, "checkpoint best instead of last"),
        ({"loss": "ohem"}, "loss on true labels ohem instead of ce"),
        ({"limit_batches": 3}, "most steps of an epoch 3 instead of 0"),
        ({"auxiliary": 0.4}, "weight of the auxiliary head 0.4 instead of 0.0"),
        ({"precision": "bfloat16"}, "precision bfloat16 instead of float32"),
        ({"method": "ael", "paste_except": [1, 2]}, "classes never pasted: 1, 2 instead of none"),
        (
            {"method": "ael", "paste_scale": [0.5, 2.0]},
            "random scale of what is pasted 0.5 to 2.0 instead of 0.1 to 2.0",
        ),
        ({"method": "cps", "cutmix": False}, "cutmix off instead of on"),
    ],
)
def test_a_departure_is_named_with_both_values(changed: dict[str, Any], phrase: str) -> None:
    assert of_run("voc", stem="deep", **changed) == [phrase]


def test_every_setting_is_judged_or_known_not_to_matter() -> None:
    params = Params.read(REPOSITORY)
    assert set(params.values["recipe"]) == {*RECIPES["voc"]} | APART | NO_MATTER
    assert not RECIPES["voc"].keys() & (APART | NO_MATTER)
    for own in METHODS.values():
        for name in params.methods:
            assert not settings_of(name) - {*HYPER, *own.get(name, {})}, name
        assert not [name for name in own if own[name].keys() - settings_of(name)]
    assert not HYPER.keys() - set.union(*map(settings_of, params.methods))


def test_the_released_flavour_departs_in_each_of_its_settings() -> None:
    params = Params.read(REPOSITORY)
    presets = params.values["flavors"]["released"].keys() - NO_MATTER - {"precision"}
    own = {*params.values["recipe"], *settings_of("u2pl")}
    assert len(of_run("voc", stem="deep", flavor="released")) == len(presets & own)


def test_what_the_papers_own_table_varies_is_no_departure() -> None:
    assert of_run("voc", ("tau",), stem="deep", tau=10) == []
    assert of_run("voc", ("tau",), stem="deep", tau=10, lr=0.1) == ["learning rate 0.1 instead of 0.001"]


def test_a_setting_that_the_method_does_not_have_departs_from_nothing() -> None:
    assert of_run("voc", method="suponly") == [STEM]


def test_data_sets_that_the_paper_does_not_have_depart_from_nothing() -> None:
    assert of_run("shapes") == []


def test_a_plan_lists_its_departures_with_the_runs_before_anything_runs(tmp_path: Path) -> None:
    found = of_plan(REPOSITORY, resolve(REPOSITORY, "paper", ["7", "A8"]), bfloat16=False)
    assert {text: len(names) for text, names in found.items()} == {
        f"voc: {STEM}": 8,
        f"cityscapes: {STEM}": 8,
    }
    assert not of_plan(REPOSITORY, resolve(REPOSITORY, "demo-full"))
