"""Networks: a dilated residual backbone, DeepLabv3+ with two heads, and the EMA teacher."""

from u2pl.models import torchvision_operators as torchvision_operators
