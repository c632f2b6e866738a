"""Images as networks take them: training batches, augmented and mixed, and validation images as they are scored."""
