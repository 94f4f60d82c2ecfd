"""Output for the terminal: the live view, lines and tables."""
