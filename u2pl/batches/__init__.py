"""What a step sees: images and masks loaded, augmented and mixed, from the seed and the step alone."""
