"""The colours in which pictures go from the loader to a network: ImageNet's mean 0, its deviation 1.

A backbone whose weights were trained on others turns these into its own (`timm_backbone`); data sets know no colours.
"""

MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)
"""Of ImageNet's pictures, RGB, for values from 0 to 255."""
