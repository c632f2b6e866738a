"""Networks: a dilated residual backbone, DeepLabv3+ with two heads, and the EMA teacher."""
