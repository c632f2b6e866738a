"""What goes in and out: predictions for anybody's images, checkpoints of the released code."""
