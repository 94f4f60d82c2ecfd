"""How a run unfolds: events, its folder, checkpoints, evaluation and the training loop."""
