import math
from pathlib import Path

import pytest
import yaml
from engine.tiny import make_project
from hypothesis import example, given
from hypothesis import strategies as st

from u2pl.errors import UsageError, UserError
from u2pl.project import Project
from u2pl.settings import (
    Params,
    Recipe,
    RunSpec,
    differences,
    fingerprint,
    load,
    parse_overrides,
    parse_value,
)


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


# ---- names of settings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("alpha0", "u2pl.alpha0"),
        ("u2pl.alpha0", "u2pl.alpha0"),
        ("lr", "recipe.lr"),
        ("recipe.lr", "recipe.lr"),
    ],
)
def test_a_setting_has_one_full_name(params: Params, short: str, full: str):
    assert params.full_key(short, "u2pl") == full


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
    assert set(params.resolve(RunSpec("tiny", "1/4", "mt")).hyper) == set(params.values["mt"])


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
    values = {key: value for key, value in params.values["recipe"].items() if key != "lr"}
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


@pytest.mark.parametrize("same", [{"alpha0": 0.2}, {"queue": 40}, {"crop": 32}, {"scale": [0.75, 1.5]}])
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


# ---- params.yaml -----------------------------------------------------------------------------------------


def test_every_key_of_params_yaml_is_read_by_the_settings_of_its_owner():
    from u2pl import methods
    from u2pl.methods.base import _registry

    values = yaml.safe_load((Path(__file__).parents[1] / "params.yaml").read_text())
    owners = {name: set(cls.settings_class.model_fields) for name, cls in _registry.items()}
    owners["recipe"] = set(Recipe.model_fields)
    assert methods.names() == Params(values).methods
    for section, fields in owners.items():
        assert set(values[section]) == fields, section
    assert set(values["default"]) == {"dataset", "split", "method", "seed"}
    assert set(values["splits"]) == {"seed"}
    for dataset, recipe in values["recipes"].items():
        assert set(recipe) <= owners["recipe"] | {"overrides"}, dataset
        for key in recipe.get("overrides", {}):
            section, _, short = key.partition(".")
            assert short in owners[section], key


def test_every_recipe_suits_every_method():
    from u2pl import methods

    params = Params(yaml.safe_load((Path(__file__).parents[1] / "params.yaml").read_text()))
    for dataset in params.values["recipes"]:
        for name in params.methods:
            resolved = params.resolve(RunSpec(dataset, "1/8", name))
            classes = methods.Classes(8, 255, background=True)
            assert methods.settings(name, classes, resolved.recipe, resolved.hyper)
