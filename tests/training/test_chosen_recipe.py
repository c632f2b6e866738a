import shutil
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tiny import draw_tiny
from u2pl_cli.app import run

from u2pl.errors import UserError
from u2pl.files import read_json
from u2pl.project import Project
from u2pl.settings import Params, chosen_recipe_path
from u2pl.training.chosen_recipe import Choice, Encoder, Found, choose, length, ranks

FOUND = Found(
    classes=8,
    labeled=38,
    unlabeled=562,
    height=210,
    width=280,
    largest=280 * 280,
    device="cpu",
    memory=2**34,
    cores=2,
    encoder=Encoder("resnet18", "imagenet"),
    rarest=0.05,
)


def values(choices: list[Choice]) -> dict[str, object]:
    return {choice.key.removeprefix("overrides."): choice.value for choice in choices}


@given(
    classes=st.integers(2, 255),
    labeled=st.integers(2, 500),
    side=st.tuples(st.integers(16, 6000), st.integers(16, 6000)),
    device=st.sampled_from(["cpu", "cuda"]),
    rarest=st.floats(1e-7, 0.5),
    gib=st.integers(1, 140),
    speed=st.floats(1e2, 1e9),
)
def test_whatever_the_data_are_the_recipe_can_be_trained(
    classes: int, labeled: int, side: tuple[int, int], device: str, rarest: float, gib: int, speed: float
) -> None:
    found = Found(
        classes,
        labeled,
        100,
        *side,
        side[0] * side[1],
        device,
        gib * 2**30,
        2,
        Encoder("resnet18", "imagenet"),
        rarest,
    )
    chosen = values(choose(found))
    assert 2 <= chosen["batch"] <= labeled  # type: ignore[operator]
    assert chosen["crop"] >= 33 and chosen["crop"] % 32 == 1  # type: ignore[operator]
    assert 0 < chosen["resize"] <= 1  # type: ignore[operator]
    low, high = chosen["contrast.r_l"], chosen["contrast.r_h"]
    assert 1 <= low < classes and low < high  # type: ignore[operator]
    assert (high < classes or classes == 2) and max(chosen["cct.context"]) < classes  # type: ignore
    long = values(length(found, chosen["batch"], chosen["crop"], speed))  # type: ignore[arg-type]
    assert long["epochs"] >= 4 and long["teacher.warm_start_epochs"] < long["epochs"]  # type: ignore[operator]
    assert long["validate_every"] <= long["epochs"]  # type: ignore[operator]


def test_a_rare_class_is_heard_of() -> None:
    chosen = values(choose(Found(**{**FOUND.__dict__, "rarest": 0.0034})))
    assert chosen["loss"] == "ohem" and chosen["ohem_kept"] == 0.005
    assert "loss" not in values(choose(FOUND))


def test_ranks_are_the_papers_for_its_classes() -> None:
    assert ranks(21) == (3, 20) and ranks(19) == (3, 18) and ranks(2) == (1, 2)


def test_a_faster_machine_trains_longer_up_to_a_limit() -> None:
    steps = [values(length(FOUND, 4, 129, speed))["epochs"] for speed in (1e3, 1e6, 1e9)]
    assert steps[0] < steps[1] <= steps[2]  # type: ignore[operator]
    assert steps[2] * (562 // 4) <= 3000 + 562 // 4  # type: ignore[operator]


def test_one_label_is_too_few() -> None:
    with pytest.raises(UserError, match="1 labelled image is too few"):
        choose(Found(**{**FOUND.__dict__, "labeled": 1}))


@pytest.fixture
def own(tmp_path: Path, tiny_template: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Project, Path]:
    """A project without the data set, and its description."""
    root = tmp_path / "project"
    root.mkdir()
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(Path(__file__).parents[2] / name, root / name)
    draw_tiny(tmp_path / "pictures")
    (tmp_path / "pictures/tiny.yaml").rename(tmp_path / "pictures/mine.yaml")
    monkeypatch.chdir(root)
    monkeypatch.setenv("U2PL_TRACKING", "none")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return Project(root), tmp_path / "pictures/mine.yaml"


@pytest.mark.slow
def test_a_new_users_own_data_train_at_once_with_settings_that_fit(
    own: tuple[Project, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    project, description = own
    name = yaml.safe_load(description.read_text())["name"]
    assert run(["prepare", "--dataset", str(description), "--split", "1/4"]) == 0
    said = capsys.readouterr().out
    path = chosen_recipe_path(project, name, "1/4")
    chosen = yaml.safe_load(path.read_text())
    assert f"These settings are in {path}, yours to change." in said
    assert "  contrast.r_l=1: of 4 classes" in said and f"  crop={chosen['crop']}: " in said
    spec = Params.read(project).spec(name, "1/4", "u2pl")
    resolved = Params.read(project).resolve(spec)
    assert resolved.recipe.backbone == chosen["backbone"]
    assert resolved.hyper["r_h"] == chosen["overrides"]["contrast.r_h"]
    command = ["train", "--dataset", name, "--split", "1/4", "--limit-batches", "1", "--set", "epochs=2"]
    assert run([*command, "--set", "warm_start_epochs=1"]) == 0
    (folder,) = project.runs.glob("*")
    assert read_json(folder / "metrics.json")["steps"] == 2
    assert read_json(folder / "run.json")["recipe"]["crop"] == chosen["crop"]


def test_what_a_user_has_changed_is_kept_and_used(own: tuple[Project, Path]) -> None:
    project, description = own
    name = yaml.safe_load(description.read_text())["name"]
    path = chosen_recipe_path(project, name, "1/4")
    path.parent.mkdir(parents=True)
    path.write_text("crop: 65\noverrides:\n  contrast.M: 7\n")
    assert run(["prepare", "--dataset", str(description), "--split", "1/4"]) == 0
    assert path.read_text().startswith("crop: 65\n")
    params = Params.read(project)
    resolved = params.resolve(params.spec(name, "1/4", "u2pl"))
    assert resolved.recipe.crop == 65 and resolved.hyper["M"] == 7
    other = params.resolve(params.spec(name, "1/2", "u2pl"))
    assert other.recipe.crop == 513, "another split has settings of its own"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1]", "must hold names and values"),
        ("a: {b", "is not valid YAML"),
        ("overrides: {contrast.Q: 1}", "and there is no such setting"),
        ("cropp: 65", "cropp"),
    ],
)
def test_a_damaged_recipe_is_a_sentence(own: tuple[Project, Path], text: str, words: str) -> None:
    project, _ = own
    path = chosen_recipe_path(project, "mine", "full")
    path.parent.mkdir(parents=True)
    path.write_text(text)
    params = Params.read(project)
    with pytest.raises(UserError, match=words):
        params.resolve(params.spec("mine", None, "u2pl"))


def test_all_labels_are_taken_of_ones_own_data_where_no_split_is_named(own: tuple[Project, Path]) -> None:
    params = Params.read(own[0])
    assert params.spec("mine").split == "full" and params.spec("voc").split == params.default("split")
