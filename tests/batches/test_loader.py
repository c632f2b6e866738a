from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
import torch
from tiny import TINY

from u2pl import processes
from u2pl.batches.loader import Batch, Batches, Choice, CollatedBatch, Images, Stream
from u2pl.batches.transforms import normalise, resize_image, resize_mask
from u2pl.batches.validation import validation
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
    return resolved(project)


def resolved(project: Project, **overrides: object) -> Recipe:
    """The recipe of data set `tiny` with some settings changed."""
    params = Params.read(project)
    params.values["recipes"]["tiny"] = TINY
    return params.resolve(params.spec("tiny", "1/4", "suponly", 0, overrides)).recipe


def batches(split: Split, recipe: Recipe, start: int = 0, end: int = 8, **changes: object) -> list[Batch]:
    return [views.to(torch.device("cpu")) for views in views_of(split, recipe, start, end, **changes)]


def views_of(
    split: Split, recipe: Recipe, start: int = 0, end: int = 8, **changes: object
) -> list[CollatedBatch]:
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


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the pictures that are decoded, in order."""
    names: list[str] = []
    read = Split.image
    monkeypatch.setattr(Split, "image", lambda self, name: names.append(name) or read(self, name))
    return names


def test_every_image_is_seen_once_before_any_is_seen_again(
    split: Split, recipe: Recipe, seen: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("u2pl.batches.loader.CACHE_BYTES", 0)
    batches(split, recipe, end=12, unlabeled=False)
    assert Counter(seen) == dict.fromkeys(split.labeled, 6)
    passes = [tuple(seen[k : k + 4]) for k in range(0, 24, 4)]
    assert all(sorted(one) == split.labeled for one in passes) and len(set(passes)) > 1


def test_pictures_are_decoded_once_while_there_is_room(split: Split, recipe: Recipe, seen: list[str]) -> None:
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
        patch.setattr("u2pl.batches.loader.CACHE_BYTES", 0)
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


# ---- a method's own streams ------------------------------------------------------------------------------


def numbers(found: list[Batch], name: str) -> list[int]:
    """Of one stream, the numbers of its images, step after step."""
    named = [{"labeled": b.labeled, "unlabeled": b.unlabeled, **b.extra} for b in found]
    return [number for images in named for number in images[name].number.tolist()]  # type: ignore[union-attr]


def shown(split: Split, name: str) -> torch.Tensor:
    """The 16 x 16 pixels of a PADDED picture, normalised, and the same mirrored, (2, 3, 16, 16)."""
    image = normalise(torch.from_numpy(resize_image(split.image(name), 0.25))[None])
    return torch.cat([image, image.flip(3)])


def check_pictures(split: Split, names: list[str], images: Images) -> None:
    """Check that images of a PADDED recipe are those that their numbers say."""
    for image, number in zip(images.image, images.number.tolist(), strict=True):
        assert any(torch.equal(image[:, 8:24, 8:24], side) for side in shown(split, names[number]))


def is_blank(images: Images) -> list[bool]:
    return [bool((mask == 255).all()) for mask in images.mask]


@pytest.mark.parametrize("interpolation", ["uint8", "float32"])
@pytest.mark.parametrize(("setting", "used"), [("ignore", False), ("use", True)])
def test_of_a_stream_with_share_one_half_about_half_of_the_images_are_blank(
    project: Project, split: Split, interpolation: str, setting: str, used: bool
) -> None:
    recipe = resolved(project, interpolation=interpolation, padding_unlabeled=setting)
    found = batches(split, recipe, end=50, extra={"paste": Stream(labeled=True, share=0.5)})
    blanks = 0
    for batch in found:
        paste = batch.extra["paste"]
        for k, blank in enumerate(is_blank(paste)):
            blanks += blank
            if blank:
                assert (paste.image[k] == 0).all()
                assert (paste.valid[k] == used).all()
            else:
                assert paste.image[k].any() and paste.valid[k].any()
    assert 35 <= blanks <= 65


def test_the_others_of_it_are_labelled_images_at_the_streams_own_scale(split: Split, recipe: Recipe) -> None:
    paste = Stream(labeled=True, scale=(0.25, 0.25), share=0.5)
    seen = set()
    for batch in batches(split, recipe, end=20, extra={"paste": paste}):
        images = batch.extra["paste"]
        for k, blank in enumerate(is_blank(images)):
            if blank:
                continue
            name = split.labeled[int(images.number[k])]
            seen.add(name)
            # A picture of 64 x 64 at a quarter of its size, in the middle of 32 x 32.
            small = torch.from_numpy(split.mask(name)[::4, ::4].astype(np.int64))
            inside = images.mask[k, 8:24, 8:24]
            assert torch.equal(inside, small) or torch.equal(inside, small.flip(1))
            assert images.valid[k].sum() == 16 * 16 and images.valid[k, 8:24, 8:24].all()
            assert (images.mask[k] != 255).sum() == (small != 255).sum()
    assert seen == set(split.labeled)


def test_a_stream_without_a_scale_of_its_own_has_the_recipes(project: Project, split: Split) -> None:
    recipe = resolved(project, **PADDED)
    for batch in batches(split, recipe, extra={"more": Stream(labeled=True)}):
        assert not is_blank(batch.extra["more"])[0]
        check_pictures(split, split.labeled, batch.extra["more"])


@pytest.mark.parametrize(("name", "labeled"), [("labeled", True), ("unlabeled", False)])
def test_a_second_stream_of_the_same_images_has_an_order_of_its_own(
    split: Split, recipe: Recipe, name: str, labeled: bool
) -> None:
    found = batches(
        split, recipe, end=24, extra={"more": Stream(labeled=labeled), "yet": Stream(labeled=labeled)}
    )
    count = len(split.labeled if labeled else split.unlabeled)
    orders = [numbers(found, stream) for stream in (name, "more", "yet")]
    for order in orders:
        for first in range(0, 48, count):
            assert sorted(order[first : first + count]) == list(range(count))
    pairs = [(one, other) for k, one in enumerate(orders) for other in orders[:k]]
    for one, other in pairs:
        assert one != other
        # Nor does an image always meet the same one.
        assert len(set(zip(one, other, strict=True))) > count


def test_two_streams_of_one_list_show_its_images_each_in_its_own_way(split: Split, recipe: Recipe) -> None:
    single = replace(split, unlabeled=split.unlabeled[:1])
    for batch in batches(single, recipe, extra={"more": Stream(labeled=False)}):
        assert batch.unlabeled is not None
        for one in batch.unlabeled.image:
            assert not any(torch.equal(one, other) for other in batch.extra["more"].image)


def test_another_seed_gives_another_order_to_a_methods_own_stream(split: Split, recipe: Recipe) -> None:
    extra = {"more": Stream(labeled=False)}
    first, second = (batches(split, recipe, seed=seed, extra=extra) for seed in (0, 1))
    assert numbers(first, "more") != numbers(second, "more")


def test_the_number_of_an_image_is_its_place_in_the_list_that_it_is_drawn_from(
    project: Project, split: Split
) -> None:
    extra = {"more": Stream(labeled=False), "paste": Stream(labeled=True)}
    for batch in batches(split, resolved(project, **PADDED), extra=extra):
        assert batch.unlabeled is not None
        check_pictures(split, split.labeled, batch.labeled)
        check_pictures(split, split.unlabeled, batch.unlabeled)
        check_pictures(split, split.unlabeled, batch.extra["more"])
        check_pictures(split, split.labeled, batch.extra["paste"])
        assert not any(images.note.any() for images in streams(batch))


class Asking:
    """A method that asks for random images, and remembers what it was asked and what it said."""

    def __init__(self, count: int = 2) -> None:
        self.count = count
        self.images: list[int] = []
        self.draws: list[float] = []
        self.said: list[list[Choice]] = []

    def __call__(self, images: int, rng: np.random.Generator) -> list[Choice]:
        self.images.append(images)
        self.draws.append(rng.random())
        self.said.append([Choice(int(rng.integers(images)), 100 + k) for k in range(self.count)])
        return self.said[-1]


PARTNER = {"partner": Stream(labeled=False, chosen=True)}
OWN = {
    "paste": Stream(labeled=True, scale=(0.1, 2.0), share=0.5),
    **PARTNER,
    "more": Stream(labeled=False),
}
"""As many kinds of streams as there are, the chosen one not the last."""


@pytest.mark.parametrize("labeled", [True, False])
def test_the_images_that_a_method_chooses_come_with_their_numbers_and_notes(
    project: Project, split: Split, labeled: bool
) -> None:
    asking, extra = Asking(), {"partner": Stream(labeled=labeled, chosen=True)}
    found = batches(split, resolved(project, **PADDED), extra=extra, choose=asking)
    names = split.labeled if labeled else split.unlabeled
    assert asking.images == [len(names)] * 8
    for batch, said in zip(found, asking.said, strict=True):
        partner = batch.extra["partner"]
        assert [
            Choice(*pair) for pair in zip(partner.number.tolist(), partner.note.tolist(), strict=True)
        ] == said
        check_pictures(split, names, partner)


def test_a_method_may_choose_one_image_several_times_and_sees_it_augmented_apart(
    split: Split, recipe: Recipe
) -> None:
    found = batches(split, recipe, extra=PARTNER, choose=lambda images, rng: [Choice(7, 3)] * 2)
    views = [image for batch in found for image in batch.extra["partner"].image]
    assert len({view.numpy().tobytes() for view in views}) == len(views) == 16
    assert numbers(found, "partner") == [7] * 16


@pytest.mark.parametrize("workers", [0, 2])
def test_a_method_chooses_once_a_step_and_not_before_the_step(
    split: Split, recipe: Recipe, workers: int
) -> None:
    """What it knows after one step then decides what the next one sees."""
    asking = Asking()
    steps = Batches(
        split,
        recipe=recipe,
        seed=0,
        start_step=3,
        end_step=8,
        unlabeled=True,
        workers=workers,
        extra=PARTNER,
        choose=asking,
    )
    assert asking.said == []
    for taken, _ in enumerate(steps, 1):
        assert len(asking.said) == taken
    assert len(asking.said) == len(steps) == 5


def test_a_choices_generator_depends_on_seed_and_step_alone(split: Split, recipe: Recipe) -> None:
    whole, later, other = Asking(), Asking(), Asking()
    batches(split, recipe, extra=PARTNER, choose=whole)
    batches(split, recipe, start=5, extra=PARTNER, choose=later)
    batches(split, recipe, seed=1, extra=PARTNER, choose=other)
    assert whole.draws[5:] == later.draws
    assert len({*whole.draws, *other.draws}) == 16

    draws: list[float] = []

    def greedy(images: int, rng: np.random.Generator) -> list[Choice]:
        draws.append(rng.random(1000)[0])
        return [Choice(0, 0)] * 2

    batches(split, recipe, extra=PARTNER, choose=greedy)
    assert draws == whole.draws


def test_with_a_methods_own_streams_a_step_sees_the_same_wherever_one_starts_and_with_workers(
    split: Split, recipe: Recipe
) -> None:
    whole = batches(split, recipe, extra=OWN, choose=Asking())
    assert list(whole[0].extra) == list(OWN)
    assert same(whole[5:], batches(split, recipe, start=5, extra=OWN, choose=Asking()))
    assert same(whole, batches(split, recipe, workers=2, extra=OWN, choose=Asking()))


@pytest.mark.parametrize("unlabeled", [True, False])
@pytest.mark.parametrize("order", ["permutations", "oversampled"])
def test_a_methods_own_streams_change_nothing_about_the_others(
    project: Project, split: Split, unlabeled: bool, order: str
) -> None:
    recipe = resolved(project, labeled_order=order)
    plain = batches(split, recipe, unlabeled=unlabeled)
    more = batches(split, recipe, unlabeled=unlabeled, extra=OWN, choose=Asking())
    assert same(plain, [Batch(batch.labeled, batch.unlabeled) for batch in more])


@pytest.mark.parametrize("chosen_at", [0, 1, 2])
def test_a_chosen_stream_may_stand_anywhere_among_a_methods_own(
    project: Project, split: Split, chosen_at: int
) -> None:
    others = [("paste", Stream(labeled=True)), ("more", Stream(labeled=False))]
    declared = dict([*others[:chosen_at], *PARTNER.items(), *others[chosen_at:]])
    asking = Asking()
    found = batches(split, resolved(project, **PADDED), extra=declared, choose=asking)
    assert numbers(found, "partner") == [choice.number for said in asking.said for choice in said]
    for batch in found:
        assert list(batch.extra) == list(declared)
        check_pictures(split, split.unlabeled, batch.extra["partner"])
        check_pictures(split, split.unlabeled, batch.extra["more"])
        check_pictures(split, split.labeled, batch.extra["paste"])
        assert not is_blank(batch.extra["paste"])[0]


def test_no_mask_of_a_chosen_unlabelled_image_is_opened(project: Project, split: Split) -> None:
    for name in split.unlabeled:
        if split.has_mask(name):
            split.masks[name].write_text("no picture")
    recipe = resolved(project, unlabeled_truth=False)
    for batch in batches(split, recipe, extra=PARTNER, choose=Asking()):
        assert all(is_blank(batch.extra["partner"])) and batch.extra["partner"].image.any()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_that_is_chosen_stops_training_with_its_name(
    split: Split, recipe: Recipe, tiny: Path, workers: int
) -> None:
    path = tiny / f"images/{split.unlabeled[3]}.png"
    path.write_bytes(path.read_bytes()[:2000])

    def ask_for(number: int) -> list[Batch]:
        return batches(
            split,
            recipe,
            unlabeled=False,
            workers=workers,
            extra=PARTNER,
            choose=lambda images, rng: [Choice(0, 0), Choice(number, 0)],
        )

    assert len(ask_for(2)) == 8
    with pytest.raises(UserError, match=rf"{path.name}.*\.$"):
        ask_for(3)


def test_an_image_that_two_threads_read_at_once_takes_its_room_in_memory_once(
    split: Split, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    both, seen, read = Barrier(2), [], Split.image

    def image(self: Split, name: str) -> object:
        seen.append(name)
        if name == split.unlabeled[0]:
            both.wait(timeout=30)
        return read(self, name)

    monkeypatch.setattr(Split, "image", image)
    assert all(split.has_mask(name) for name in split.unlabeled[:2])
    # Room for two pictures and their masks, in this process and in each of two workers.
    monkeypatch.setattr("u2pl.batches.loader.CACHE_BYTES", 3 * 2 * 64 * 64 * 4)
    wanted = iter([0, 1, 1, 1, 1])
    batches(
        split,
        recipe,
        end=5,
        unlabeled=False,
        workers=2,
        extra=PARTNER,
        choose=lambda images, rng: [Choice(next(wanted), 0)] * 2,
    )
    assert seen.count(split.unlabeled[0]) == 2
    assert seen.count(split.unlabeled[1]) <= 2


def of_processes(
    monkeypatch: pytest.MonkeyPatch, size: int, read: Callable[[], list[Batch]]
) -> list[list[Batch]]:
    """What each of several processes reads."""
    found = []
    for rank in range(size):
        with monkeypatch.context() as patch:
            patch.setattr(processes, "size", lambda: size)
            patch.setattr(processes, "rank", lambda rank=rank: rank)
            found.append(read())
    return found


@pytest.mark.parametrize("size", [2, 4])
def test_several_processes_together_read_what_one_reads_and_all_choose_alike(
    project: Project, split: Split, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    recipe, asked = resolved(project, batch=4), []

    def read() -> list[Batch]:
        asked.append(Asking(4))
        return batches(split, recipe, end=4, extra=OWN, choose=asked[-1])

    whole = read()
    parts = of_processes(monkeypatch, size, read)
    for step, batch in enumerate(whole):
        for number, images in enumerate(streams(batch)):
            mine = [streams(part[step])[number] for part in parts]
            assert [len(one.image) for one in mine] == [4 // size] * size
            for found, expected in zip(zip(*mine, strict=True), images, strict=True):
                assert torch.equal(torch.cat(found), expected)
    assert all(one.said == asked[0].said and one.draws == asked[0].draws for one in asked[1:])


def test_a_method_can_choose_the_images_of_one_stream_alone(split: Split, recipe: Recipe) -> None:
    two = {name: Stream(labeled=False, chosen=True) for name in ("one", "other")}
    with pytest.raises(ValueError, match="one stream alone"):
        batches(split, recipe, extra=two, choose=lambda images, rng: [])
