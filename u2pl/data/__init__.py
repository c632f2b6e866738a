"""Data sets on disk become batches: descriptions, preparation, splits, augmentation, loading."""
