"""Trains any method: the loop, one step of it, memory, several processes, ablations, estimates."""
