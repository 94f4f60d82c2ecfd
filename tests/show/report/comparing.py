"""Runs for tests of comparisons, made of thin air."""

from collections.abc import Sequence

from ramify.config.read import read_config
from ramify.config.rules import Config
from ramify.run.summary import recipe
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
    return Run(
        name=name or f"run-{seed}",
        folder=f"/runs/{name or seed}",
        seed=seed,
        config=config.model_copy(update={"seed": seed}),
        recipe=recipe(config),
        trained=4 if finished else 2,
        planned=4,
        exits_planned=config.network.exits,
        accuracy=tuple(accuracy) if finished else (),
        macs=tuple(1000 * (i + 1) for i in range(len(accuracy))),
        kept=kept,
        weights=1000,
        parameters=1100,
        seconds=seconds if finished else None,
        policy=None if policy is None else PolicyPoint(policy, 1500.0, goal),
        unmeasured=unmeasured,
        epochs=tuple((epoch, accuracy[-1] - 0.1 / epoch) for epoch in range(1, 5 if finished else 3)),
        machine=machine,
        versions="ramify 0",
    )
