"""Output for people: terminal, trackers, reports."""
