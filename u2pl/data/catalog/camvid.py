"""CamVid: street scenes in 11 classes (Brostow et al., 2008), in the 480 x 360 version with index masks."""

from u2pl.data.description import Description
from u2pl.data.layout import BuiltIn

DATASET = BuiltIn(
    Description(
        name="camvid",
        classes=[
            "sky",
            "building",
            "pole",
            "road",
            "pavement",
            "tree",
            "sign symbol",
            "fence",
            "car",
            "pedestrian",
            "bicyclist",
        ],
        colors=[
            (128, 128, 128),
            (128, 0, 0),
            (192, 192, 128),
            (128, 64, 128),
            (60, 40, 222),
            (128, 128, 0),
            (192, 128, 128),
            (64, 64, 128),
            (64, 0, 128),
            (64, 64, 0),
            (0, 128, 192),
        ],
        ignore_index=11,
        ignore_color=(0, 0, 0),
        palette="indices",
    )
)
