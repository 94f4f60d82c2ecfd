"""The record of a run: its folder, checkpoints, events and summary, and measuring its network again."""
