"""Groups of runs as one table, compared with the first group: for the terminal, as CSV, LaTeX and a picture."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from rich.console import Group as Tables
from rich.console import RenderableType

from ramify.errors import InputError
from ramify.files import write_atomic
from ramify.show.drawing import axes, save_drawing
from ramify.show.groups import (
    LAST,
    Difference,
    Group,
    Spread,
    accuracy_of,
    difference,
    exit_words,
    exits_of,
    plus_minus,
)
from ramify.show.terminal.table import table
from ramify.show.words import csv_lines, plural, short


def _against_first(groups: Sequence[Group]) -> list[Difference | None]:
    return [None, *(difference(group, groups[0], accuracy_of(LAST)) for group in groups[1:])]


def _mean(spread: Spread | None) -> str:
    return plus_minus(spread, "%").removesuffix(" %")


def _points(gap: Difference | None) -> tuple[str, str]:
    if gap is None:
        return "", ""
    low, high, p_value = gap.interval()
    mean = f"{100 * gap.mean.mean:+.2f}"
    if low is None or high is None:
        return mean, "-"
    return f"{mean} [{100 * low:+.2f}, {100 * high:+.2f}]", "-" if p_value is None else f"{p_value:.2g}"


def _sizes(group: Group) -> list[str]:
    """Weights kept and MACs of the last exit."""
    return [short(size.mean) if size else "-" for size in (group.spread(lambda run: run.last.kept), group.macs(LAST))]


def group_table(groups: Sequence[Group]) -> RenderableType:
    """Test accuracy of each group at each exit in percent; below it the last exits against the first group's."""
    exits = exits_of(groups)
    rows = [
        [group.label, str(len(group.finished)), *(_mean(group.accuracy(exit_)) for exit_ in exits), *_sizes(group)]
        for group in groups
    ]
    accuracies = table(["group", "n", *map(exit_words, exits), "weights", "MACs"], rows)
    if len(groups) < 2:
        return accuracies
    gaps = zip(groups[1:], _against_first(groups)[1:], strict=True)
    compared = [[group.label, *_points(gap)] for group, gap in gaps]
    return Tables(accuracies, "", table([f"against {groups[0].label}", "last exit, points", "p"], compared))


def table_sentence(groups: Sequence[Group]) -> str:
    """The meaning of the figures of :func:`group_table`."""
    note = "Test accuracy in percent: mean ± standard deviation (n - 1) over n seeds."
    gaps = [gap for gap in _against_first(groups) if gap is not None]
    if not gaps:
        return note
    tests = " or ".join(dict.fromkeys(gap.test for gap in gaps))
    return (
        f"{note} Against the first: difference at the last exit in points, its 95 % interval, and p by a two-sided "
        f"{tests}, not corrected for {plural(len(gaps), 'comparison')}."
    )


def group_csv(groups: Sequence[Group]) -> str:
    """A line for each exit of each group, with every figure in full."""
    columns = ["group", "seeds", "exit", "mean", "deviation", "n", "macs", "weights"]
    columns += ["difference", "low", "high", "p", "n_difference", "test"]
    rows: list[list[object]] = []
    for group in groups:
        seeds = " ".join(str(run.seed) for run in group.finished)
        for exit_ in group.exits:
            accuracy, macs, kept = group.accuracy(exit_), group.macs(exit_), group.spread(lambda run: run.last.kept)
            if accuracy is None:
                continue
            gap = None if group is groups[0] else difference(group, groups[0], accuracy_of(exit_))
            figures = [accuracy.mean, accuracy.deviation, accuracy.n, macs and macs.mean, kept and kept.mean]
            compared = [gap.mean.mean, *gap.interval(), min(gap.n), gap.test] if gap else [None] * 6
            rows.append([group.label, seeds, exit_words(exit_), *figures, *compared])
    return csv_lines(columns, rows)


def groups_json(groups: Sequence[Group]) -> list[dict[str, object]]:
    """For programs: for each group its runs, and for each of its exits mean, deviation and difference."""
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
    exits, many = exits_of(groups), len(groups) > 1
    heads = ["group", "$n$", *map(exit_words, exits), "weights", "MACs"]
    heads += ["against the first", "$p$"] if many else []
    lines = [
        f"% {table_sentence(groups)}",
        rf"\begin{{tabular}}{{l{'r' * (3 + len(exits) + 2 * many)}}}",
        r"\toprule",
        " & ".join(heads) + r" \\",
        r"\midrule",
    ]
    for group, gap in zip(groups, _against_first(groups), strict=True):
        means = [_mean(group.accuracy(exit_)).replace("±", r"\pm") for exit_ in exits]
        row = [_latex(group.label), str(len(group.finished)), *("--" if mean == "-" else f"${mean}$" for mean in means)]
        row += ["--" if size == "-" else size for size in _sizes(group)]
        points, p_value = _points(gap)
        row += [f"${points}$" if points else "", p_value] if many else []
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
    drawing, panels = axes((6.0, 4.0))
    panel = panels[0][0]
    for group, marker in zip(groups, "osD^vPX*" * (1 + len(groups) // 8), strict=False):
        points = [
            (macs.mean, 100 * right.mean, 100 * (right.deviation or 0))
            for exit_ in group.exits
            if (macs := group.macs(exit_)) and (right := group.accuracy(exit_))
        ]
        if points:
            x, y, wide = zip(*points, strict=True)
            panel.errorbar(x, y, yerr=wide, marker=marker, markersize=5, linewidth=1.2, capsize=2.5, label=group.label)
    panel.set_xlabel("MACs")
    panel.set_ylabel("test accuracy (%)")
    panel.ticklabel_format(axis="x", style="sci", scilimits=(0, 3))
    panel.legend(frameon=False, fontsize=8)
    save_drawing(drawing, path)


def write_tables(
    groups: Sequence[Group], csv_file: Path | None, latex_file: Path | None, plot: Path | None = None
) -> list[Path]:
    """Write the files that are not None, and return their paths.

    Raises:
        InputError: there is no group.
    """
    if not groups and (csv_file or latex_file or plot):
        raise InputError("--csv, --latex, --plot: got no run; accepted: one or more, as a model folder is none")
    if csv_file is not None:
        write_atomic(csv_file, group_csv(groups).encode())
    if latex_file is not None:
        write_atomic(latex_file, group_latex(groups).encode())
    if plot is not None:
        plot_groups(groups, plot)
    return [path for path in (csv_file, latex_file, plot) if path is not None]
