"""Runs for tests of comparisons, made of thin air."""

from collections.abc import Sequence

from ramify.config.read import read_config
from ramify.config.rules import Config
from ramify.run.evaluate import Score
from ramify.run.summary import ExitSummary, Summary, recipe
from ramify.show.groups import PolicyPoint, Run


def settings(*overrides: str) -> Config:
    return read_config(overrides=list(overrides))


def made(
    config: Config | None = None,
    seed: int = 0,
    accuracy: Sequence[float] = (0.8, 0.9, 0.95, 0.97),
    *,
    name: str | None = None,
    policy: float | None = None,
    seconds: float = 10.0,
    finished: bool = True,
    unmeasured: str | None = None,
    goal: str = "to lose at most 1 point",
    kept: int = 1000,
    machine: str = "cpu",
) -> Run:
    """A run of ``config`` whose exits are right as often as ``accuracy`` says."""
    config = config or Config()
    exits = tuple(
        ExitSummary(0, 1100, 1000, kept, 1000 * (i + 1), None, Score(0.0, right) if finished else None)
        for i, right in enumerate(accuracy)
    )
    summary = Summary(
        name=name or f"run-{seed}",
        folder=f"/runs/{name or seed}",
        seed=seed,
        kind=config.network.kind,
        source=config.data.source,
        recipe=recipe(config),
        parent=config.parent,
        finished=finished,
        epoch=1,
        epochs=4 if finished else 2,
        planned_epochs=4,
        exits_planned=config.network.exits,
        seconds=seconds,
        pictures=None,
        exits=exits,
        stages=(),
        layers={},
        receipt=None,
        versions={"ramify": "0"},
        machine={"device": machine, "precision": "float32", "threads": 1},
    )
    return Run(
        summary=summary,
        config=config.model_copy(update={"seed": seed}),
        policy=None if policy is None else PolicyPoint(policy, 1500.0, goal),
        unmeasured=unmeasured,
        epochs=tuple((epoch, accuracy[-1] - 0.1 / epoch) for epoch in range(1, 5 if finished else 3)),
    )
