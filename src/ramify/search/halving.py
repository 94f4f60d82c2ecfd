"""Successive halving with several objectives.

Trials with consecutive numbers form a cohort. As soon as every trial of a cohort that is still in the race has a result
at a rung, the best ``1 / eta`` of them are promoted to the next one and the others are finished. Cohorts do not wait
for each other. The decision is a function of the record alone.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from ramify.search.goals import costs, dominates
from ramify.search.space import Space
from ramify.search.trial import Trial

NextStep = Literal["train", "wait", "finish"]


def fronts(points: Sequence[tuple[float, tuple[float, ...]]]) -> list[list[int]]:
    """Indices of ``points`` by non-dominated rank, the best first.

    A point that meets the constraints comes before any that does not; of those that miss them, the nearer first.

    Example:
        >>> fronts([(0, (1, 2)), (0, (2, 1)), (0, (2, 2)), (0.5, (0, 0))])
        [[0, 1], [2], [3]]
    """

    def beats(one: tuple[float, tuple[float, ...]], other: tuple[float, tuple[float, ...]]) -> bool:
        if one[0] > 0 or other[0] > 0:
            return one[0] < other[0]
        return dominates(one[1], other[1])

    left, ranked = list(range(len(points))), []
    while left:
        front = [i for i in left if not any(beats(points[j], points[i]) for j in left)]
        ranked.append(front)
        left = [i for i in left if i not in front]
    return ranked


def crowding(points: Sequence[tuple[float, ...]]) -> list[float]:
    """The crowding distance of each of ``points``, infinite at the ends (NSGA-II).

    Example:
        >>> crowding([(0.0, 4.0), (1.0, 1.0), (4.0, 0.0)])
        [inf, 2.0, inf]
    """
    room = [0.0] * len(points)
    for axis in range(len(points[0]) if points else 0):
        order = sorted(range(len(points)), key=lambda i: (points[i][axis], i))
        width = points[order[-1]][axis] - points[order[0]][axis]
        room[order[0]] = room[order[-1]] = math.inf
        if width > 0:
            for before, here, after in zip(order, order[1:], order[2:], strict=False):
                room[here] += (points[after][axis] - points[before][axis]) / width
    return room


def best_points(points: Sequence[tuple[float, tuple[float, ...]]], count: int) -> list[int]:
    """Indices of the best ``count``: by rank, then by crowding distance, then by position."""
    chosen: list[int] = []
    for front in fronts(points):
        room = dict(zip(front, crowding([points[i][1] for i in front]), strict=True))
        chosen += sorted(front, key=lambda i: (-room[i], i))
    return sorted(chosen[:count])


def verdicts(space: Space, trials: Sequence[Trial], planned: int) -> dict[int, tuple[NextStep, int]]:
    """The next step of each trial that is not finished: train up to a rung, wait there, or finish there.

    Args:
        trials: all of the search, by number.
        planned: number of trials of the search, with which the last, smaller cohort is complete.
    """
    steps: dict[int, tuple[NextStep, int]] = {}
    for start in range(0, len(trials), space.cohort):
        members = trials[start : start + space.cohort]
        if all(trial.finished for trial in members):
            continue
        complete = len(members) == space.cohort or start + len(members) >= planned
        race = [trial for trial in members if trial.failed is None]
        for rung in space.rungs:
            arrived = [trial for trial in race if rung in trial.results]
            steps |= {trial.number: ("train", rung) for trial in race if rung not in trial.results}
            steps |= {trial.number: ("wait", rung) for trial in arrived}
            if rung == space.rungs[-1]:
                steps |= {trial.number: ("finish", rung) for trial in arrived}
                break
            # Once a trial was promoted, the choice is made: a later failure promotes no other trial.
            decided = any(later > rung for trial in members for later in trial.results)
            if not decided and (not complete or len(arrived) < len(race) or not arrived):
                break
            compared = [trial for trial in members if rung in trial.results]
            keep = max(1, round(len(compared) / space.eta))
            points = [_point(space, trial.results[rung]) for trial in compared]
            chosen = {compared[i].number for i in best_points(points, keep)}
            steps |= {trial.number: ("finish", rung) for trial in arrived if trial.number not in chosen}
            race = [trial for trial in arrived if trial.number in chosen]
    return {number: step for number, step in steps.items() if not trials[number].finished}


def _point(space: Space, values: Mapping[str, float]) -> tuple[float, tuple[float, ...]]:
    """By how much ``values`` miss the constraints (0: they meet them), and the objectives as costs."""
    missed = sum(max(0.0, constraint.excess(values)) for constraint in space.constraints)
    return missed, costs(values, space.objectives)
