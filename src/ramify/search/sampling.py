"""The next trial, drawn by a sampler of Optuna from the record; the same record gives the same trial."""

from collections.abc import Container, Sequence
from typing import TYPE_CHECKING

from ramify.config.read import read_config
from ramify.errors import ConfigError, RunError
from ramify.needs import need
from ramify.search.draw import suggest
from ramify.search.goals import directions
from ramify.search.samplers import SEARCH_SAMPLERS
from ramify.search.space import Space
from ramify.search.storage import quiet_optuna
from ramify.seeds import derive

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial, TrialState

REFUSALS = 200
"""Refused draws in a row after which a space is reported as impossible."""


def propose(space: Space, record: "Sequence[FrozenTrial]") -> "tuple[FrozenTrial, list[str], int]":
    """The next trial after ``record``, its overrides, and the number of draws that were refused before it.

    Raises:
        RunError: no draw gives a valid configuration.
    """
    need("search", "optuna")
    reason = ""
    for attempt in range(REFUSALS):
        with quiet_optuna():
            study = _study(space, record, derive(space.seed, "trial", len(record), attempt) % 2**32)
            trial = study.ask()
            overrides = suggest(space, trial)
            drawn = study.get_trials(deepcopy=False)[-1]
        try:
            read_config(overrides=overrides)
        except ConfigError as error:
            reason = error.problems[0].replace(" (command line)", "")
            continue
        return drawn, overrides, attempt
    raise RunError(f"space: {REFUSALS} draws in a row were refused, the last because of {reason}")


def _study(space: Space, record: "Sequence[FrozenTrial]", seed: int) -> "Study":
    """A study in memory that continues ``record`` without copying it."""
    import optuna
    from optuna.storages import InMemoryStorage

    class After(InMemoryStorage):
        """New trials follow ``record``."""

        def create_new_trial(self, study_id: int, template_trial: "FrozenTrial | None" = None) -> int:
            self._max_trial_id = max(self._max_trial_id, len(record) - 1)
            trial_id: int = super().create_new_trial(study_id, template_trial)
            super().get_trial(trial_id).number = trial_id
            return trial_id

        def get_trial(self, trial_id: int) -> "FrozenTrial":
            return record[trial_id] if trial_id < len(record) else super().get_trial(trial_id)

        def get_all_trials(
            self, study_id: int, deepcopy: bool = True, states: "Container[TrialState] | None" = None
        ) -> "list[FrozenTrial]":
            trials = [*record, *super().get_all_trials(study_id, deepcopy=False)]
            return trials if states is None else [trial for trial in trials if trial.state in states]

    sampler = SEARCH_SAMPLERS[space.sampler](seed)
    return optuna.create_study(storage=After(), directions=directions(space.objectives), sampler=sampler)
