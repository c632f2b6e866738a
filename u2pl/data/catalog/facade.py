"""LabelMeFacade: photographs of streets and facades in 8 classes (Fröhlich and Rodner, 2010), with index masks."""

from u2pl.data.description import Description
from u2pl.data.layout import BuiltIn

DATASET = BuiltIn(
    Description(
        name="facade",
        classes=["building", "car", "door", "pavement", "road", "sky", "vegetation", "window"],
        colors=[
            (128, 0, 0),
            (128, 0, 128),
            (128, 128, 0),
            (128, 128, 128),
            (128, 64, 0),
            (0, 128, 128),
            (0, 128, 0),
            (0, 0, 128),
        ],
        ignore_color=(0, 0, 0),
        palette="indices",
    )
)
