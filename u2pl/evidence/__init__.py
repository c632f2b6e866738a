"""What the paper's figures show, measured of runs and handed over as arrays to be drawn."""
