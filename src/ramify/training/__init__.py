"""Training: the loop, its step, and what a run does between epochs."""
