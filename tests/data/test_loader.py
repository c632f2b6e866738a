from collections import Counter
from pathlib import Path

import pytest
import torch
from engine.tiny import TINY

from u2pl.data.loader import Batch, Batches, validation
from u2pl.data.prepare import prepare
from u2pl.data.prepared import Split, open_split
from u2pl.errors import UserError
from u2pl.project import Project
from u2pl.settings import Params, Recipe


@pytest.fixture
def split(project: Project, tiny: Path) -> Split:
    for name in ("05", "06"):
        (tiny / f"masks/{name}.png").unlink()
    prepare(project, str(tiny / "tiny.yaml"), "1/4")
    return open_split(project, "tiny", "1/4")


@pytest.fixture
def recipe(project: Project) -> Recipe:
    values = {**Params.read(project).values["recipe"], **TINY}
    values.pop("overrides")
    return Recipe(**values)


def batches(split: Split, recipe: Recipe, start: int = 0, end: int = 8, **changes: object) -> list[Batch]:
    options = {"seed": 0, "unlabeled": True, "workers": 0, **changes}
    return list(Batches(split, recipe=recipe, start_step=start, end_step=end, **options))  # type: ignore[arg-type]


def same(a: list[Batch], b: list[Batch]) -> bool:
    return len(a) == len(b) and all(
        torch.equal(x, y)
        for one, other in zip(a, b, strict=True)
        for x, y in zip(one, other, strict=True)
        if x is not None and y is not None
    )


def test_a_step_sees_the_same_wherever_one_starts(split: Split, recipe: Recipe) -> None:
    assert same(batches(split, recipe)[5:], batches(split, recipe, start=5))


def test_workers_change_nothing(split: Split, recipe: Recipe) -> None:
    assert same(batches(split, recipe), batches(split, recipe, workers=2))


def test_another_seed_gives_other_batches(split: Split, recipe: Recipe) -> None:
    assert not same(batches(split, recipe), batches(split, recipe, seed=1))


def test_the_labelled_half_is_the_same_with_and_without_the_other(split: Split, recipe: Recipe) -> None:
    alone = batches(split, recipe, unlabeled=False)
    assert all(batch.unlabeled_image is None and batch.unlabeled_truth is None for batch in alone)
    assert same(
        [b._replace(unlabeled_image=None, unlabeled_truth=None) for b in batches(split, recipe)], alone
    )


def test_batches_have_the_shapes_and_types_that_networks_take(split: Split, recipe: Recipe) -> None:
    batch = batches(split, recipe, end=1)[0]
    assert batch.labeled_image.shape == (2, 3, 32, 32) and batch.labeled_image.dtype == torch.float32
    assert batch.labeled_mask.shape == (2, 32, 32) and batch.labeled_mask.dtype == torch.int64
    assert batch.unlabeled_image is not None and batch.unlabeled_image.shape == (2, 3, 32, 32)


def test_every_image_is_seen_once_before_any_is_seen_again(
    split: Split, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    read = Split.image
    monkeypatch.setattr(Split, "image", lambda self, name: seen.append(name) or read(self, name))
    monkeypatch.setattr("u2pl.data.loader.CACHE_BYTES", 0)
    batches(split, recipe, end=12, unlabeled=False)
    assert Counter(seen) == dict.fromkeys(split.labeled, 6)
    passes = [tuple(seen[k : k + 4]) for k in range(0, 24, 4)]
    assert all(sorted(one) == split.labeled for one in passes) and len(set(passes)) > 1


def test_pictures_are_decoded_once_while_there_is_room(
    split: Split, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    read = Split.image
    monkeypatch.setattr(Split, "image", lambda self, name: seen.append(name) or read(self, name))
    batches(split, recipe, end=12, unlabeled=False)
    assert sorted(seen) == split.labeled


def test_an_unlabelled_image_without_a_mask_has_no_truth(split: Split, recipe: Recipe) -> None:
    truths = [t for b in batches(split, recipe, end=6) for t in b.unlabeled_truth]  # type: ignore[union-attr]
    empty = sum(bool((truth == 255).all()) for truth in truths)
    assert 0 < empty < len(truths)


def test_the_global_random_state_is_left_alone(split: Split, recipe: Recipe) -> None:
    before = torch.get_rng_state()
    batches(split, recipe, end=2)
    assert torch.equal(torch.get_rng_state(), before)


def test_images_are_resized_before_anything_else(split: Split, recipe: Recipe) -> None:
    half = recipe.model_copy(update={"resize": 0.5, "scale": (1.0, 1.0)})
    batch = batches(split, half, end=1)[0]
    # 64 pixels at half their size fill the crop of 32: nothing is padded but the two void rows, now one.
    assert ((batch.labeled_mask == 255).sum(dim=(1, 2)) == 32).all()


def test_too_few_labelled_images_is_a_sentence_with_the_way_out(split: Split, recipe: Recipe) -> None:
    with pytest.raises(
        UserError, match=r"'1/4' of 'tiny' has 4 labelled images, a batch needs 8.*--set batch=4"
    ):
        batches(split, recipe.model_copy(update={"batch": 8}))


def test_a_split_without_unlabelled_images_is_refused_where_they_are_needed(
    project: Project, tiny: Path, recipe: Recipe
) -> None:
    prepare(project, str(tiny / "tiny.yaml"), "full")
    full = open_split(project, "tiny", "full")
    with pytest.raises(UserError, match=r"no unlabelled images.*--method suponly"):
        batches(full, recipe)
    assert len(batches(full, recipe, end=1, unlabeled=False)) == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_stops_training_with_its_name(
    split: Split, recipe: Recipe, tiny: Path, workers: int
) -> None:
    path = tiny / f"images/{split.labeled[0]}.png"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match=path.name):
        batches(split, recipe, workers=workers)


def test_validation_gives_every_image_at_the_recipes_size_and_its_mask_at_its_own(
    split: Split, recipe: Recipe
) -> None:
    found = list(validation(split, recipe.model_copy(update={"resize": 0.5})))
    assert [name for name, _, _ in found] == split.val
    _, image, mask = found[0]
    assert image.shape == (1, 3, 32, 32) and mask.shape == (64, 64) and mask.dtype == torch.int64
