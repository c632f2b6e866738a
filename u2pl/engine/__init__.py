"""Training and evaluation of any method: the loop, checkpoints, run folders, scores."""
