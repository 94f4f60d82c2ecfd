"""An analysis of exits as tables and sentences for the terminal. Here exits are counted from 1."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ramify.ops.exits.analysis import Analysis, CurvePoint, Outcome
from ramify.ops.exits.confusion import ConfusionScore
from ramify.show.terminal.table import add, bold, table, titled
from ramify.show.words import count, percent, plural, short

ROWS = 8
"""Points of the curve that are shown."""

_COLUMNS, _SHARED = 8, 6
"""Up to ``_COLUMNS`` exits have a column each; more exits are spread over ``_SHARED`` columns."""

CLASSES = 20
"""Classes that are shown."""

_NAME = 18
"""Characters of a class's name that are shown."""


def analysis_tables(analysis: Analysis) -> RenderableType:
    """All tables of an analysis, within 80 columns; of a network with one exit, the figures of that exit."""
    pictures = plural(analysis.pictures, "picture")
    figures = exit_figures_table(analysis)
    if len(analysis.macs) == 1:
        return Group(*titled(f"The only exit, on {pictures}", figures))
    last = short(analysis.macs[-1])
    leave = "by the policy" if analysis.by_policy else "at the first right exit"
    parts = [
        titled(f"Exits, on {pictures}", figures, "averaged: with the probabilities of all exits before"),
        titled(
            "Leaving early, once the highest probability reaches a threshold",
            curve_table(analysis),
            f"means over all pictures, MACs of the last exit's {last}; exits: % leaving there\n"
            "oracle: each picture leaves at its first right exit, at the last where none is",
        ),
        titled("Overthinking", overthinking_table(analysis), "% of the pictures"),
        titled(
            "Agreement",
            agreement_table(analysis),
            "% of the pictures answered alike; kept: of its right answers, by the last exit",
        ),
        titled(
            f"Classes, leaving {leave}",
            class_table(analysis),
            f"means over its pictures, MACs of the last exit's {last}; exits: % leaving there",
        ),
    ]
    if analysis.confusion_score is not None:
        caption = "the earlier exits' distance from the last: does it find the last one's errors?"
        parts.insert(3, titled("Confusion score", confusion_score_table(analysis.confusion_score), caption))
    return Group(*[line for part in parts for line in (*part, Text())][:-1])


def _sentences(*rows: tuple[str, str]) -> Table:
    """Figures with a sentence each, which wraps beside them."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(justify="right", no_wrap=True, style="bold", min_width=7)
    grid.add_column()
    for row in rows:
        grid.add_row(*row)
    return grid


def exit_figures_table(analysis: Analysis) -> Table:
    """Accuracy of each exit, alone and averaged with those before it, and its cost."""
    times, last = analysis.milliseconds, analysis.macs[-1]
    columns = ["exit", "accuracy", "averaged", "calibration error", "MACs", "of the last", *_latency_head(analysis)]
    made = table(columns, tight=True)
    for i, (accuracy, averaged, curve, macs) in enumerate(
        zip(analysis.accuracy, analysis.averaged, analysis.reliability, analysis.macs, strict=True)
    ):
        figures = (percent(averaged), percent(curve.error), short(macs), percent(macs / last))
        add(made, str(i + 1), bold(percent(accuracy)), *figures, *_latency(times[i] if times else None))
    return made


def curve_table(analysis: Analysis) -> Table:
    """Accuracy against average cost, and where the pictures leave; the oracle, which knows the labels, is last."""
    groups = _groups(len(analysis.macs))

    made = table(["threshold", "accuracy", "MACs", *_latency_head(analysis), *_headers(groups)], tight=True)

    def row(name: str, outcome: Outcome) -> None:
        figures = [percent(outcome.macs / analysis.macs[-1]), *_latency(outcome.milliseconds)]
        add(made, name, bold(percent(outcome.accuracy)), *figures, *_shares(outcome.exits, groups))

    for point in readable_points(analysis.curve):
        row(f"{point.threshold:g}" if point.threshold <= 1 else "above 1", point)
    made.add_section()
    row("oracle", analysis.oracle)
    return made


def readable_points(curve: Sequence[CurvePoint], rows: int = ROWS) -> list[CurvePoint]:
    """At most ``rows >= 3`` points of a curve: the most accurate within each of several evenly spaced budgets of MACs.

    The first is the cheapest, the last is the last exit. Of equally accurate points the cheapest is taken.
    """
    low, high, steps = curve[0].macs, curve[-1].macs, rows - 2
    budgets = [low + (high - low) * i / steps for i in range(steps + 1)]
    affordable = [[point for point in curve if point.macs <= budget] for budget in budgets]
    best = [max(points, key=lambda point: (point.accuracy, -point.macs)) for points in affordable]
    return list(dict.fromkeys([*best, curve[-1]]))


def overthinking_table(analysis: Analysis) -> Table:
    """The shares of wasteful and destructive overthinking, in sentences."""
    shares = analysis.overthinking
    wrong = shares.destructive + shares.never
    wasted = f"{short(shares.wasted_macs)} MACs a picture, {percent(shares.wasted_macs / analysis.macs[-1])}"
    lost = f": {percent(shares.destructive / wrong)} of the last exit's errors" if wrong else ""
    return _sentences(
        (
            percent(shares.wasteful),
            "wasteful: right at an earlier exit and right at the last. What comes after the first right exit is "
            f"wasted, on average {wasted} of the last exit's.",
        ),
        (percent(shares.destructive), f"destructive: right at an earlier exit, wrong at the last{lost}."),
        (percent(shares.late), "right at the last exit only."),
        (percent(shares.never), "wrong at every exit."),
    )


def confusion_score_table(score: ConfusionScore) -> Table:
    """How well disagreement inside a network predicts the errors of its last exit, in sentences."""
    if score.auroc is None or score.confidence_auroc is None:
        nothing = "wrong" if score.wrong is None else "right"
        return _sentences(("-", f"the last exit gets nothing {nothing}, so there is nothing to tell apart."))
    return _sentences(
        (
            f"{score.auroc:.3f}",
            f"AUROC of the confusion score (0.5 is chance): its mean is {score.wrong:+.2f} where the last exit is "
            f"wrong, {score.right:+.2f} where it is right.",
        ),
        (f"{score.confidence_auroc:.3f}", "AUROC of the last exit's own doubt, 1 - its highest probability."),
    )


def agreement_table(analysis: Analysis) -> Table:
    """How often two exits answer alike, and how many right answers of an exit the last exit gets right, too.

    Of more than :data:`_COLUMNS` exits, evenly spaced ones with the last.
    """
    exits = [group[-1] for group in _groups(len(analysis.macs))]
    rows = [
        [
            str(i + 1),
            *("" if i == j else f"{100 * analysis.agreement[i][j]:.1f}" for j in exits),
            "" if i == exits[-1] else percent(analysis.shared[i][-1]),
        ]
        for i in exits
    ]
    return table(["exit", *(str(i + 1) for i in exits), "kept"], rows, tight=True)


def class_table(analysis: Analysis) -> Table:
    """Where the pictures of each class leave, from the cheapest class to the dearest.

    Of more than :data:`CLASSES`, as many of the cheapest as of the dearest; classes without pictures are left out.
    """
    groups = _groups(len(analysis.macs))
    rows: list[list[str]] = []
    for row in sorted((row for row in analysis.by_class if row.macs is not None), key=lambda row: row.macs or 0.0):
        pictures = sum(row.exits)
        share = None if row.macs is None else row.macs / analysis.macs[-1]
        shares = _shares([leaving / pictures for leaving in row.exits], groups)
        rows.append([row.name, count(pictures), percent(share), *shares])
    if len(rows) > CLASSES:
        half = CLASSES // 2
        rows[half:-half] = [[f"({len(rows) - CLASSES} more)"]]
    return table(["class", "pictures", "MACs", *_headers(groups)], rows, tight=True, widest=_NAME)


def _latency_head(analysis: Analysis) -> list[str]:
    return ["latency"] if analysis.milliseconds else []


def _latency(milliseconds: float | None) -> list[str]:
    """The cell of a latency; no cell where it was not measured."""
    return [] if milliseconds is None else [f"{milliseconds:.2f} ms"]


def _groups(exits: int) -> list[range]:
    """The exits of each column: one, or several neighbors."""
    size = 1 if exits <= _COLUMNS else -(-exits // _SHARED)
    return [range(start, min(start + size, exits)) for start in range(0, exits, size)]


def _headers(groups: Sequence[range]) -> list[str]:
    names = [str(group[0] + 1) if len(group) == 1 else f"{group[0] + 1}-{group[-1] + 1}" for group in groups]
    return [f"exit {names[0]}", *names[1:]]


def _shares(shares: Sequence[float], groups: Sequence[range]) -> list[str]:
    """Shares of the pictures in whole percent, one for each column."""
    return [f"{100 * sum(shares[i] for i in group):.0f}" for group in groups]
