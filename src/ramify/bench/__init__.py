"""Benchmarks: how fast a network answers here."""
