"""What runs are called: short whatever is set, one name for one list of settings, and what has a name keeps it."""

import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tiny import REPOSITORY, TINY

from u2pl.errors import UsageError
from u2pl.pipeline import names, resolve
from u2pl.project import Project, is_name, kept_name
from u2pl.settings import LARGEST_SEED, Params, RunSpec, former_name, run_name, says_all
from u2pl.training.ablation import plan_ablation

LONGEST = 100
LONG = {
    "recipe.dropout": 0.25,
    "recipe.head_lr_multiplier": 2.5,
    "recipe.momentum": 0.85,
    "recipe.poly_power": 0.95,
    "recipe.weight_decay": 0.005,
    "u2pl.alpha0": 0.3,
}

plain = st.builds(
    lambda text, times: "a" + text * times, st.text("abXYZ09_.-", min_size=1, max_size=5), st.integers(1, 50)
)
values = st.one_of(
    st.floats(allow_nan=False),
    st.booleans(),
    st.builds(lambda text, times: text * times, st.text(max_size=4), st.integers(1, 250)),
    st.lists(st.integers(0, 9), max_size=4),
)
keys = st.sampled_from(
    [f"{section}.{word}" for section in ("recipe", "u2pl") for word in ["a", "b_c", "lr", "scale", "x1"]]
)
lists = st.dictionaries(keys, values)
seeds = st.integers(0, LARGEST_SEED)


@given(plain, plain.map(lambda text: f"{text}/8"), lists, seeds)
def test_whatever_is_set_a_name_is_short_and_a_word_to_a_shell(
    dataset: str, split: str, changed: dict, seed: int
):
    spec = RunSpec(dataset, split, "u2pl", seed)
    name = run_name(spec, changed)
    assert is_name(name) and len(name.encode()) <= LONGEST
    assert shlex.split(name) == [name] and Path(name).name == name
    if len(former_name(spec, changed).encode()) <= LONGEST:
        assert name == former_name(spec, changed)
    else:
        assert name.endswith(f"-s{seed}")


@given(lists, st.randoms())
def test_the_order_in_which_settings_were_given_names_no_other_run(changed: dict, random):
    shuffled = list(changed.items())
    random.shuffle(shuffled)
    spec = RunSpec("tiny", "1/4", "u2pl")
    assert run_name(spec, dict(shuffled)) == run_name(spec, changed)


@given(st.lists(st.tuples(lists, seeds), min_size=2, max_size=3))
def test_two_lists_of_settings_that_are_long_never_share_a_name(asked: list[tuple[dict, int]]):
    specs = [(RunSpec("tiny", "1/4", "u2pl", seed), LONG | changed) for changed, seed in asked]
    said = {(each.seed, str(sorted((k, str(v)) for k, v in changed.items()))) for each, changed in specs}
    assert len({run_name(*each) for each in specs}) == len(said)


def test_equal_names_in_two_sections_and_two_long_data_sets_are_told_apart():
    def name(changed: dict[str, Any], dataset: str = "tiny") -> str:
        return run_name(RunSpec(dataset, "1/4", "u2pl"), LONG | changed)

    assert name({"recipe.x": 1, "u2pl.y": 2}) != name({"u2pl.x": 1, "recipe.y": 2})
    assert name({}, "a" * 150 + "b") != name({}, "a" * 150 + "c")


def test_a_long_name_begins_as_it_would_and_has_all_that_fits():
    name = run_name(RunSpec("voc", "1/8", "u2pl", 3), LONG | {"recipe.weights": "w/" * 150})
    assert name.startswith("voc-1_8-u2pl-dropout=0.25-head_lr_multiplier=2.5-momentum=0.85-poly_power=0.95-")
    _, digest, seed = name.rsplit("-", 2)
    assert len(digest) == 8 and int(digest, 16) >= 0 and seed == "s3"
    # Of what comes later the shorter is there, what is too long is not.
    short = run_name(RunSpec("voc", "1/8", "u2pl"), {"recipe.weights": "w/" * 150, "u2pl.alpha0": 0.3})
    assert short.startswith("voc-1_8-u2pl-alpha0=0.3-") and "weights" not in short


def test_runs_that_differ_in_their_seeds_alone_share_the_hash():
    first, second = (run_name(RunSpec("voc", "1/8", "u2pl", seed), LONG) for seed in (0, 12))
    assert first.removesuffix("-s0") == second.removesuffix("-s12") and first != second


def test_a_name_says_all_unless_it_is_cut_or_the_users_own():
    spec = RunSpec(
        "voc", "1/8", "u2pl", overrides={"u2pl.alpha0": 0.3, "recipe.weights": "runs/a/weights.pt"}
    )
    assert says_all(run_name(spec, spec.overrides), spec)
    assert not says_all("mine", spec)
    cut = RunSpec("voc", "1/8", "u2pl", overrides=LONG)
    assert not says_all(run_name(cut, LONG), cut)
    replaced = RunSpec("voc", "1/8", "u2pl", overrides={"recipe.scale": [0.5, 1.0]})
    assert not says_all(run_name(replaced, replaced.overrides), replaced)


# ---- names of one's own ----------------------------------------------------------------------------------


@given(st.text())
def test_a_name_of_ones_own_is_taken_as_it_is_or_refused(own: str):
    spec = RunSpec("voc", "1/8", "u2pl", overrides=LONG, name=own)
    if is_name(own):
        assert run_name(spec, LONG) == own
    else:
        with pytest.raises(UsageError, match="--name takes a name of letters"):
            run_name(spec, LONG)


# ---- names of earlier versions ---------------------------------------------------------------------------


@pytest.fixture
def params(tmp_path: Path) -> Params:
    values = yaml.safe_load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))
    values["recipes"]["tiny"] = TINY
    return Params(values, tmp_path)


def test_a_folder_that_an_earlier_version_named_keeps_its_name(params: Params):
    spec = params.spec("tiny", "1/4", "u2pl", 0, LONG)
    new, former = params.resolve(spec, bfloat16=False).names
    assert new == run_name(spec, LONG) != former and len(former) > LONGEST
    runs = Project(params.root).runs
    (runs / former).mkdir(parents=True)
    assert params.resolve(spec, bfloat16=False).name == former
    own = RunSpec("tiny", "1/4", "u2pl", 0, LONG, name="mine")
    assert params.resolve(own, bfloat16=False).name == "mine"
    (runs / new).mkdir()
    assert params.resolve(spec, bfloat16=False).name == new


def test_an_ablation_that_an_earlier_version_recorded_keeps_its_name(params: Params):
    def name() -> str:
        fixed = {key: value for key, value in LONG.items() if key != "u2pl.alpha0"}
        return plan_ablation(params, "alpha0", ["0.1"], dataset="tiny", split="1/4", overrides=fixed).name

    new = name()
    assert is_name(new) and len(new) <= LONGEST and new.startswith("tiny-1_4-u2pl-by-alpha0-")
    former = (
        "tiny-1_4-u2pl-by-alpha0-dropout=0.25-head_lr_multiplier=2.5-momentum=0.85-poly_power=0.95"
        "-weight_decay=0.005-s0"
    )
    (Project(params.root).runs / ".ablations" / former).mkdir(parents=True)
    assert name() == former


def test_a_former_name_counts_where_it_alone_is_there(tmp_path: Path):
    assert kept_name(tmp_path, "new", "old") == "new"
    (tmp_path / "old").mkdir()
    assert kept_name(tmp_path, "new", "old") == "old"
    (tmp_path / "new").mkdir()
    assert kept_name(tmp_path, "new", "old") == "new"


def test_the_plans_that_are_here_have_names_that_can_be_read():
    project = Project(REPOSITORY)
    found = {plan: list(resolve(project, plan).runs) for plan in names(project, "plans")}
    assert all(found.values())
    assert all(len(name) <= LONGEST for runs in found.values() for name in runs)
