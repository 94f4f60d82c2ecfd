"""The samplers of a search by their names in a space; Optuna is imported when one is used."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

_Limits = Callable[["FrozenTrial"], Sequence[float]] | None
"""By how much a trial misses each constraint; None where the trials carry that themselves."""

_Sampler = Callable[[int, _Limits], "BaseSampler"]
"""A sampler from its seed and the constraints."""

POPULATION = 10
"""Trials of a generation of NSGA-II."""
STARTUP = 8
"""Random trials before a model draws."""


def tpe(seed: int, limits: _Limits) -> "BaseSampler":
    """Tree-structured Parzen estimators of all keys together."""
    from optuna.samplers import TPESampler

    return TPESampler(
        seed=seed,
        n_startup_trials=STARTUP,
        multivariate=True,
        group=True,
        constant_liar=True,
        constraints_func=limits,
    )


def nsgaii(seed: int, limits: _Limits) -> "BaseSampler":
    """NSGA-II."""
    from optuna.samplers import NSGAIISampler

    return NSGAIISampler(population_size=POPULATION, seed=seed, constraints_func=limits)


def gp(seed: int, limits: _Limits) -> "BaseSampler":
    """A Gaussian process."""
    from optuna.samplers import GPSampler

    return GPSampler(seed=seed, n_startup_trials=STARTUP, constraints_func=limits)


def random_draws(seed: int, limits: _Limits) -> "BaseSampler":
    """Draws that do not depend on the record."""
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=seed)


SEARCH_SAMPLERS: dict[str, _Sampler] = {"tpe": tpe, "nsgaii": nsgaii, "gp": gp, "random": random_draws}
"""Every sampler by the name that ``sampler`` of a space takes."""
