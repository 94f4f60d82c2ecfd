"""The version of ramify, for files that are written and for the package."""

__version__ = "0.1.0"
