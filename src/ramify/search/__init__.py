"""Searching: which networks are worth having, found by workers that may die."""
