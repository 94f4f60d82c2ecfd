"""Figures and events as text, the same in every table, line and view."""

import csv
import io
from collections.abc import Iterable, Sequence
from operator import attrgetter

from ramify.config.keys import keys
from ramify.config.rules import Config
from ramify.run.checkpoint import CostUnit
from ramify.run.events import Grew, GrowthEnded, Pruned, Regrown, Widened


def percent(share: float | None) -> str:
    """``0.9861 -> '98.6 %'``; a dash for None."""
    return "-" if share is None else f"{100 * share:.1f} %"


def count(number: float) -> str:
    """``52144 -> '52,144'``."""
    return f"{number:,.0f}"


def short(number: float) -> str:
    """``43_712_000 -> '43.7 M'``."""
    for limit, scale, unit in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if number >= limit:
            return f"{number / scale:.1f} {unit}"
    return count(number)


def amount(cost: float, unit: CostUnit) -> str:
    """A cost with its unit: ``(43_712_000, 'MACs') -> '43.7 M MACs'``."""
    return f"{short(cost)} MACs" if unit == "MACs" else f"{cost:.2f} ms"


def duration(seconds: float) -> str:
    """``75 -> '1:15'``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def plural(number: int, noun: str) -> str:
    """``(1, 'cell') -> '1 cell'``, ``(2, 'cell') -> '2 cells'``."""
    return f"{number} {noun}" if number == 1 else f"{number:,} {noun}s"


def network_words(config: Config) -> str:
    """``'iterative, 7 cells of 16 channels, 4 exits'``; ``'timm/resnet18, 4 exits'``."""
    network = config.network
    exits = plural(network.exits, "exit")
    if network.has_backbone:
        return f"{network.backbone or network.module}, {exits}"
    cells = f"{'-'.join(map(str, network.widths))} channels" if network.cells == "seed" else network.cells
    return f"{network.kind}, {plural(len(network.structure), 'cell')} of {cells}, {exits}"


Change = Grew | Widened | GrowthEnded | Pruned
"""Events that change the network."""


def change_words(event: Change) -> str:
    """A change of the network in a sentence.

    Example:
        >>> change_words(GrowthEnded(epoch=9, reason="the last growth paid 0.1 %"))
        'growth ends; the last growth paid 0.1 %'
    """
    # A growth on a listed epoch needs no reason.
    why = "" if isinstance(event, Pruned) or event.reason.startswith("growth.epochs") else f"; {event.reason}"
    match event:
        case Grew():
            growth = event.growth
            head = "the final classifier" if growth.final else "its exit"
            cells = f"{plural(growth.cells, 'cell')} and {head}" if growth.cells else head
            start = "" if growth.init == "random" else f", {growth.init} start"
            return f"grew stage {growth.stage + 1}: {cells}, + {count(growth.weights)} weights{start}{why}"
        case Widened():
            widening = event.widening
            channels = ", ".join(f"{before} to {after}" for before, after in widening.cells.values())
            added = f"+ {count(widening.weights)} weights"
            return f"widened stage {widening.stage + 1}: inner channels {channels}, {added}{why}"
        case GrowthEnded():
            return f"growth ends; {event.reason}"
        case Pruned():
            return _pruning_words(event)


def _pruning_words(event: Pruned) -> str:
    """``'pruned stage 2 by snip: 4,000 of 8,000 weights kept, 100.0 % before'``."""
    pruning = event.pruning
    numbers = [stage + 1 for stage in pruning.stages]
    stages = f"stage {numbers[0]}" if len(numbers) == 1 else f"stages {numbers[0]} to {numbers[-1]}"
    how = pruning.criterion if pruning.control == "none" else f"{pruning.criterion}, control {pruning.control}"
    kept = f"{count(pruning.after)} of {count(pruning.weights)} weights kept"
    if not pruning.changed:
        return f"pruned {stages} by {how}: nothing changed, {kept} before and after"
    again = ", survivors drawn again" if pruning.reinit else ""
    return f"pruned {stages} by {how}: {kept}, {count(pruning.before)} before{again}"


def regrown_words(regrown: Regrown) -> str:
    """``'1,204 moves of 4,264 connections'``: those of one epoch, in which a connection may move more than once."""
    return f"{count(sum(regrown.moved))} moves of {count(sum(regrown.kept))} connections"


def config_values(config: Config) -> dict[str, object]:
    """Every key of a configuration, as ``network.channels``, with its value."""
    return {key: attrgetter(key)(config) for key, _ in keys()}


def csv_lines(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Rows as CSV below a line of names; None is empty, and a number reads back the same.

    Example:
        >>> csv_lines(("exit", "accuracy"), ((1, 0.5), (2, None)))
        'exit,accuracy\\n1,0.5\\n2,\\n'
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    return text.getvalue()
