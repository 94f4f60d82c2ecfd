"""The outcome of a search: the trials that no other beats, its cost, and the importance of the varied keys."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from ramify.search.goals import costs, dominates, feasible
from ramify.search.space import Space
from ramify.search.storage import quiet_optuna
from ramify.search.study import Search
from ramify.search.trial import Trial
from ramify.search.vary import SPECIAL

FEW = 10
"""Trials below which importances are not computed."""


@dataclass(frozen=True)
class Front:
    """The outcome of a search, so far.

    Attributes:
        best: trials that meet the constraints and that no such trial dominates, by their second objective.
        infeasible: trials that miss a constraint.
        waiting: number of trials that are not finished.
        trained: epochs of all trials.
        full: epochs that the same trials would have taken without halving.
    """

    name: str
    space: Space
    best: tuple[Trial, ...]
    dominated: tuple[Trial, ...]
    infeasible: tuple[Trial, ...]
    failed: tuple[Trial, ...]
    waiting: int
    trained: int
    full: int

    @property
    def saved(self) -> float:
        """Share of the epochs that halving has saved."""
        return 1 - self.trained / self.full if self.full else 0.0


def front_of(search: Search) -> Front:
    """The front of the record now; trials that have reached a rung count with their latest results."""
    space, trials = search.space, search.trials()
    with_results = [trial for trial in trials if trial.results and trial.failed is None]
    meeting = [trial for trial in with_results if feasible(trial.values, space.constraints)]
    best = non_dominated(space, meeting)
    axis = space.names[min(1, len(space.names) - 1)]
    return Front(
        name=search.name,
        space=space,
        best=tuple(sorted(best, key=lambda trial: (trial.values[axis], trial.number))),
        dominated=tuple(trial for trial in meeting if trial not in best),
        infeasible=tuple(trial for trial in with_results if trial not in meeting),
        failed=tuple(trial for trial in trials if trial.failed is not None),
        waiting=sum(not trial.finished for trial in trials),
        trained=sum(trial.epochs for trial in trials),
        full=sum(space.epochs if trial.finished and trial.results else trial.epochs for trial in trials),
    )


def non_dominated(space: Space, trials: Sequence[Trial]) -> list[Trial]:
    """Those of ``trials`` that no other of them dominates."""
    points = {trial.number: costs(trial.values, space.objectives) for trial in trials}
    return [
        trial for trial in trials if not any(dominates(points[other.number], points[trial.number]) for other in trials)
    ]


def importances(search: Search) -> dict[str, dict[str, float]]:
    """For each objective, the importance of each entry of ``vary`` by PED-ANOVA.

    Empty with fewer than :data:`FEW` trials; an objective in which all trials are alike is left out.
    """
    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
    from optuna.trial import FrozenTrial, TrialState, create_trial

    objectives = search.space.objectives
    frozen = {trial.number: trial for trial in search.study.get_trials(deepcopy=False)}
    trials = [trial for trial in search.trials() if trial.results and trial.failed is None]
    result: dict[str, dict[str, float]] = {}
    if len(trials) < FEW:
        return result
    with quiet_optuna():
        # It warns of parameters that were drawn only once or twice.
        warnings.simplefilter("ignore", UserWarning)
        study = optuna.create_study(directions=["minimize"] * len(objectives))
        study.add_trials(
            [
                create_trial(
                    state=TrialState.COMPLETE,
                    values=costs(trial.values, objectives),
                    params=frozen[trial.number].params,
                    distributions=frozen[trial.number].distributions,
                )
                for trial in trials
            ]
        )
        for i, objective in enumerate(objectives):

            def cost(trial: FrozenTrial, i: int = i) -> float:
                return float(trial.values[i])

            try:
                shares = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(), target=cost)
            except (RuntimeError, ValueError):
                continue  # all are alike
            by_entry: dict[str, float] = {}
            for drawn, share in shares.items():
                # A special entry draws several numbers, such as structure.cells and structure.gap.1.
                first = drawn.partition(".")[0]
                entry = first if first in SPECIAL else drawn
                by_entry[entry] = by_entry.get(entry, 0.0) + share
            result[objective.name] = by_entry
    return result
