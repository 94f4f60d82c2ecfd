"""A trial of a search: from the record, and for samplers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ramify.search.space import Space

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


@dataclass(frozen=True)
class Ancestor:
    """The network of another trial at a rung, of which ``cells`` cells are taken over."""

    trial: int
    rung: int
    cells: int


@dataclass(frozen=True)
class Trial:
    """One trial as the record has it.

    Attributes:
        failed: why it gave no result, else None.
        overrides: its configuration.
        params: the draws of the sampler.
        results: for each rung that it reached, its objectives and constrained values.
        ancestor: None for a fresh network.
        device: on which it was measured.
    """

    number: int
    finished: bool
    failed: str | None
    overrides: tuple[str, ...]
    params: Mapping[str, object]
    results: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    ancestor: Ancestor | None = None
    device: str | None = None

    @property
    def epochs(self) -> int:
        """The last rung that it reached, 0 if none."""
        return max(self.results, default=0)

    @property
    def values(self) -> Mapping[str, float]:
        """Its latest results; empty before the first rung."""
        return self.results[self.epochs] if self.results else {}

    @property
    def name(self) -> str:
        """The name of its run."""
        return trial_name(self.number)


def trial_name(number: int) -> str:
    """The name of a trial's run."""
    return f"trial-{number:04}"


def trial_of(frozen: "FrozenTrial") -> Trial:
    """The trial in a trial of Optuna."""
    attrs = frozen.user_attrs
    results = {int(key.partition(":")[2]): dict(values) for key, values in attrs.items() if key.startswith("rung:")}
    devices = [device for values in results.values() if (device := values.pop("device", None)) is not None]
    # The reason is written before the state: after a death in between the trial is tried again.
    failed = attrs.get("failed", "it was given up") if frozen.state.name in ("FAIL", "PRUNED") else None
    return Trial(
        number=frozen.number,
        finished=frozen.state.is_finished(),
        failed=failed,
        overrides=tuple(attrs.get("overrides", ())),
        params=dict(frozen.params),
        results=dict(sorted(results.items())),
        ancestor=Ancestor(**attrs["ancestor"]) if attrs.get("ancestor") else None,
        device=str(devices[-1]) if devices else None,
    )


def as_seen(space: Space, record: Trial, trial: "FrozenTrial") -> "FrozenTrial":
    """A trial for samplers: complete as soon as it has results, with its constraints."""
    from optuna.trial import TrialState, create_trial

    done = bool(record.results) and record.failed is None
    seen = create_trial(
        state=TrialState.FAIL if record.failed else TrialState.COMPLETE if done else TrialState.RUNNING,
        values=list(map(float, (record.values[name] for name in space.names))) if done else None,
        params=trial.params,
        distributions=trial.distributions,
        system_attrs={key: value for key, value in trial.system_attrs.items() if not key.startswith("constraints")},
    )
    seen.number = seen._trial_id = record.number
    for constraint in space.constraints if record.results else ():
        seen.set_constraint(constraint.text, constraint.excess(record.values))
    return seen
