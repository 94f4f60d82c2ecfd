"""A bench as text: the setup, a table for each batch size, and a summary."""

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
"""Numbers of threads that fit into 80 columns."""


def bench_lines(bench: Bench) -> list[str]:
    """The setup, above the table."""
    machine = bench.machine
    lines = [
        f"{bench.name}: {plural(len(bench.macs), 'exit')} of {' / '.join(map(short, bench.macs))} MACs",
        bench.policy,
        f"pictures: {bench.pictures}",
        f"machine: {machine['processor']}, {plural(int(machine['cores']), 'core')}, {machine['system']}",
        ", ".join(f"{name} {version}" for name, version in bench.versions.items()),
        f"medians of {plural(bench.rounds, 'round')} in turn, ± half the interquartile range",
        f"x: how many times faster than the last exit in {bench.engines[0]}, in the same round",
    ]
    lines += [f"left out: {name} {reason}" for name, reason in bench.left_out.items()]
    return lines


def bench_table(bench: Bench, batch: int, threads: Sequence[int]) -> Table:
    """Exits and policy in every engine for one batch size, with some numbers of threads."""
    columns = ["\nengine", "\nanswers"]
    for count in threads:
        columns += [f"{plural(count, 'thread')}\nms", "\npictures/s", "\nx"]
    result = table(columns, left=(0, 1), tight=True)
    result.title, result.title_justify, result.title_style = f"{plural(batch, 'picture')} at once", "left", "bold"
    exits = len(bench.macs)
    for engine in bench.engines:
        rows = [bench.of(count, batch, engine) for count in threads]
        for at, side in enumerate(zip(*rows, strict=True)):
            name = Text(f"exit {at + 1}", style=exit_color(at, exits)) if at < exits else Text("policy")
            cells = [cell for timing in side for cell in _cells(timing)]
            add(result, engine if at == 0 else "", name, *cells, bold=at == exits)
        result.add_section()
    return result


def bench_tables(bench: Bench) -> list[Table]:
    """All tables, with at most :data:`SIDE_BY_SIDE` numbers of threads each."""
    groups = [bench.threads[at : at + SIDE_BY_SIDE] for at in range(0, len(bench.threads), SIDE_BY_SIDE)]
    return [bench_table(bench, batch, threads) for batch, threads in itertools.product(bench.batches, groups)]


def bench_sentences(bench: Bench) -> list[str]:
    """The summary: where pictures left, the fastest engines, and engines with different answers."""
    lines: list[str] = []
    for left in bench.leaving:
        shares = " / ".join(map(str, left.exits))
        lines.append(f"batch {left.batch}: of {plural(sum(left.exits), 'picture')} leave at each exit: {shares}")
    for batch in bench.batches:
        policies = [timing for timing in bench.timings if timing.exit is None and timing.batch == batch]
        best = max(policies, key=lambda timing: timing.pictures_per_second)
        lines.append(
            f"fastest policy at batch {batch}: {best.engine} with {plural(best.threads, 'thread')}, "
            f"{milliseconds(best.milliseconds)} ms, {best.pictures_per_second:,.0f} pictures/s, {times(best.speedup)}"
        )
    for engine in bench.engines[1:]:
        same = min(timing.same for timing in bench.timings if timing.engine == engine)
        if same < 1:
            lines.append(f"{engine} answers {percent(same)} or more of the pictures as {bench.engines[0]} does")
    return lines


def legend(engines: Iterable[str]) -> list[str]:
    """A description of each engine."""
    return [f"{name}: {ENGINES[name]}" for name in engines]


def milliseconds(value: float) -> str:
    """Three significant digits.

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


def _cells(timing: Timing) -> tuple[str, str, str]:
    spread = 100 * (timing.high - timing.low) / 2 / timing.milliseconds
    time = f"{milliseconds(timing.milliseconds)} ±{spread:.0f}%"
    return time, f"{timing.pictures_per_second:,.0f}", times(timing.speedup)
