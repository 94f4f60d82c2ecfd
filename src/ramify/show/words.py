"""Figures as people write them, the same in every table, line and view."""

import csv
import io
from collections.abc import Iterable, Sequence

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
    """``43_712_000 -> '43.7 M'``, for sizes of which the first digits matter."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if number >= limit:
            scaled = number / (1e3 if unit == "k" else limit)
            return f"{scaled:.1f} {unit}"
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
    if network.has_backbone:
        return f"{network.backbone or network.module}, {plural(network.exits, 'exit')}"
    cells = plural(len(network.structure), "cell")
    widths = "-".join(map(str, network.widths))
    made_of = f"{cells} of {widths} channels" if network.cells == "seed" else f"{cells} of {network.cells}"
    return f"{network.kind}, {made_of}, {plural(network.exits, 'exit')}"


Change = Grew | Widened | GrowthEnded | Pruned
"""Events that change what is trained."""


def change_words(event: Change) -> str:
    """A change in a sentence, as it stands in every log.

    Example:
        >>> change_words(GrowthEnded(epoch=9, reason="the last growth paid 0.1 %"))
        'growth ends; the last growth paid 0.1 %'
    """
    match event:
        case Grew():
            return _growth_words(event)
        case Widened():
            return _widening_words(event)
        case Pruned():
            return _pruning_words(event)
        case GrowthEnded():
            return f"growth ends; {event.reason}"


def _growth_words(event: Grew) -> str:
    """``'grew stage 2: 2 cells and its exit, + 12,001 weights'``."""
    growth = event.growth
    head = "the final classifier" if growth.final else "its exit"
    cells = f"{plural(growth.cells, 'cell')} and {head}" if growth.cells else head
    start = "" if growth.init == "random" else f", {growth.init} start"
    return f"grew stage {growth.stage + 1}: {cells}, + {count(growth.weights)} weights{start}{_why(event.reason)}"


def _widening_words(event: Widened) -> str:
    """``'widened stage 2: inner channels 16 to 24, 16 to 24, + 4,608 weights'``."""
    widening = event.widening
    channels = ", ".join(f"{before} to {after}" for before, after in widening.cells.values())
    added = f"+ {count(widening.weights)} weights"
    return f"widened stage {widening.stage + 1}: inner channels {channels}, {added}{_why(event.reason)}"


def _why(reason: str) -> str:
    # That a list of epochs has this epoch goes without saying.
    return "" if reason.startswith("growth.epochs") else f"; {reason}"


def regrown_words(regrown: Regrown) -> str:
    """``'1,204 moves of 4,264 connections'``: those of one epoch, in which a connection may move more than once."""
    return f"{count(sum(regrown.moved))} moves of {count(sum(regrown.kept))} connections"


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


def config_values(config: Config) -> dict[str, object]:
    """Every key of a configuration, as ``network.channels``, with its value."""
    found: dict[str, object] = {}
    for key, _ in keys():
        value: object = config
        for part in key.split("."):
            value = getattr(value, part)
        found[key] = value
    return found


def csv_lines(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Rows as CSV with a line of names first, and lines that end in a newline alone."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    return text.getvalue()
