"""Which encoder a recipe names."""

from u2pl.models.backbone import Backbone
from u2pl.models.resnet import ResNetBackbone
from u2pl.settings import TIMM, WORDS_FOR_WEIGHTS, Recipe


def build(recipe: Recipe) -> Backbone:
    """The encoder of a recipe, with ImageNet's weights or random ones; those of a file are given to it afterwards.

    Raises:
        UserError: there is no such encoder, it has no such output stride, or its weights cannot be had.
    """
    weights = recipe.weights if recipe.weights in WORDS_FOR_WEIGHTS else "none"
    if recipe.backbone.startswith(TIMM):
        from u2pl.models.timm_backbone import TimmBackbone  # a second more, for those who want it

        name = recipe.backbone.removeprefix(TIMM)
        return TimmBackbone(name, weights=weights, output_stride=recipe.output_stride)
    return ResNetBackbone(
        recipe.backbone,
        weights=weights,
        stem=recipe.stem,
        output_stride=recipe.output_stride,
        multi_grid=recipe.multi_grid,
        zero_init_residual=recipe.zero_init_residual,
    )
