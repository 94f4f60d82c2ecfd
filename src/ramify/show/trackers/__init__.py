"""Trackers: TensorBoard and Weights & Biases."""
