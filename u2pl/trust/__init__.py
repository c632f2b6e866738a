"""How far a prediction can be believed, and which images and masks should be looked at."""
