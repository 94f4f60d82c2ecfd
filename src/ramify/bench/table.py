"""A bench as text: where and how it was measured, a table for each batch, and what to take from it."""

import itertools
from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text

from ramify.bench.engines import ENGINES
from ramify.bench.measure import Bench, Timing
from ramify.show.report.plot import exit_color
from ramify.show.terminal.table import add, table
from ramify.show.words import percent, plural, short

SIDE_BY_SIDE = 2
"""Numbers of threads that stand side by side in 80 columns."""


def bench_lines(bench: Bench) -> list[str]:
    """What was measured, on what, and how: above the table."""
    machine = bench.machine
    versions = ", ".join(f"{name} {version}" for name, version in bench.versions.items())
    first = bench.engines[0]
    lines = [
        f"{bench.name}: {plural(len(bench.macs), 'exit')} of {' / '.join(map(short, bench.macs))} MACs",
        bench.policy,
        f"pictures: {bench.pictures}",
        f"machine: {machine['processor']}, {plural(int(machine['cores']), 'core')}, {machine['system']}",
        versions,
        f"medians of {plural(bench.rounds, 'round')} in turn, ± half of the middle half of them",
        f"x: how many times faster than the last exit in {first}, in the same round",
    ]
    lines += [f"left out: {name} {reason}" for name, reason in bench.left_out.items()]
    return lines


def bench_table(bench: Bench, batch: int, threads: Sequence[int]) -> Table:
    """Every engine's exits and policy for one size of batch, some numbers of threads side by side."""
    columns = ["\nengine", "\nanswers"]
    for count in threads:
        columns += [f"{plural(count, 'thread')}\nms", "\npictures/s", "\nx"]
    made = table(columns, left=(0, 1), tight=True)
    made.title, made.title_justify, made.title_style = f"{plural(batch, 'picture')} at once", "left", "bold"
    exits = len(bench.macs)
    for engine in bench.engines:
        rows = [bench.of(count, batch, engine) for count in threads]
        for at, side in enumerate(zip(*rows, strict=True)):
            name = Text(f"exit {at + 1}", style=exit_color(at, exits)) if at < exits else Text("policy")
            cells = [cell for each in side for cell in _cells(each)]
            add(made, engine if at == 0 else "", name, *cells, bold=at == exits)
        made.add_section()
    return made


def bench_tables(bench: Bench) -> list[Table]:
    """All of them: for each batch, as few side by side as fit."""
    groups = [bench.threads[at : at + SIDE_BY_SIDE] for at in range(0, len(bench.threads), SIDE_BY_SIDE)]
    return [bench_table(bench, batch, some) for batch, some in itertools.product(bench.batches, groups)]


def bench_sentences(bench: Bench) -> list[str]:
    """What the tables come to: where pictures left, which engine is fastest, who answers otherwise, what to mind."""
    lines: list[str] = []
    for left in bench.leaving:
        shares = " / ".join(map(str, left.exits))
        lines.append(f"batch {left.batch}: of {plural(sum(left.exits), 'picture')} leave at each exit: {shares}")
    policies = [each for each in bench.timings if each.exit is None]
    for batch in bench.batches:
        best = max((each for each in policies if each.batch == batch), key=lambda each: each.pictures_per_second)
        lines.append(
            f"fastest policy at batch {batch}: {best.engine} with {plural(best.threads, 'thread')}, "
            f"{milliseconds(best.milliseconds)} ms, {best.pictures_per_second:,.0f} pictures/s, {times(best.speedup)}"
        )
    for engine in bench.engines[1:]:
        same = [each.same for each in bench.timings if each.engine == engine]
        if min(same) < 1:
            lines.append(f"{engine} answers {percent(min(same))} or more of the pictures as {bench.engines[0]} does")
    return lines


def legend(engines: Iterable[str]) -> list[str]:
    """What each engine is."""
    return [f"{name}: {ENGINES[name]}" for name in engines]


def milliseconds(value: float) -> str:
    """Three digits that matter.

    Example:
        >>> milliseconds(0.04567), milliseconds(3.2), milliseconds(45.67), milliseconds(1234.5)
        ('0.046', '3.20', '45.7', '1,234')
    """
    for limit, digits in ((1, 3), (10, 2), (100, 1)):
        if value < limit:
            return f"{value:.{digits}f}"
    return f"{value:,.0f}"


def times(ratio: float) -> str:
    """``2.314 -> '2.31x'``, ``23.14 -> '23.1x'``."""
    return f"{ratio:.2f}x" if ratio < 10 else f"{ratio:.1f}x"


def _cells(each: Timing) -> tuple[str, str, str]:
    half = (each.high - each.low) / 2
    spread = f"{milliseconds(each.milliseconds)} ±{percent_of(half, each.milliseconds)}"
    return spread, f"{each.pictures_per_second:,.0f}", times(each.speedup)


def percent_of(part: float, whole: float) -> str:
    """``(0.02, 0.4) -> '5%'``, without a blank for narrow columns."""
    return f"{100 * part / whole:.0f}%"
