"""What finished runs show of themselves, measured and handed over as arrays for figures to draw."""
