from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from engine.tiny import TINY

from u2pl.data.loader import Batch, Batches, Images, Views, validation
from u2pl.data.prepare import prepare
from u2pl.data.prepared import Split, open_split
from u2pl.data.transforms import resize_mask
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
    return resolved(project)


def resolved(project: Project, **overrides: object) -> Recipe:
    """The recipe of data set `tiny` with some settings changed."""
    params = Params.read(project)
    params.values["recipes"]["tiny"] = TINY
    return params.resolve(params.spec("tiny", "1/4", "suponly", 0, overrides)).recipe


def batches(split: Split, recipe: Recipe, start: int = 0, end: int = 8, **changes: object) -> list[Batch]:
    return [views.to(torch.device("cpu")) for views in views_of(split, recipe, start, end, **changes)]


def views_of(split: Split, recipe: Recipe, start: int = 0, end: int = 8, **changes: object) -> list[Views]:
    options = {"seed": 0, "unlabeled": True, "workers": 0, **changes}
    return list(Batches(split, recipe=recipe, start_step=start, end_step=end, **options))  # type: ignore[arg-type]


def same(a: list[Batch], b: list[Batch]) -> bool:
    return len(a) == len(b) and all(
        torch.equal(x, y)
        for one, other in zip(a, b, strict=True)
        for stream, twin in zip(streams(one), streams(other), strict=True)
        for x, y in zip(stream, twin, strict=True)
    )


def streams(batch: Batch) -> list[Images]:
    return [batch.labeled, *([batch.unlabeled] if batch.unlabeled else []), *batch.extra.values()]


def test_a_step_sees_the_same_wherever_one_starts(split: Split, recipe: Recipe) -> None:
    assert same(batches(split, recipe)[5:], batches(split, recipe, start=5))


def test_workers_change_nothing(split: Split, recipe: Recipe) -> None:
    assert same(batches(split, recipe), batches(split, recipe, workers=2))


def test_another_seed_gives_other_batches(split: Split, recipe: Recipe) -> None:
    assert not same(batches(split, recipe), batches(split, recipe, seed=1))


def test_the_labelled_half_is_the_same_with_and_without_the_other(split: Split, recipe: Recipe) -> None:
    alone = batches(split, recipe, unlabeled=False)
    assert all(batch.unlabeled is None for batch in alone)
    assert same([Batch(batch.labeled, None) for batch in batches(split, recipe)], alone)


def test_batches_have_the_shapes_and_types_that_networks_take(split: Split, recipe: Recipe) -> None:
    batch = batches(split, recipe, end=1)[0]
    assert batch.labeled.image.shape == (2, 3, 32, 32) and batch.labeled.image.dtype == torch.float32
    assert batch.labeled.mask.shape == (2, 32, 32) and batch.labeled.mask.dtype == torch.int64
    assert batch.unlabeled is not None and batch.unlabeled.image.shape == (2, 3, 32, 32)
    assert batch.unlabeled.valid.shape == (2, 32, 32)
    assert batch.unlabeled.valid.dtype == torch.bool


@pytest.mark.parametrize("interpolation", ["uint8", "float32"])
def test_workers_hand_over_what_was_interpolated_and_masks_as_bytes(
    project: Project, split: Split, interpolation: str
) -> None:
    (views,) = views_of(split, resolved(project, interpolation=interpolation), end=1)
    assert views.image.shape == (4, 32, 32, 3) and views.image.dtype == getattr(torch, interpolation)
    assert (views.mask.dtype, views.rows.dtype) == (torch.uint8, torch.bool)
    assert views.stream.tolist() == [0, 0, 1, 1]


def test_bytes_and_floats_give_nearly_the_same_batch(project: Project, split: Split) -> None:
    both = [batches(split, resolved(project, interpolation=kind)) for kind in ("uint8", "float32")]
    for one, other in zip(*both, strict=True):
        # A grey level is 1/57 after normalisation.
        torch.testing.assert_close(one.labeled.image, other.labeled.image, atol=1.01 / 57, rtol=0)
        assert torch.equal(one.labeled.mask, other.labeled.mask)
    assert not same(*both)


def test_no_mask_of_an_unlabelled_image_is_opened(project: Project, split: Split) -> None:
    measured = batches(split, resolved(project, unlabeled_truth=True))
    for name in split.unlabeled:
        if split.has_mask(name):
            split.masks[name].write_text("no picture")
    plain = batches(split, resolved(project, unlabeled_truth=False))
    for one, other in zip(plain, measured, strict=True):
        assert one.unlabeled is not None and other.unlabeled is not None and (one.unlabeled.mask == 255).all()
        assert same([one], [other._replace(unlabeled=other.unlabeled._replace(mask=one.unlabeled.mask))])
    with pytest.raises(UserError, match="damaged mask"):
        batches(split, resolved(project, unlabeled_truth=True))


def test_an_image_in_both_lists_keeps_its_mask_where_it_is_labelled(project: Project, split: Split) -> None:
    both = replace(split, unlabeled=split.labeled)
    for batch in batches(both, resolved(project, scale=[1.0, 1.0], unlabeled_truth=False), end=8):
        assert batch.unlabeled is not None and (batch.unlabeled.mask == 255).all()
        assert (batch.labeled.mask != 255).any(dim=2).any(dim=1).all()


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
    truths = [t for b in batches(split, recipe, end=6) for t in b.unlabeled.mask]  # type: ignore[union-attr]
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
    assert ((batch.labeled.mask == 255).sum(dim=(1, 2)) == 32).all()


PADDED = {"resize": 0.25, "scale": [1.0, 1.0]}
"""Pictures of 16 x 16 in the middle of a crop of 32."""


def padding(image_B3HW: torch.Tensor) -> torch.Tensor:
    """Where a batch of PADDED pictures has none, (B, 32, 32)."""
    outside = torch.ones(len(image_B3HW), 32, 32, dtype=torch.bool)
    outside[:, 8:24, 8:24] = False
    assert (image_B3HW.movedim(1, -1)[outside] == 0).all()
    return outside


@pytest.mark.parametrize(("setting", "label"), [("ignore", 255), ("class0", 0)])
def test_the_padding_of_a_labelled_crop_is_ignored_or_class_0(
    project: Project, split: Split, setting: str, label: int
) -> None:
    for batch in batches(split, resolved(project, padding_label=setting, **PADDED)):
        assert (batch.labeled.mask[padding(batch.labeled.image)] == label).all()
        assert batch.unlabeled is not None
        assert (batch.unlabeled.mask[padding(batch.unlabeled.image)] == 255).all()


@pytest.mark.parametrize(("setting", "used"), [("ignore", False), ("use", True)])
def test_the_padding_of_an_unlabelled_crop_takes_part_or_not(
    project: Project, split: Split, setting: str, used: bool
) -> None:
    for batch in batches(split, resolved(project, padding_unlabeled=setting, **PADDED)):
        assert batch.unlabeled is not None
        outside = padding(batch.unlabeled.image)
        assert batch.unlabeled.valid[~outside].all() and (batch.unlabeled.valid[outside] == used).all()
        assert (batch.unlabeled.mask[outside] == 255).all()


# ---- the order of labelled images ------------------------------------------------------------------------


def labeled_order(
    split: Split, recipe: Recipe, monkeypatch: pytest.MonkeyPatch, end: int = 12, **changes: object
) -> list[str]:
    """Names of the labelled images as they are read; with two a step and 12 unlabelled ones, six steps are a pass."""
    seen: list[str] = []
    read = Split.image
    with monkeypatch.context() as patch:
        patch.setattr(Split, "image", lambda self, name: seen.append(name) or read(self, name))
        patch.setattr("u2pl.data.loader.CACHE_BYTES", 0)
        batches(split, recipe, end=end, **changes)
    return [name for name in seen if name in split.labeled]


def test_over_sampled_every_pass_over_the_unlabelled_images_shuffles_one_multiset(
    project: Project, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten unlabelled images and four labelled ones, three times over: two of the twelve are left out."""
    short = replace(split, unlabeled=split.unlabeled[:10])
    order = labeled_order(short, resolved(project, labeled_order="oversampled"), monkeypatch, end=10)
    first, second = order[:10], order[10:]
    assert Counter(first) == Counter(second) and first != second
    assert max(Counter(first).values()) <= 3
    assert len(set(first)) == 4


def test_an_over_sampled_multiset_differs_between_seeds_and_the_default_is_even(
    project: Project, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = replace(split, unlabeled=split.unlabeled[:10])
    over, plain = (resolved(project, labeled_order=order) for order in ("oversampled", "permutations"))
    drawn = [Counter(labeled_order(short, over, monkeypatch, end=5, seed=seed)) for seed in range(8)]
    assert any(one != drawn[0] for one in drawn[1:])
    even = Counter(labeled_order(short, plain, monkeypatch, end=6))
    assert even == dict.fromkeys(split.labeled, 3)


def test_over_sampled_a_step_sees_the_same_wherever_one_starts_and_with_workers(
    project: Project, split: Split
) -> None:
    recipe = resolved(project, labeled_order="oversampled")
    whole = batches(split, recipe)
    assert same(whole[5:], batches(split, recipe, start=5)) and same(whole, batches(split, recipe, workers=2))


def test_without_unlabelled_images_nothing_is_over_sampled(project: Project, split: Split) -> None:
    over, plain = (resolved(project, labeled_order=order) for order in ("oversampled", "permutations"))
    assert same(batches(split, over, unlabeled=False), batches(split, plain, unlabeled=False))
    assert not same(batches(split, over), batches(split, plain))


def test_the_two_flavours_differ_in_padding_and_order(
    project: Project, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    paper, released = (resolved(project, flavor=f, replicas=1, **PADDED) for f in ("paper", "released"))
    for ours, theirs in zip(batches(split, paper), batches(split, released), strict=True):
        assert (ours.labeled.mask[:, 0] == 255).all() and (theirs.labeled.mask[:, 0] == 0).all()
        assert ours.unlabeled is not None and theirs.unlabeled is not None
        assert not ours.unlabeled.valid[:, 0].any() and theirs.unlabeled.valid.all()
    short = replace(split, unlabeled=split.unlabeled[:10])
    paper_order, released_order = (labeled_order(short, r, monkeypatch, end=10) for r in (paper, released))
    assert sorted(Counter(paper_order).values()) == [5, 5, 5, 5]
    assert all(count % 2 == 0 for count in Counter(released_order).values())


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


def test_a_centre_crop_for_validation_is_cut_from_picture_and_mask_alike(
    project: Project, split: Split
) -> None:
    whole = list(validation(split, resolved(project)))
    center = list(validation(split, resolved(project, evaluation="center")))
    for (name, image, mask), (same_name, cropped, cropped_mask) in zip(whole, center, strict=True):
        assert name == same_name and image.shape[2:] == mask.shape == (64, 64)
        assert torch.equal(cropped, image[..., 16:48, 16:48])
        assert torch.equal(cropped_mask, mask[16:48, 16:48])


@pytest.mark.parametrize(("score_padding", "label"), [(False, 255), (True, 0)])
def test_the_padding_of_a_centre_crop_has_the_mean_colour_and_is_ignored_or_class_0(
    project: Project, split: Split, score_padding: bool, label: int
) -> None:
    recipe = resolved(project, evaluation="center", score_padding=score_padding, **PADDED)
    for name, image, mask in validation(split, recipe):
        outside = padding(image)[0]
        assert (mask[outside] == label).all()
        inside = resize_mask(split.mask(name), 0.25)
        assert torch.equal(mask[8:24, 8:24], torch.from_numpy(inside).long())


def test_scoring_the_padding_of_whole_images_changes_nothing(project: Project, split: Split) -> None:
    plain, scored = (list(validation(split, resolved(project, score_padding=s))) for s in (False, True))
    assert all(
        torch.equal(a[1], b[1]) and torch.equal(a[2], b[2]) for a, b in zip(plain, scored, strict=True)
    )
