"""Inference on whole images: in one pass, by sliding windows, with test-time augmentation; and the scores."""
