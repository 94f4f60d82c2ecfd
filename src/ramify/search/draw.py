"""From the numbers of a sampler to overrides of the configuration."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import yaml

from ramify.config.keys import dotted
from ramify.config.rescaling import rising
from ramify.config.rules import Config, NetworkConfig
from ramify.config.yamltext import Loader, to_text
from ramify.ops.pruning.policies import POLICIES
from ramify.search.space import Space
from ramify.search.vary import Vary

_DEFAULTS = dotted(Config().model_dump())


class Draws(Protocol):
    """The methods of a trial of Optuna that are used."""

    def suggest_categorical(self, name: str, choices: Sequence[str]) -> str: ...
    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...
    def suggest_int(self, name: str, low: int, high: int) -> int: ...


def suggest(space: Space, trial: Draws) -> list[str]:
    """Overrides for one trial: those of the base, then the drawn ones. Their contradictions are not checked here."""
    given = dict(space.base)
    drawn: list[str] = []

    def put(key: str, value: object) -> None:
        given[key] = value
        drawn.append(f"{key}={to_text(value)}")

    for vary in space.vary:
        values = {**_DEFAULTS, **given}
        if not all(values[key] in accepted for key, accepted in vary.condition):
            continue
        if vary.key == "structure":
            put("network.structure", _structure(vary, trial))
        elif vary.key == "keep_ratio_by_stage":
            if values["prune.enabled"] and POLICIES[str(values["prune.policy"])].by_stage:
                put("prune.keep_ratio", tuple(map(_short, _floats(vary, trial, _exits(given)))))
        elif vary.key == "growth_times":
            growths = _exits(given) - 1
            grows = values["network.kind"] in ("iterative", "dense")
            if growths and grows and values["growth.mode"] == "scheduled":
                epochs = [1 + round(time * space.epochs) for time in sorted(_floats(vary, trial, growths))]
                put("growth.epochs", rising(epochs, 2, space.epochs))
        else:
            put(vary.key, _drawn(vary, trial))
    return [*space.overrides, *drawn]


def _drawn(vary: Vary, trial: Draws) -> object:
    if vary.kind == "choice":
        texts = [to_text(value) for value in vary.values]
        text = trial.suggest_categorical(vary.key, texts)
        return vary.values[texts.index(text)]
    low, high = vary.bounds
    if vary.kind == "int":
        return trial.suggest_int(vary.key, int(low), int(high))
    return _short(trial.suggest_float(vary.key, low, high, log=vary.kind == "log"))


def _floats(vary: Vary, trial: Draws, count: int) -> list[float]:
    (low, high), log = vary.bounds, vary.kind == "log"
    return [trial.suggest_float(f"{vary.key}.{i + 1}", low, high, log=log) for i in range(count)]


def _short(number: float) -> float:
    """Six digits, which can be read and typed again."""
    return float(f"{number:.6g}")


def _structure(vary: Vary, trial: Draws) -> tuple[int, ...]:
    """A number of cells, with internal classifiers at the ends of gaps of drawn widths."""
    ranges = [pair for pair in vary.values if isinstance(pair, tuple)]
    (fewest, most), (least_exits, most_exits) = ranges
    cells = trial.suggest_int("structure.cells", fewest, most)
    # The distribution of a name must not depend on other draws, as samplers compare them.
    exits = min(trial.suggest_int("structure.exits", least_exits, most_exits), cells + 1)
    gaps = [trial.suggest_float(f"structure.gap.{i + 1}", 0.1, 1.0) for i in range(exits)] if exits > 1 else []
    return structure_of_gaps(cells, gaps)


def structure_of_gaps(cells: int, gaps: Sequence[float]) -> tuple[int, ...]:
    """A structure of ``cells`` in which internal classifiers lie ``gaps`` apart, the last gap up to the end.

    Example:
        >>> structure_of_gaps(6, [1.0, 1.0, 1.0])
        (0, 1, 0, 1, 0, 0)
        >>> structure_of_gaps(2, [0.1, 0.1, 1.0])
        (1, 1)
    """
    structure = [0] * cells
    total, done, before = sum(gaps), 0.0, -1
    for i, gap in enumerate(gaps[:-1]):
        done += gap
        left = len(gaps) - 2 - i
        before = min(max(round(done / total * cells) - 1, before + 1), cells - 1 - left)
        structure[before] = 1
    return tuple(structure)


def _exits(values: Mapping[str, object]) -> int:
    """The number of exits of the network of ``values``, those of a published architecture included."""
    network = {key.removeprefix("network."): value for key, value in values.items() if key.startswith("network.")}
    return NetworkConfig.model_validate(network).exits


def as_table(overrides: Sequence[str], space: Space) -> dict[str, object]:
    """Those of ``overrides`` that the space does not fix, as keys and values."""
    fixed = set(space.overrides)
    pairs = [text.partition("=") for text in overrides if text not in fixed]
    return {key: yaml.load(value, Loader=Loader) for key, _, value in pairs}
