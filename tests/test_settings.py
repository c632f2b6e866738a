import math
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import Field
from tiny import REPOSITORY, edit_params, make_project

from u2pl import methods
from u2pl.errors import UsageError, UserError
from u2pl.project import Project
from u2pl.settings import (
    Params,
    Recipe,
    RunSpec,
    Settings,
    differences,
    fingerprint,
    hyper,
    load,
    parse_overrides,
    parse_value,
)
from u2pl.settings.base import homes


@pytest.fixture
def params(tmp_path: Path) -> Params:
    return Params.read(make_project(tmp_path))


def spec(params: Params, **overrides: object) -> RunSpec:
    return params.spec("tiny", "1/4", "u2pl", 0, overrides)


# ---- values and overrides from the command line ----------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.3", 0.3),
        ("3", 3),
        ("-1", -1),
        ("1e-3", 0.001),
        ("1E3", 1000.0),
        ("-1e-3", -0.001),
        ("+2e1", 20.0),
        ("true", True),
        ("false", False),
        ("unreliable", "unreliable"),
        ("resnet18", "resnet18"),
        ("1/8", "1/8"),
        ("[0.5, 2]", [0.5, 2]),
        ("[0.5, 2e0]", [0.5, 2.0]),
        ("e", "e"),
        ("[unclosed", "[unclosed"),
    ],
)
def test_values_are_read_as_people_mean_them(text: str, value: object):
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
@example(-1e-05)
@example(1e22)
def test_every_number_that_python_prints_is_read_back(number: float):
    assert parse_value(repr(number)) == number


@given(st.text(max_size=20))
def test_no_text_makes_the_parser_fail(text: str):
    parse_value(text)


def test_overrides_are_names_and_values():
    assert parse_overrides(["u2pl.alpha0=0.3", " lr = 0.1 "]) == {"u2pl.alpha0": 0.3, "lr": 0.1}


def test_an_override_may_hold_an_equals_sign_in_its_value():
    assert parse_overrides(["a=b=c"]) == {"a": "b=c"}


@pytest.mark.parametrize("pair", ["alpha0", "=0.3", ""])
def test_an_override_without_a_name_or_a_value_is_refused_with_an_example(pair: str):
    with pytest.raises(UsageError, match=r"NAME=VALUE.*Example: --set u2pl\.alpha0=0\.3"):
        parse_overrides([pair])


@pytest.mark.parametrize("pairs", [["lr=1", "lr=2"], ["lr=1", " lr =2"], ["lr=1", "lr=1", "lr=x"]])
def test_a_setting_that_is_given_two_values_is_refused(pairs: list[str]):
    with pytest.raises(UsageError, match="lr is set twice, to 1 and to"):
        parse_overrides(pairs)


def test_a_setting_that_is_said_twice_alike_counts_once():
    assert parse_overrides(["lr=0.1", "lr=0.10"]) == {"lr": 0.1}


@pytest.mark.parametrize(
    "text", ["!!python/object/apply:os.getcwd []", "&a [*a]", "[" * 200_000, "{a: 1, a: 2}"]
)
def test_a_value_that_is_no_plain_yaml_stays_the_text_it_is(text: str):
    assert parse_value(text) == text


# ---- names of settings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("alpha0", "u2pl.alpha0"),
        ("u2pl.alpha0", "u2pl.alpha0"),
        ("lr", "recipe.lr"),
        ("recipe.lr", "recipe.lr"),
        ("flavor", "recipe.flavor"),
        ("recipe.flavor", "recipe.flavor"),
    ],
)
def test_a_setting_has_one_full_name(params: Params, short: str, full: str):
    assert params.full_key(short, "u2pl") == full


@pytest.mark.parametrize(
    ("short", "value"),
    [
        *(("alpha0", 0.3), ("tau", 0.1), ("r_l", 2), ("r_h", 4), ("lambda_c", 1), ("M", 7), ("N", 9)),
        *(("delta_p", 0.5), ("eta", 2), ("contrast", "L_b"), ("lr", 0.5), ("replicas", 1)),
    ],
)
def test_the_papers_names_need_no_section(params: Params, short: str, value: object):
    run = params.resolve(spec(params, **parse_overrides([f"{short}={value}"])))
    assert {**run.hyper, **run.recipe.model_dump()}[short] == value


@pytest.mark.parametrize(
    ("wrong", "near"), [("alpha", "alpha0"), ("u2pl.alfa0", "alpha0"), ("learning_rates", None)]
)
def test_an_unknown_setting_is_refused_and_the_nearest_one_suggested(
    params: Params, wrong: str, near: str | None
):
    with pytest.raises(UsageError) as caught:
        spec(params, **{wrong: 1})
    assert repr(wrong.rpartition(".")[2]) in str(caught.value)
    assert near is None or f"Did you mean {near!r}?" in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_setting_of_another_method_is_refused(params: Params):
    with pytest.raises(UsageError, match=r"'u2pl' and 'recipe' only"):
        spec(params, **{"mt.alpha0": 0.3})


def test_a_setting_that_is_given_two_values_by_two_of_its_names_is_refused(params: Params):
    with pytest.raises(UsageError, match=r"recipe\.lr is set twice, to 0\.1 and to 0\.2"):
        spec(params, **{"lr": 0.1, "recipe.lr": 0.2})
    assert spec(params, **{"lr": 0.1, "recipe.lr": 0.1}).overrides == {"recipe.lr": 0.1}


@pytest.mark.parametrize("seed", [-1, 2**63, 10**30])
def test_a_seed_that_no_generator_takes_is_refused(params: Params, seed: int):
    with pytest.raises(UsageError, match=f"not {seed}"):
        params.spec(seed=seed)


def test_the_largest_seed_is_one(params: Params):
    import torch

    torch.manual_seed(params.spec(seed=2**63 - 1).seed)


@pytest.mark.parametrize(
    "pair",
    [
        *(
            "epochs=1e9",
            "epochs=1.5",
            "epochs=abc",
            "epochs=true",
            "epochs=-1",
            "epochs=1000000000000000000000",
        ),
        *("batch=1000000000000", "batch=10**12", "batch=", "micro_batch=-2", "crop=100000000", "width=1e12"),
        *("lr=nan", "lr=.nan", "lr=inf", "lr=-.inf", "lr=abc", "lr=true", "lr=[0.1]", "lr=null"),
        *("lr=!!python/object:os.system {}", "lr=&a [*a]", "lr=2020-01-01", "lr={a: 1}", "scale=[0.5, 1e9]"),
        *(
            "scale=2",
            "scale=[.nan, 2]",
            "momentum=.inf",
            "poly_power=.inf",
            "width=.inf",
        ),
    ],
)
def test_a_number_that_is_none_or_beyond_reason_is_refused_in_a_sentence(params: Params, pair: str):
    with pytest.raises(UsageError, match=rf"Bad setting: recipe\.{pair.partition('=')[0]}[.:\d]") as caught:
        params.resolve(spec(params, **parse_overrides([pair])))
    assert len(str(caught.value)) < 500


def test_a_bad_value_of_any_length_is_repeated_in_part(params: Params):
    with pytest.raises(UsageError, match=r"100,002 characters") as caught:
        params.resolve(spec(params, lr="9" * 100_000))
    assert len(str(caught.value)) < 500


def test_an_unknown_method_is_refused_with_the_nearest_name(params: Params):
    with pytest.raises(UsageError, match=r"No method called 'u2lp'\. Did you mean 'u2pl'\?"):
        params.spec(method="u2lp")


def test_what_the_command_line_leaves_out_comes_from_params_yaml(params: Params):
    default = params.spec()
    assert (default.dataset, default.split, default.method, default.seed) == ("shapes", "1/8", "u2pl", 0)
    assert params.spec(seed=3, split="full").seed == 3


# ---- how sections combine --------------------------------------------------------------------------------


def test_the_data_sets_recipe_beats_the_general_one_and_the_command_line_beats_both(params: Params):
    assert params.resolve(RunSpec("voc", "full", "u2pl")).recipe.crop == 513
    assert params.resolve(spec(params)).recipe.crop == 32
    assert params.resolve(spec(params, crop=48)).recipe.crop == 48


def test_a_data_sets_overrides_change_the_methods_settings_and_the_command_line_beats_them(params: Params):
    assert params.resolve(RunSpec("voc", "full", "u2pl")).hyper["queue"] == 30000
    assert params.resolve(spec(params)).hyper["queue"] == 40
    assert params.resolve(spec(params, queue=41)).hyper["queue"] == 41


def test_overrides_of_other_methods_leave_no_trace(params: Params):
    assert set(params.resolve(RunSpec("tiny", "1/4", "mt")).hyper) == set(
        hyper.MeanTeacherSettings.model_fields
    )


def test_a_data_set_without_a_recipe_takes_the_one_for_custom_data_sets(params: Params):
    assert params.section("tiny") == "tiny"
    assert params.section("my_own") == "custom"
    assert params.resolve(RunSpec("my_own", "full", "suponly")).recipe.backbone == "resnet101"


def test_the_precision_is_decided_when_a_run_is_resolved(params: Params):
    assert params.resolve(RunSpec("voc", "full", "mt")).recipe.precision in ("float32", "bfloat16")


@pytest.mark.parametrize(
    "bad",
    [
        {"crop": 8},
        {"batch": 1},
        {"lr": 0},
        {"lr": "fast"},
        {"lr": None},
        {"lr": math.inf},
        {"lr": math.nan},
        {"weight_decay": math.inf},
        {"momentum": 1},
        {"scale": [2, 0.5]},
        {"scale": 1},
        {"backbone": "vgg16"},
        {"output_stride": 4},
        {"resize": 2},
        {"dropout": 1},
        {"replicas": 0},
        {"validate_every": 0},
        {"padding_label": "class1"},
        {"evaluation": "windows"},
        {"interpolation": "float16"},
        {"unlabeled_truth": "some"},
    ],
)
def test_a_bad_recipe_is_refused_with_the_setting_the_value_and_what_to_do(params: Params, bad: dict):
    (key, value) = next(iter(bad.items()))
    with pytest.raises(
        UsageError, match=r"recipe\.?" + key + r".*--set\.$|recipe.*scale.*--set\.$"
    ) as caught:
        params.resolve(spec(params, **bad))
    assert str(value) in str(caught.value) or key == "scale"


def test_a_missing_setting_is_named(params: Params):
    values = {key: value for key, value in params.values["recipe"].items() if key not in ("lr", "flavor")}
    with pytest.raises(UsageError, match=r"recipe\.lr is missing"):
        load(Recipe, values, "recipe")


@pytest.mark.parametrize(
    ("content", "says"),
    [("a: [1", "not valid YAML"), ("- a\n", "must hold sections"), ("", "must hold sections")],
)
def test_a_params_yaml_that_cannot_be_read_is_an_error_in_words(tmp_path: Path, content: str, says: str):
    (tmp_path / "params.yaml").write_text(content)
    with pytest.raises(UserError, match=says):
        Params.read(Project(tmp_path))


def test_settings_cannot_change_after_loading(params: Params):
    recipe = params.resolve(spec(params)).recipe
    with pytest.raises(ValueError, match="frozen"):
        recipe.lr = 1.0


# ---- flavours --------------------------------------------------------------------------------------------

FITTING = {"batch": 4, "replicas": 2}
"""The released code's four devices need eight images a step, the data set `tiny` has four labelled ones."""


def decided(params: Params, method: str, dataset: str = "voc", **overrides: object) -> dict[str, Any]:
    """Every setting of a run by its short name."""
    run = params.resolve(params.spec(dataset, "1/4", method, 0, overrides))
    both = set(run.hyper) & set(Recipe.model_fields)
    assert not both, "a preset of that name would mean two settings"
    return {**run.recipe.model_dump(), **run.hyper}


def released(params: Params) -> Mapping[str, Any]:
    return params.values["flavors"]["released"]


def presets(params: Params, method: str) -> dict[str, Any]:
    """What the flavour sets for a method by short names; of two presets of a setting the method's own."""
    plain, own = decided(params, method), f"{method}."
    for_all = {key: value for key, value in released(params).items() if key in plain}
    return for_all | {key.removeprefix(own): v for key, v in released(params).items() if key.startswith(own)}


def test_a_flavour_changes_exactly_its_presets_wherever_the_method_or_the_recipe_has_them(params: Params):
    used = set()
    for method in params.methods:
        plain, changed = decided(params, method), decided(params, method, flavor="released")
        here = presets(params, method)
        assert changed == {**plain, **here}
        used |= {key for key in released(params) if key.removeprefix(f"{method}.") in here}
    assert used == set(released(params))


def test_every_preset_of_a_flavour_departs_from_what_is_written_elsewhere(
    params: Params, monkeypatch: pytest.MonkeyPatch
):
    """One that does not would have no effect on any method or data set."""
    monkeypatch.setattr(
        "u2pl.settings.params.has_native_bfloat16", lambda: True
    )  # on some machine it has one
    plain = {
        method: [decided(params, method, dataset) for dataset in params.values["recipes"]]
        for method in params.methods
    }
    for key, value in released(params).items():
        method, _, short = key.rpartition(".")
        if method:
            assert any(value != released(params).get(short, found[short]) for found in plain[method]), key
        else:
            assert any(found[key] != value for runs in plain.values() for found in runs if key in found), key


def test_the_paper_is_the_default_flavour_and_changes_nothing(params: Params):
    assert params.values["flavors"]["paper"] == {}
    assert params.values["recipe"]["flavor"] == "paper"
    plain, paper = (params.resolve(spec(params, **flavor)) for flavor in ({}, {"flavor": "paper"}))
    assert (plain.flavor, plain.recipe, plain.hyper) == (paper.flavor, paper.recipe, paper.hyper)
    assert plain.flavor == "paper"


def test_a_preset_beats_the_data_sets_overrides_and_the_command_line_beats_a_preset(params: Params):
    assert decided(params, "u2pl", "tiny")["N"] == 8
    assert decided(params, "u2pl", "tiny", flavor="released", **FITTING)["N"] == 50
    assert decided(params, "u2pl", "tiny", flavor="released", N=9, **FITTING)["N"] == 9
    assert decided(params, "mt", flavor="released", teacher_mode="eval")["teacher_mode"] == "eval"
    assert decided(params, "u2pl", "tiny", flavor="released", **FITTING)["queue"] == 40, "no preset of it"


def test_a_preset_beats_the_data_sets_recipe(tmp_path: Path):
    project = make_project(tmp_path)
    edit_params(
        project, lambda values: values["recipes"]["tiny"].update(checkpoint="last", absent_iou="skip")
    )
    changed = decided(Params.read(project), "mt", "tiny", flavor="released", **FITTING)
    assert (changed["checkpoint"], changed["absent_iou"]) == ("best", "zero")


def test_a_data_sets_recipe_may_choose_the_flavour_and_the_command_line_may_choose_another(tmp_path: Path):
    project = make_project(tmp_path)
    edit_params(project, lambda values: values["recipes"]["tiny"].update(flavor="released", **FITTING))
    params = Params.read(project)
    run = params.resolve(params.spec("tiny", "1/4", "u2pl", 0, {"replicas": 2}))
    assert (run.flavor, run.hyper["pairing"], run.name) == (
        "released",
        "position",
        "tiny-1_4-u2pl-replicas=2-s0",
    )
    run = params.resolve(params.spec("tiny", "1/4", "u2pl", 0, {"flavor": "paper"}))
    assert (run.flavor, run.hyper["pairing"], run.name) == ("paper", "class", "tiny-1_4-u2pl-flavor=paper-s0")


def test_a_flavour_stands_in_the_name_alone_and_beside_it_only_what_departs_from_it(params: Params):
    def name(**overrides: object) -> str:
        return params.resolve(params.spec("voc", "1/4", "u2pl", 0, overrides)).name

    assert name(flavor="released") == "voc-1_4-u2pl-flavor=released-s0"
    assert name(flavor="released", M=256, pairing="position") == "voc-1_4-u2pl-flavor=released-s0"
    assert name(flavor="released", M=50) == "voc-1_4-u2pl-flavor=released-M=50-s0"
    assert name(M=256) == "voc-1_4-u2pl-M=256-s0"


@pytest.mark.parametrize("method", ["suponly", "mt", "cutmix", "u2pl", "cps", "ael", "u2pl-ael"])
def test_equal_settings_are_the_same_run_whichever_flavour_they_come_from(tiny_project: Project, method: str):
    """The facts that the fingerprint is made of know nothing of the flavour's name."""
    from u2pl.training.trainer import describe

    params = Params.read(tiny_project)
    by_hand = presets(params, method)
    one, other, plain = (
        describe(tiny_project, params.spec("tiny", "1/4", method, 0, overrides | FITTING))[2]
        for overrides in ({"flavor": "released"}, by_hand, {})
    )
    assert one["facts"] == other["facts"]
    assert one["fingerprint"] == other["fingerprint"] != plain["fingerprint"]
    assert (one["flavor"], other["flavor"]) == ("released", "paper")
    assert one["name"] != other["name"]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("relased", r"No flavour called 'relased'\. Did you mean 'released'\? Known: paper, released\.$"),
        ("Paper", r"Did you mean 'paper'\?"),
        (None, r"No flavour called 'None'.*Known: paper, released\.$"),
        (3, r"No flavour called '3'.*Known: paper, released\.$"),
        (["released"], r"No flavour called .*Known: paper, released\.$"),
    ],
)
def test_an_unknown_flavour_is_refused_with_the_nearest_one(params: Params, wrong: object, says: str):
    with pytest.raises(UsageError, match=says):
        params.resolve(spec(params, flavor=wrong))


def test_a_preset_that_no_method_and_no_recipe_has_is_refused_with_the_nearest_one(tmp_path: Path):
    project = make_project(tmp_path)
    edit_params(project, lambda values: values["flavors"]["released"].update(lamda_c=1))
    params = Params.read(project)
    with pytest.raises(UsageError, match=r"No setting of flavour 'released' called 'lamda_c'.*'lambda_c'"):
        params.resolve(spec(params, flavor="released", **FITTING))
    assert params.resolve(spec(params)).flavor == "paper"


@pytest.mark.parametrize("order", [1, -1])
def test_a_preset_of_one_method_beats_that_of_all_and_touches_this_method_alone(tmp_path: Path, order: int):
    """Wherever it stands, and beats the data set's overrides; the command line still beats it."""
    project = make_project(tmp_path)
    mine = {"ema_decay": 0.5, "u2pl.ema_decay": 0.25, "u2pl.queue": 7}

    def change(values: dict[str, Any]) -> None:
        values["flavors"]["mine"] = dict(list(mine.items())[::order])

    edit_params(project, change)
    params = Params.read(project)
    before = {method: decided(params, method, "tiny") for method in params.methods}
    after = {method: decided(params, method, "tiny", flavor="mine") for method in params.methods}
    assert after["u2pl"] == before["u2pl"] | {"ema_decay": 0.25, "queue": 7}
    for method in set(params.methods) - {"u2pl"}:
        has_teacher = "ema_decay" in before[method]
        assert after[method] == before[method] | ({"ema_decay": 0.5} if has_teacher else {})
    assert decided(params, "u2pl", "tiny", flavor="mine", ema_decay=0.1)["ema_decay"] == 0.1


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("u2pl.lamda_c", "u2pl.lambda_c"),
        ("eal.gamma", "ael.gamma"),
        ("recipe.epoch", "recipe.epochs"),
        ("cps.lambda_c", None),
    ],
)
def test_a_preset_of_one_method_that_it_has_not_is_refused_whatever_method_is_run(
    tmp_path: Path, wrong: str, near: str | None
):
    project = make_project(tmp_path)
    edit_params(project, lambda values: values["flavors"]["released"].update({wrong: 1}))
    params = Params.read(project)
    for method in ("suponly", "u2pl"):
        with pytest.raises(UsageError, match=f"No setting of flavour 'released' called '{wrong}'") as caught:
            decided(params, method, flavor="released")
        assert near is None or f"Did you mean {near!r}?" in str(caught.value)


def test_a_flavour_that_does_not_suit_the_batch_is_refused_with_the_reason(params: Params):
    with pytest.raises(
        UsageError, match=r"4 replicas do not cut a batch of 2 into equal groups.*--set replicas=1"
    ):
        params.resolve(spec(params, flavor="released"))


# ---- groups that methods share ---------------------------------------------------------------------------

HAS_TEACHER = ["ael", "cutmix", "mt", "u2pl", "u2pl-ael"]


def written(project: Project, *sections: tuple[str, dict[str, Any]]) -> Params:
    """params.yaml with more in some of its sections; `tiny` is what the data set of that name changes."""

    def change(values: dict[str, Any]) -> None:
        for section, more in sections:
            place = (
                values["recipes"]["tiny"]["overrides"]
                if section == "tiny"
                else values.setdefault(section, {})
            )
            place.update(more)

    edit_params(project, change)
    return Params.read(project)


def test_a_recipe_sets_a_group_for_all_methods_that_have_it_and_one_method_alone(tmp_path: Path):
    changes = {"teacher.warm_start_epochs": 2, "cps.warm_start_epochs": 1}
    params = written(make_project(tmp_path), ("tiny", changes))
    found = {method: decided(params, method, "tiny").get("warm_start_epochs") for method in params.methods}
    without = {method: None for method in found if method not in (*HAS_TEACHER, "cps")}
    assert found == {**dict.fromkeys(HAS_TEACHER, 2), "cps": 1, **without} and "suponly" in without


def test_each_place_of_a_setting_beats_those_before_it(tmp_path: Path):
    project = make_project(tmp_path)
    for place, value in (
        (("teacher", "ema_decay"), 0.1),
        (("u2pl", "ema_decay"), 0.2),
        (("tiny", "teacher.ema_decay"), 0.3),
        (("tiny", "u2pl.ema_decay"), 0.4),
    ):
        params = written(project, (place[0], {place[1]: value}))
        assert decided(params, "u2pl", "tiny")["ema_decay"] == value, place
    for place, value in (("ema_decay", 0.5), ("teacher.ema_decay", 0.6), ("u2pl.ema_decay", 0.7)):
        edit_params(
            project,
            lambda v, place=place, value=value: v["flavors"].setdefault("mine", {}).update({place: value}),
        )
        params = Params.read(project)
        assert decided(params, "u2pl", "tiny", flavor="mine")["ema_decay"] == value, place
    assert decided(params, "u2pl", "tiny", flavor="mine", ema_decay=0.8)["ema_decay"] == 0.8
    assert decided(params, "mt", "tiny")["ema_decay"] == 0.3
    assert decided(params, "mt", "tiny", flavor="mine")["ema_decay"] == 0.6


@pytest.mark.parametrize("name", ["alpha0", "partition.alpha0", "u2pl.alpha0"])
def test_a_setting_of_a_group_has_the_methods_name_wherever_it_is_kept(params: Params, name: str):
    run = params.resolve(params.spec("voc", "1/8", "u2pl", 0, {name: 0.4}))
    assert (run.name, run.changed) == ("voc-1_8-u2pl-alpha0=0.4-s0", {"u2pl.alpha0": 0.4})


def test_two_of_its_names_with_two_values_are_refused(params: Params):
    with pytest.raises(UsageError, match=r"u2pl\.alpha0 is set twice, to 0\.1 and to 0\.2"):
        spec(params, **{"alpha0": 0.1, "partition.alpha0": 0.2})


@pytest.mark.parametrize(
    ("method", "name", "says"),
    [
        ("ael", "partition.alpha0", r"reads the sections 'equalization', 'teacher', 'ael' and 'recipe' only"),
        ("suponly", "teacher.ema_decay", r"reads the sections 'suponly' and 'recipe' only"),
        ("cps", "teacher.ema_decay", r"No setting for method 'cps' called 'ema_decay'"),
        ("u2pl", "partition.alfa0", r"No setting for method 'u2pl' called 'alfa0'\. Did you mean 'alpha0'\?"),
    ],
)
def test_a_setting_of_a_group_that_a_method_has_not_is_refused(
    params: Params, method: str, name: str, says: str
):
    with pytest.raises(UsageError, match=says):
        params.spec("voc", "1/8", method, 0, {name: 0.5})


def test_what_a_group_lacks_is_named_by_its_home_and_may_stand_with_the_method_or_on_the_command_line(
    tmp_path: Path,
):

    project = make_project(tmp_path)
    edit_params(project, without("teacher", "ema_decay"))
    params = Params.read(project)

    def check(**overrides: object) -> None:
        run = params.resolve(params.spec("tiny", "1/4", "mt", 0, overrides))
        methods.settings("mt", methods.Classes(4, 255, background=True), run.recipe, run.hyper)

    with pytest.raises(UsageError, match=r"^Bad setting: teacher\.ema_decay is missing\."):
        check()
    check(ema_decay=0.5)
    params = written(project, ("mt", {"ema_decay": 0.5}))
    check()


@pytest.mark.parametrize(
    ("section", "key"), [("teacher", "ema_decai"), ("teacher", "alpha0"), ("contrast", "tua")]
)
def test_what_no_method_reads_of_a_group_is_refused_where_the_group_is_read(
    tmp_path: Path, section: str, key: str
):
    params = written(make_project(tmp_path), (section, {key: 1}))
    with pytest.raises(UsageError, match=rf"No setting of {section} called '{key}'"):
        decided(params, "u2pl", "tiny")
    assert decided(params, "suponly", "tiny")


@pytest.mark.parametrize("key", ["teacher.ema_decai", "techer.ema_decay", "teacher.alpha0", "teacher.lr"])
def test_what_a_recipe_changes_of_a_group_has_to_be_there(tmp_path: Path, key: str):
    with pytest.raises(UserError, match=rf"changes `{key}:` in `recipes\.tiny\.overrides:`"):
        written(make_project(tmp_path), ("tiny", {key: 0.5}))


def test_a_params_yaml_with_all_settings_in_the_methods_sections_still_holds(tmp_path: Path):
    """Every value as often as there are methods that have it, and no groups: as it was before there were any."""
    project = make_project(tmp_path)
    new, groups = Params.read(project), hyper.groups()

    def whole(method: str, dataset: str) -> dict[str, Any]:
        return dict(new.resolve(new.spec(dataset, "1/4", method), bfloat16=False).hyper)

    def spell_out(values: dict[str, Any]) -> None:
        for group in groups:
            del values[group]
        for method in new.methods:
            values[method] = whole(method, "custom")
        for dataset, recipe in values["recipes"].items():
            recipe["overrides"] = {
                f"{method}.{key}": value
                for method in new.methods
                for key, value in whole(method, dataset).items()
                if value != values[method][key]
            }

    edit_params(project, spell_out)
    old = Params.read(project)
    assert old.sections("u2pl") == ["u2pl"], "nothing else for DVC to look at"
    for method in new.methods:
        for dataset in new.values["recipes"]:
            for flavor in ("paper", "released"):
                overrides = {"flavor": flavor, "batch": 16, **({"alpha0": 0.4} if "u2pl" in method else {})}
                runs = [p.resolve(p.spec(dataset, "1/4", method, 0, overrides)) for p in (old, new)]
                assert runs[0] == runs[1]


@pytest.mark.parametrize(("method", "line"), [("mt", "mt: {}"), ("suponly", "suponly: {epoch: VALUE}")])
def test_a_method_without_a_section_is_told_what_to_add(tmp_path: Path, method: str, line: str):
    project = make_project(tmp_path)
    edit_params(project, lambda values: values.pop(method))
    params = Params.read(project)
    assert method not in params.methods
    for ask in (
        lambda: params.spec("tiny", "1/4", method),
        lambda: params.resolve(RunSpec("tiny", "1/4", method)),
    ):
        with pytest.raises(
            UsageError, match=rf"^No method called '{method}'\. Only its section.*line: {re.escape(line)}$"
        ):
            ask()


def test_the_sections_of_a_method_are_those_that_its_settings_are_kept_in(params: Params):
    for method in params.methods:
        kept = {home or method for home in homes(hyper.find(method) or Settings).values()} | {method}
        assert set(params.sections(method)) == kept
    assert params.sections("suponly") == ["suponly"]
    assert set(params.sections("cps")) == {"cps", "teacher"}


def test_the_home_of_a_setting_is_the_group_that_declares_it():
    class Narrow(hyper.MeanTeacherSettings):
        ema_decay: Literal[0.5]
        bonus: float

    assert homes(Narrow) == {**homes(hyper.MeanTeacherSettings), "bonus": None}
    assert homes(Narrow)["ema_decay"] == "teacher"
    assert homes(hyper.U2PLSettings)["alpha0"] == "partition"


def test_one_name_is_that_of_one_class_of_settings_and_of_a_method_or_a_group(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(hyper, "_registry", dict(hyper._registry))
    with pytest.raises(ValueError, match="the settings of 'mt' are MeanTeacherSettings, not CutMixSettings"):
        hyper.register("mt", hyper.CutMixSettings)
    with pytest.raises(ValueError, match="'teacher' is the name of a method and of a group"):
        hyper.register("teacher", hyper.SupOnlySettings)


def test_defaults_of_a_methods_class_are_settings_of_its_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    class Mine(hyper.SupOnlySettings):
        bonus: float = 0.5
        classes: list[int] = Field(default_factory=list)

    monkeypatch.setattr(hyper, "_registry", dict(hyper._registry))
    hyper.register("mine", Mine)
    params = written(make_project(tmp_path), ("mine", {"epoch": "labeled"}))
    run = params.resolve(params.spec("tiny", "1/4", "mine", 0, {"bonus": 0.5}))
    assert run.hyper == {"epoch": "labeled", "bonus": 0.5, "classes": []}
    assert run.name == "tiny-1_4-mine-s0"


def test_a_method_may_bring_a_group_of_its_own_and_add_to_one_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    class Bonus(Settings, section="bonus"):
        weight: float

    class Slower(Settings, section="teacher"):
        pause: int

    class Mine(hyper.MeanTeacherSettings, Bonus, Slower):
        pass

    monkeypatch.setattr(hyper, "_registry", dict(hyper._registry))
    hyper.register("mine", Mine)
    project = make_project(tmp_path)
    params = written(project, ("mine", {}), ("bonus", {"weight": 1}), ("teacher", {"pause": 2}))
    params = written(project, ("tiny", {"bonus.weight": 3, "teacher.ema_decay": 0.5}))
    theirs = decided(params, "mt", "tiny")
    assert theirs["ema_decay"] == 0.5
    assert decided(params, "mine", "tiny") == {**theirs, "weight": 3, "pause": 2}
    assert set(params.sections("mine")) == {"mine", "bonus", "teacher", "partition", "unsupervised"}


def test_settings_of_every_method_are_decided_without_torch():
    """What costs two seconds is left out of `u2pl status` and `u2pl plan`."""
    script = (
        "import sys; from u2pl.project import Project; from u2pl.settings import Params; "
        "p = Params.read(Project.find()); "
        "[p.resolve(p.spec('voc', '1/8', m, 0, {'flavor': f}), bfloat16=False) "
        "for m in p.methods for f in p.values['flavors']]; print(*p.methods, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stdout == f"{' '.join(Params.read(Project(REPOSITORY)).methods)} False\n", done.stderr


# ---- names of runs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ({}, "tiny-1_4-u2pl-s0"),
        ({"alpha0": 0.3}, "tiny-1_4-u2pl-alpha0=0.3-s0"),
        ({"lr": 0.1, "alpha0": 0.3}, "tiny-1_4-u2pl-lr=0.1-alpha0=0.3-s0"),
        ({"alpha0": 0.3, "lr": 0.1}, "tiny-1_4-u2pl-lr=0.1-alpha0=0.3-s0"),
        ({"dpa": False}, "tiny-1_4-u2pl-dpa=False-s0"),
    ],
)
def test_a_run_has_a_readable_name_whatever_the_order_of_its_overrides(params: Params, overrides, name: str):
    assert params.resolve(spec(params, **overrides)).name == name


@pytest.mark.parametrize(
    "same", [{"alpha0": 0.2}, {"queue": 40}, {"crop": 32}, {"scale": [0.75, 1.5]}, {"flavor": "paper"}]
)
def test_an_override_equal_to_what_it_overrides_leaves_no_trace_in_the_name(params: Params, same: dict):
    assert params.resolve(spec(params, **same)).name == "tiny-1_4-u2pl-s0"


def test_a_name_is_one_folder_whatever_the_values(params: Params):
    name = params.resolve(spec(params, scale=[0.5, 1.0])).name
    assert Path(name).name == name
    assert " " not in name


# ---- fingerprints ----------------------------------------------------------------------------------------


def test_a_fingerprint_does_not_depend_on_the_order_of_the_facts():
    assert fingerprint({"a": 1, "b": {"c": 2, "d": 3}}) == fingerprint({"b": {"d": 3, "c": 2}, "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})


def test_differences_names_every_leaf_that_differs():
    old, new = {"recipe": {"lr": 0.1, "crop": 32}, "seed": 0}, {"recipe": {"lr": 0.2, "crop": 32}, "extra": 1}
    assert differences(old, new) == ["extra: None -> 1", "recipe.lr: 0.1 -> 0.2", "seed: 0 -> None"]


@given(
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 2)),
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 2)),
)
def test_there_are_differences_exactly_where_fingerprints_differ(old: dict, new: dict):
    assert bool(differences(old, new)) == (fingerprint(old) != fingerprint(new))


# ---- params.yaml ---------------------------------------------------------------------------------------


def section_is(name: str, value: object) -> Callable[[dict[str, Any]], Any]:
    return lambda values: values.update({name: value})


def without(section: str, key: str) -> Callable[[dict[str, Any]], Any]:
    return lambda values: values[section].pop(key)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        *[
            ((lambda values, name=name: values.pop(name)), f"has no section `{name}:`")
            for name in ("default", "splits", "recipe", "recipes", "flavors")
        ],
        *[
            (section_is(name, value), f"`{name}:`, not")
            for name in ("default", "splits", "recipe", "recipes", "flavors")
            for value in ([1], 3, "text", None)
        ],
        *[(section_is("u2pl", value), "`u2pl:`, not") for value in ([1], 3, "text", False)],
        *[(section_is("note", value), "`note:`, not") for value in (1, "text")],
        (without("default", "method"), "no `method:` in its section `default:`"),
        (without("default", "seed"), "no `seed:` in its section `default:`"),
        (without("splits", "seed"), "no `seed:` in its section `splits:`"),
        (without("recipe", "flavor"), "no `flavor:` in its section `recipe:`"),
        (without("recipe", "lr"), "no `lr:` in its section `recipe:`"),
        (without("recipes", "custom"), "no `custom:` in its section `recipes:`"),
        (lambda values: values["recipes"].update(voc=[1]), "`recipes.voc:`, not a list"),
        (lambda values: values["recipes"].update(voc=7), "`recipes.voc:`, not 7"),
        (
            lambda values: values["recipes"]["tiny"].update(overrides=[1]),
            "`recipes.tiny.overrides:`, not a list",
        ),
        (lambda values: values["recipes"]["tiny"]["overrides"].update({"alpha0": 1}), "`alpha0:`"),
        (lambda values: values["recipes"]["tiny"]["overrides"].update({"u2pl.alfa0": 1}), r"`u2pl\.alfa0:`"),
        (lambda values: values["flavors"].update(released=[1]), "`flavors.released:`, not a list"),
        (lambda values: values["default"].update(method=3), "`method:` in its section `default:`, not 3"),
        *[
            (lambda values, section=section, seed=seed: values[section].update(seed=seed), "`seed:`")
            for section in ("default", "splits")
            for seed in (-1, 2**63, 0.5, "one", None, True, [0])
        ],
    ],
)
def test_a_params_yaml_of_another_structure_is_refused_in_a_sentence(tmp_path: Path, change, says: str):
    project = make_project(tmp_path)
    edit_params(project, change)
    with pytest.raises(UserError, match=says) as caught:
        Params.read(project)
    assert str(caught.value).startswith(str(project.params))
    assert str(caught.value).endswith("Mend it, or take it back from git.")


def test_sections_and_overrides_may_be_empty(tmp_path: Path):
    project = make_project(tmp_path)
    edit_params(project, lambda values: values["recipes"].update(voc=None, camvid={"overrides": None}))
    edit_params(project, lambda values: values["flavors"].update(paper=None))
    for dataset in ("voc", "camvid"):
        params = Params.read(project)
        assert params.resolve(params.spec(dataset, "1/4", "u2pl")).flavor == "paper"


@pytest.mark.parametrize("content", [b"a: 1\na: 2", b"caf\xe9: 1", b"1: 2", b"a: &a [*a]"])
def test_a_params_yaml_that_is_ambiguous_or_not_utf_8_is_refused(tmp_path: Path, content: bytes):
    project = make_project(tmp_path)
    project.params.write_bytes(content)
    with pytest.raises(UserError, match="not valid YAML"):
        Params.read(project)


def test_every_key_of_params_yaml_is_read_by_the_settings_of_its_owner():
    from u2pl.methods.registry import _registry

    values = yaml.safe_load((Path(__file__).parents[1] / "params.yaml").read_text())
    owners = {name: set(cls.settings_class.model_fields) for name, cls in _registry.items()}
    owners["recipe"] = set(Recipe.model_fields) | {"flavor"}
    assert methods.names() == Params(values).methods
    at_home: dict[str, set[str]] = {name: set() for name in methods.names()}
    for name, cls in _registry.items():
        for key, home in homes(cls.settings_class).items():
            at_home.setdefault(home or name, set()).add(key)
            assert home or key in values[name], f"{name}.{key}"
    for section, keys in at_home.items():
        assert set(values[section]) - keys <= owners.get(section, set()), section
        assert section in owners or set(values[section]) == keys, section
    owners = at_home | owners
    assert set(values) == {*owners, "default", "splits", "recipes", "flavors"}
    assert set(values["recipe"]) == owners["recipe"]
    assert set(values["default"]) == {"dataset", "split", "method", "seed"}
    assert set(values["splits"]) == {"seed"}
    for dataset, recipe in values["recipes"].items():
        assert set(recipe) <= owners["recipe"] | {"overrides"}, dataset
        for key in recipe.get("overrides", {}):
            section, _, short = key.partition(".")
            assert short in owners[section], key
    full = {f"{owner}.{short}" for owner, fields in owners.items() for short in fields | owners["recipe"]}
    for flavor, changes in values["flavors"].items():
        known = set.union(full, *owners.values()) - {"flavor", "recipe.flavor"}
        assert set(changes) <= known, flavor


@pytest.mark.parametrize("flavor", ["paper", "released"])
def test_every_recipe_suits_every_method_in_either_flavour(flavor: str):

    params = Params.read(Project(REPOSITORY))
    for dataset, recipe in params.values["recipes"].items():
        # Four groups of a batch, as the released flavour has them, are four pairs of images at least.
        one_group = {"replicas": 1} if recipe.get("batch", 16) < 8 else {}
        for name in params.methods:
            resolved = params.resolve(params.spec(dataset, "1/8", name, 0, {"flavor": flavor} | one_group))
            classes = methods.Classes(19, 255, background=True)
            assert methods.settings(name, classes, resolved.recipe, resolved.hyper)
