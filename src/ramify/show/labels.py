"""Labels of configurations, made of the few keys that tell them apart."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import PurePath

from ramify.config.rules import Config
from ramify.config.yamltext import to_text
from ramify.show.words import config_values

AT_MOST = 4
"""Keys of a label at most; if they do not tell the groups apart, all differing keys are taken."""

FIRST = (
    *("network.kind", "network.cells", "prune.policy", "prune.criterion", "prune.control", "prune.enabled"),
    *("prune.keep_ratio", "data.source", "network.structure", "network.channels", "growth.mode", "growth.init"),
    *("growth.plan", "growth.freeze", "train.epochs", "train.learning_rate", "prune.epochs", "network.cell"),
    *("network.exit", "data.limit", "data.size", "growth.epochs", "parent"),
)
"""Keys that are preferred in labels, in this order."""

UNPRUNED = "unpruned"


def flat(config: Config) -> dict[str, object]:
    """Every key of ``config`` with its value, but those in which runs of one group may differ."""
    return {key: value for key, value in config_values(config).items() if key not in ("seed", "name", "runs_dir")}


def differing(configs: Sequence[Config]) -> list[str]:
    """The keys in which ``configs`` differ, those of :data:`FIRST` before the others.

    Example:
        >>> from ramify.config.rules import NetworkConfig
        >>> differing([Config(seed=1), Config(seed=2, network=NetworkConfig(channels=8))])
        ['network.channels']
    """
    tables = [flat(config) for config in configs]
    order = [*FIRST, *(key for key in tables[0] if key not in FIRST)]
    return [key for key in order if any(table[key] != tables[0][key] for table in tables)]


def labels(configs: Sequence[Config], varied: Sequence[str] = ()) -> list[str]:
    """A label for each of ``configs``, made of the ``varied`` keys, or else of the fewest that tell them all apart.

    Example:
        >>> from ramify.config.rules import NetworkConfig
        >>> labels([Config(network=NetworkConfig(kind="dense")), Config(), Config(network=NetworkConfig(channels=8))])
        ['dense · 16 channels', 'iterative · 16 channels', 'iterative · 8 channels']
    """
    tables = [flat(config) for config in configs]
    chosen = varied or (_fewest(tables, differing(configs)) if len(configs) > 1 else ())
    words = [list(dict.fromkeys(key_words(key, table) for key in chosen)) for table in tables]
    names = [" · ".join(parts or [str(table["network.kind"])]) for parts, table in zip(words, tables, strict=True)]
    # "unpruned" is left out where the rest of the label is unique.
    brief = [" · ".join(word for word in parts if word != UNPRUNED) for parts in words]
    names = [less if less and brief.count(less) == 1 else name for name, less in zip(names, brief, strict=True)]
    return [f"{name} ({names[: i + 1].count(name)})" if names.count(name) > 1 else name for i, name in enumerate(names)]


def _fewest(tables: Sequence[Mapping[str, object]], candidates: Sequence[str]) -> Sequence[str]:
    """The fewest of ``candidates``, the first ones among equals, by which no two of ``tables`` look the same."""
    for size in range(1, min(AT_MOST, len(candidates)) + 1):
        for chosen in itertools.combinations(candidates, size):
            if len({tuple(key_words(key, table) for key in chosen) for table in tables}) == len(tables):
                return chosen
    return candidates


def key_words(key: str, table: Mapping[str, object]) -> str:
    """The value of a key in a configuration, in a word or two."""
    value = table[key]
    section, _, leaf = key.rpartition(".")
    if section == "prune" and not table["prune.enabled"]:
        return UNPRUNED
    match key:
        case "network.kind" | "network.cells" | "network.cell" | "prune.criterion" | "convert":
            return "not converted" if value is None else str(value)
        case "prune.enabled" | "prune.keep_ratio":
            return f"keep {_plain(table['prune.keep_ratio'])}"
        case "prune.control":
            return "no control" if value == "none" else f"control {value}"
        case "prune.policy":
            return f"{value} pruning"
        case "network.structure":
            assert isinstance(value, tuple)
            return "".join(map(str, value))
        case "network.channels" | "train.epochs":
            return f"{_plain(value)} {leaf}"
        case "growth.mode":
            return f"grown by {'loss' if value == 'loss' else 'schedule'}"
        case "growth.init":
            return f"{value} start"
        case "data.source" | "parent":
            name = PurePath(str(value)).name if value is not None else "none"
            return f"from {name}" if key == "parent" else name
        case _:
            return f"{section} {leaf} {_plain(value)}".strip().replace("_", " ")


def _plain(value: object) -> str:
    if isinstance(value, tuple):
        return "/".join(map(_plain, value))
    return value if isinstance(value, str) else to_text(value)
