"""The samplers of a search by their names in a space; Optuna is imported when one is used."""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

POPULATION = 10
"""Trials of a generation of NSGA-II."""
STARTUP = 8
"""Random trials before a model draws."""


def tpe(seed: int) -> "BaseSampler":
    """Tree-structured Parzen estimators of all keys together."""
    from optuna.samplers import TPESampler

    return TPESampler(seed=seed, n_startup_trials=STARTUP, multivariate=True, group=True, constant_liar=True)


def nsgaii(seed: int) -> "BaseSampler":
    """NSGA-II."""
    from optuna.samplers import NSGAIISampler

    return NSGAIISampler(population_size=POPULATION, seed=seed)


def gp(seed: int) -> "BaseSampler":
    """A Gaussian process."""
    from optuna.samplers import GPSampler

    return GPSampler(seed=seed, n_startup_trials=STARTUP)


def random_draws(seed: int) -> "BaseSampler":
    """Draws that do not depend on the record."""
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=seed)


_Sampler = Callable[[int], "BaseSampler"]  # from its seed
SEARCH_SAMPLERS: dict[str, _Sampler] = {"tpe": tpe, "nsgaii": nsgaii, "gp": gp, "random": random_draws}
"""Every sampler by the name that ``sampler`` of a space takes."""
