"""Optional packages: an error that names the extra to install where one is missing."""

import importlib.util

from ramify.errors import InputError


def missing(extra: str, *packages: str) -> str | None:
    """How to install the first of ``packages`` (import names) that is not installed; None if all are.

    Example:
        >>> missing("export", "torch", "no_such")
        "needs the package no-such; install it with: pip install 'ramify[export]'"
    """
    for name in packages:
        if importlib.util.find_spec(name) is None:
            return f"needs the package {name.replace('_', '-')}; install it with: pip install 'ramify[{extra}]'"
    return None


def need(extra: str, *packages: str) -> None:
    """Check that ``packages`` of an extra are installed, without importing them.

    Raises:
        InputError: one is missing.
    """
    sentence = missing(extra, *packages)
    if sentence is not None:
        raise InputError(f"{extra}: {sentence}")
