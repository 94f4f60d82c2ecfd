"""Searches and sweeps, on workers that may die."""
