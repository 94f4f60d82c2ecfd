"""Groups of runs as one table: for the terminal, as CSV and as LaTeX, each group held against the first one."""

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Group as Tables
from rich.console import RenderableType

from ramify.errors import InputError
from ramify.files import write_atomic
from ramify.show.terminal.groups import LAST, Group, Run, Spread
from ramify.show.terminal.tables import plain_table
from ramify.show.words import short

CONFIDENCE = 0.95
PAIRED, UNPAIRED = "paired t-test", "Welch's t-test"


@dataclass(frozen=True)
class AgainstFirst:
    """A group less another one, in one figure.

    Attributes:
        mean: of the differences, seed by seed where the test is paired.
        low, high: the interval that holds the true difference with a confidence of 95 %; None with one seed.
        p_value: two-sided, not corrected for the number of comparisons; None with one seed, or where all differences
            are the same.
        n: seeds that both have, or runs of the smaller group.
        test: by its name.
    """

    mean: float
    low: float | None
    high: float | None
    p_value: float | None
    n: int
    test: str


def difference(group: Group, other: Group, figure: Callable[[Run], float | None]) -> AgainstFirst | None:
    """``group`` less ``other``: paired over the seeds that both have, else by Welch's test; None without figures.

    Example:
        >>> difference(Group("a", ()), Group("b", ()), lambda run: 1.0) is None
        True
    """
    from scipy import stats

    ours, theirs = (
        {run.seed: value for run in each.finished if (value := figure(run)) is not None} for each in (group, other)
    )
    if not ours or not theirs:
        return None
    shared = sorted(ours.keys() & theirs.keys())
    if len(shared) >= min(2, len(ours), len(theirs)):
        gaps = [ours[seed] - theirs[seed] for seed in shared]
        mean, n = math.fsum(gaps) / len(gaps), len(gaps)
        if n < 2:
            return AgainstFirst(mean, None, None, None, n, PAIRED)
        if max(gaps) == min(gaps):
            return AgainstFirst(mean, mean, mean, None, n, PAIRED)
        found = stats.ttest_1samp(gaps, 0.0)
    else:
        first, second = list(ours.values()), list(theirs.values())
        mean, n = math.fsum(first) / len(first) - math.fsum(second) / len(second), min(len(first), len(second))
        if n < 2 or (max(first) == min(first) and max(second) == min(second)):
            return AgainstFirst(mean, None, None, None, n, UNPAIRED)
        found = stats.ttest_ind(first, second, equal_var=False)
    low, high = found.confidence_interval(CONFIDENCE)
    test = PAIRED if len(shared) >= min(2, len(ours), len(theirs)) else UNPAIRED
    return AgainstFirst(mean, float(low), float(high), float(found.pvalue), n, test)


def exits_of(groups: Sequence[Group]) -> list[int]:
    """The exits of all groups: those before the last from 0 on, then :data:`ramify.show.terminal.groups.LAST`."""
    return [*range(max((len(group.earlier) for group in groups), default=0)), LAST]


def exit_name(exit_: int) -> str:
    """``0 -> 'exit 1'``, ``LAST -> 'last exit'``."""
    return "last exit" if exit_ == LAST else f"exit {exit_ + 1}"


def _against_first(groups: Sequence[Group]) -> list[AgainstFirst | None]:
    return [None, *(difference(group, groups[0], lambda run: run.accuracy_at(LAST)) for group in groups[1:])]


def _mean(found: Spread | None, between: str = " ± ") -> str:
    if found is None:
        return "-"
    mean = f"{100 * found.mean:.2f}"
    return mean if found.deviation is None else f"{mean}{between}{100 * found.deviation:.2f}"


def _points(found: AgainstFirst | None) -> tuple[str, str]:
    if found is None:
        return "", ""
    mean = f"{100 * found.mean:+.2f}"
    if found.low is None or found.high is None:
        return mean, "-"
    p_value = "-" if found.p_value is None else f"{found.p_value:.2g}"
    return f"{mean} [{100 * found.low:+.2f}, {100 * found.high:+.2f}]", p_value


def group_table(groups: Sequence[Group]) -> RenderableType:
    """Test accuracy of each group at each exit in percent; below it the last exits against the first group's."""
    exits = exits_of(groups)
    table = plain_table("group", "n", *map(exit_name, exits), "weights", "MACs")
    for group in groups:
        sizes = [group.spread(lambda run: run.kept), group.macs(LAST)]
        accuracies = [_mean(group.accuracy(exit_)) for exit_ in exits]
        table.add_row(
            group.label, str(len(group.finished)), *accuracies, *(short(size.mean) if size else "-" for size in sizes)
        )
    if len(groups) < 2:
        return table
    compared = plain_table(f"against {groups[0].label}", "last exit, points", "p")
    for group, gap in zip(groups[1:], _against_first(groups)[1:], strict=True):
        compared.add_row(group.label, *_points(gap))
    return Tables(table, "", compared)


def table_sentence(groups: Sequence[Group]) -> str:
    """What the figures of :func:`group_table` are."""
    note = "Test accuracy in percent: mean ± standard deviation (n - 1) over n seeds."
    found = [each for each in _against_first(groups) if each is not None]
    if not found:
        return note
    tests = " or ".join(dict.fromkeys(each.test for each in found))
    return (
        f"{note} Against the first: difference at the last exit in points, its 95 % interval, and p by a two-sided "
        f"{tests}, not corrected for {len(found)} comparison{'' if len(found) == 1 else 's'}."
    )


def group_csv(groups: Sequence[Group]) -> str:
    """A line for each exit of each group, with every figure in full."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    headings = ["group", "seeds", "exit", "mean", "deviation", "n", "macs", "weights"]
    writer.writerow([*headings, "difference", "low", "high", "p", "n_difference", "test"])
    for group in groups:
        for exit_ in exits_of([group]):
            found, macs, kept = group.accuracy(exit_), group.macs(exit_), group.spread(lambda run: run.kept)
            if found is None:
                continue
            figures = [found.mean, found.deviation, found.n, macs and macs.mean, kept and kept.mean]
            gap = None
            if group is not groups[0]:
                gap = difference(group, groups[0], lambda run, exit_=exit_: run.accuracy_at(exit_))  # type: ignore[misc]
            compared = [gap.mean, gap.low, gap.high, gap.p_value, gap.n, gap.test] if gap else [None] * 6
            seeds = " ".join(str(run.seed) for run in group.finished)
            writer.writerow([group.label, seeds, exit_name(exit_), *figures, *compared])
    return text.getvalue()


def groups_json(groups: Sequence[Group]) -> list[dict[str, object]]:
    """The same for programs: for each group its runs, and for each of its exits mean, deviation and difference."""
    lines = list(csv.DictReader(io.StringIO(group_csv(groups))))
    return [
        {
            "group": group.label,
            "runs": [run.name for run in group.runs],
            "exits": [
                {key: value for key, value in line.items() if value and key not in ("group", "seeds")}
                for line in lines
                if line["group"] == group.label
            ],
        }
        for group in groups
    ]


def group_latex(groups: Sequence[Group]) -> str:
    """The figures of :func:`group_table`, as a ``tabular`` for the package booktabs."""
    exits, compared = exits_of(groups), _against_first(groups)
    many = len(groups) > 1
    lines = [
        f"% {table_sentence(groups)}",
        rf"\begin{{tabular}}{{l{'r' * (3 + len(exits) + 2 * many)}}}",
        r"\toprule",
    ]
    heads = ["group", "$n$", *map(exit_name, exits), "weights", "MACs", *(["against the first", "$p$"] if many else [])]
    lines += [" & ".join(heads) + r" \\", r"\midrule"]
    for group, gap in zip(groups, compared, strict=True):
        sizes = [group.spread(lambda run: run.kept), group.macs(LAST)]
        cells = [_mean(group.accuracy(exit_), r" \pm ") for exit_ in exits]
        row = [_latex(group.label), str(len(group.finished)), *(f"${each}$" if each != "-" else "--" for each in cells)]
        row += [short(each.mean) if each else "--" for each in sizes]
        if many:
            points, p_value = _points(gap)
            row += [f"${points}$" if points else "", p_value]
        lines.append(" & ".join(row) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _latex(text: str) -> str:
    for sign in "&%#_{}$":
        text = text.replace(sign, f"\\{sign}")
    return text.replace("·", r"$\cdot$").replace("~", r"\textasciitilde{}")


def plot_groups(groups: Sequence[Group], path: Path) -> None:
    """Accuracy of each exit over its MACs, a line a group with bars of one deviation: SVG, PDF or PNG by its ending.

    Raises:
        InputError: matplotlib is not installed, or the file cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError("--plot: needs matplotlib, which is not installed; pip install ramify[search]") from None
    drawing = Figure(figsize=(6.0, 4.0), dpi=150, layout="constrained")
    FigureCanvasAgg(drawing)
    panel = drawing.subplots()
    for group, marker in zip(groups, "osD^vPX*" * (1 + len(groups) // 8), strict=False):
        found = [(group.macs(exit_), group.accuracy(exit_)) for exit_ in exits_of([group])]
        points = [
            (macs.mean, 100 * right.mean, 100 * (right.deviation or 0)) for macs, right in found if macs and right
        ]
        if points:
            x, y, wide = zip(*points, strict=True)
            panel.errorbar(x, y, yerr=wide, marker=marker, markersize=5, linewidth=1.2, capsize=2.5, label=group.label)
    panel.set_xlabel("MACs")
    panel.set_ylabel("test accuracy (%)")
    panel.grid(visible=True, color="#eceef1", linewidth=0.8)
    panel.spines[["top", "right"]].set_visible(False)
    panel.ticklabel_format(axis="x", style="sci", scilimits=(0, 3))
    panel.legend(frameon=False, fontsize=8)
    try:
        drawing.savefig(path, facecolor="white")
    except (OSError, ValueError) as error:
        raise InputError(f"--plot: {path} cannot be written ({error})") from None


def write_tables(
    groups: Sequence[Group], csv_file: Path | None, latex_file: Path | None, plot: Path | None = None
) -> list[Path]:
    """Write what was asked for, and give the paths."""
    if csv_file is not None:
        write_atomic(csv_file, group_csv(groups).encode())
    if latex_file is not None:
        write_atomic(latex_file, group_latex(groups).encode())
    if plot is not None:
        plot_groups(groups, plot)
    return [path for path in (csv_file, latex_file, plot) if path is not None]
