"""Configurations: every key once, the rules between keys, and how files and overrides are read."""
