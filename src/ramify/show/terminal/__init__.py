"""What the terminal shows: the live view, lines and tables."""
