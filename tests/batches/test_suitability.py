from dataclasses import replace
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
from PIL import Image
from tiny import TINY

from u2pl.batches.suitability import check_crop
from u2pl.batches.transforms import AugmentedImage, augment
from u2pl.data.prepare import prepare
from u2pl.data.prepared import Split, open_split
from u2pl.errors import UserError
from u2pl.project import Project
from u2pl.settings import Params, Recipe


@pytest.fixture
def split(project: Project, tiny: Path, tmp_path: Path) -> Split:
    """Its labelled images have 240 x 180 pixels."""
    prepare(project, str(tiny / "tiny.yaml"), "1/4")
    split = open_split(project, "tiny", "1/4")
    picture = tmp_path / "large.png"
    Image.new("RGB", (240, 180), "white").save(picture)
    return replace(split, images=dict.fromkeys(split.images, picture))


def recipe(project: Project, **overrides: object) -> Recipe:
    params = Params.read(project)
    params.values["recipes"]["tiny"] = TINY
    overrides = {"scale": [0.5, 2.0], **overrides}
    return params.resolve(params.spec("tiny", "1/4", "suponly", 0, overrides)).recipe


@pytest.mark.parametrize("crop", [33, 129, 193, 257])
def test_a_crop_about_as_large_as_the_images_is_taken(project: Project, split: Split, crop: int) -> None:
    check_crop(split, recipe(project, crop=crop))


@pytest.mark.parametrize(
    ("crop", "resize", "advice"), [(513, 1.0, "set crop=193 or less"), (129, 0.25, "set crop=65 or less")]
)
def test_a_crop_that_would_be_mostly_padding_is_refused_with_one_that_would_not(
    project: Project, split: Split, crop: int, resize: float, advice: str
) -> None:
    with pytest.raises(UserError, match=rf"about 240 x 180 pixels.*--{advice}") as refused:
        check_crop(split, recipe(project, crop=crop, resize=resize))
    better = int(str(refused.value).partition("crop=")[2].partition(" ")[0])
    check_crop(split, recipe(project, crop=better, resize=resize))


def test_pictures_that_cannot_be_read_are_left_to_the_loader(project: Project, split: Split) -> None:
    gone = replace(split, images=dict.fromkeys(split.images, Path("gone.png")))
    check_crop(gone, recipe(project, crop=513))


def test_the_smallest_crop_is_taken_for_images_of_any_size(project: Project, split: Split) -> None:
    check_crop(split, recipe(project, crop=33, resize=0.02))


@pytest.mark.parametrize("scale", [(0.5, 2.0), (0.5, 0.75), (1.25, 1.5)])
def test_the_share_is_what_crops_show(project: Project, split: Split, scale: tuple[float, float]) -> None:
    rng, image = np.random.default_rng(0), np.full((180, 240, 3), 255, np.uint8)

    def crop() -> AugmentedImage:
        return augment(
            image,
            None,
            crop=513,
            scale=scale,
            interpolation="uint8",
            ignore_index=255,
            padding_label=255,
            rng=rng,
        )

    shown = fmean(
        float(one.rows.float().mean() * one.columns.float().mean()) for one in (crop() for _ in range(300))
    )
    with pytest.raises(UserError) as refused:
        check_crop(split, recipe(project, crop=513, scale=list(scale)))
    said = int(str(refused.value).partition("would be ")[2].partition(" ")[0])
    assert said == pytest.approx(100 * (1 - shown), abs=3)
