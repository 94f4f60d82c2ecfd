"""What a person sees: the live view of a run, plain lines, tables."""
