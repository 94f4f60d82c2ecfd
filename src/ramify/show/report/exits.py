"""The sections on exits: accuracy against cost, where pictures leave, and how far a confidence can be believed."""

from pathlib import Path

from markupsafe import Markup

from ramify.run.readback import Measured
from ramify.show.report.facts import Facts, known
from ramify.show.report.page import html
from ramify.show.report.plot import (
    ACCENT,
    GREY,
    MANY,
    Plot,
    Table,
    Trace,
    bars,
    exit_color,
    exit_symbol,
    faded,
    plot,
    plotly_text,
    scatter,
)
from ramify.show.terminal.tables import threshold_rows
from ramify.show.words import count, percent, short

_CLASSES = 40
"""Classes that are drawn; the table has all of them."""


def cost_section(facts: Facts) -> Markup:
    """Accuracy against average MACs: by threshold, at each exit alone, and by the calibrated policy."""
    measured, _ = known(facts)
    exits = len(measured.analysis.macs)
    rows: list[tuple[object, ...]] = []
    for i, row in enumerate(measured.exits):
        score = row.test or row.valid
        assert score is not None  # it was measured on the one or the other
        time = f"{measured.analysis.milliseconds[i]:.2f} ms" if measured.analysis.milliseconds else ""
        head = html("dot", exit_color(i, exits)) + str(i + 1)
        rows.append((head, short(row.macs), time, count(row.kept), percent(score.top1), percent(score.top3)))
    drawn = _cost_plot(measured) if exits > 1 else None
    thresholds: list[list[str]] = []
    if measured.outcome is not None and measured.policy is not None:
        thresholds = threshold_rows(measured.policy.calibration.policy, measured.outcome.exits)
    return html("run.cost", measured, drawn, Path(measured.source).name, thresholds, rows)


def _cost_plot(measured: Measured) -> Plot:
    analysis, last, outcome = measured.analysis, measured.analysis.macs[-1], measured.outcome
    exits, oracle = len(analysis.macs), analysis.oracle
    times = analysis.milliseconds or (None,) * exits
    alone = zip(range(1, exits + 1), analysis.macs, analysis.accuracy, times, strict=True)
    rows: list[tuple[str, float | None, float, float, float | None]] = [
        *(("threshold", point.threshold, point.macs, point.accuracy, point.milliseconds) for point in analysis.curve),
        *(("exit", *row) for row in alone),
        ("oracle", None, oracle.macs, oracle.accuracy, oracle.milliseconds),
    ]
    if outcome is not None:
        rows.append(("calibrated", None, outcome.macs, outcome.accuracy, outcome.milliseconds))
    colors, symbols = [exit_color(i, exits) for i in range(exits)], [exit_symbol(i) for i in range(exits)]
    star = {"size": 13, "symbol": "star-open", "color": GREY, "line_width": 2}
    ring = {"size": 17, "symbol": "circle-open", "color": ACCENT, "line_width": 3}
    traces: list[Trace] = []
    for kind, name, hover, style in (
        ("threshold", "by threshold", "threshold %{customdata[0]:.4g}", {"line": {"color": GREY, "width": 2}}),
        ("exit", "exits", "exit %{customdata[0]} for every picture", {"size": 12, "color": colors, "symbol": symbols}),
        ("oracle", "oracle", "oracle: each picture at its first right exit", star),
        ("calibrated", "calibrated", "calibrated policy", ring),
    ):
        drawn = [row[1:] for row in rows if row[0] == kind]
        if drawn:
            traces.append(
                scatter(
                    "lines" if kind == "threshold" else "markers",
                    [macs for _, macs, _, _ in drawn],
                    [accuracy for _, _, accuracy, _ in drawn],
                    f"{hover}<br>%{{y:.2%}} right<br>%{{x:.3s}} MACs, %{{customdata[1]:.0%}} of the last exit"
                    "<extra></extra>",
                    name=name,
                    customdata=[[where, macs / last] for where, macs, _, _ in drawn],
                    **(style if kind == "threshold" else {"marker": style}),
                )
            )
    layout = {
        "xaxis": {"title_text": "average MACs", "rangemode": "tozero", "tickformat": "~s"},
        "yaxis": {"title_text": f"accuracy on the {measured.part}", "tickformat": ".1~%"},
    }
    columns = ("what", "threshold or exit", "average MACs", "accuracy", "average milliseconds")
    return plot("accuracy-against-macs", Table(columns, rows), traces, layout)


def leaving_section(facts: Facts) -> Markup:
    """Where the pictures of each class leave, the classes that leave latest on top."""
    measured, _ = known(facts)
    analysis, exits = measured.analysis, len(measured.analysis.macs)
    if exits == 1:
        return html("missing", "The network has one exit: every picture leaves there.")
    # A class without pictures leaves nowhere.
    ordered = sorted(analysis.by_class, key=lambda row: row.macs or 0.0, reverse=True)
    drawn = ordered[:_CLASSES]
    places = list(range(len(drawn)))
    traces = [
        bars(
            [row.exits[i] / max(sum(row.exits), 1) for row in drawn],
            places,
            f"%{{customdata[0]}} of %{{customdata[1]}} pictures, %{{x:.1%}}<extra>exit {i + 1}</extra>",
            orientation="h",
            name=f"exit {i + 1}",
            customdata=[[row.exits[i], sum(row.exits)] for row in drawn],
            marker_color=exit_color(i, exits),
            showlegend=exits <= MANY,
        )
        for i in range(exits)
    ]
    shares = {"tickformat": ".0%", "range": [0, 1.005], "dtick": 0.25}
    names = [plotly_text(row.name, 18) for row in drawn]
    layout = {
        "barmode": "stack",
        "height": 110 + 26 * len(drawn),
        "bargap": 0.28,
        "xaxis": {"title_text": "share of the pictures of the class", **shares},
        "yaxis": {"autorange": "reversed", "tickmode": "array", "tickvals": places, "ticktext": names},
        "legend_traceorder": "normal",
        "margin_r": 28,
    }
    columns = ("class", *(f"exit {i + 1}" for i in range(exits)), "average MACs")
    table = Table(columns, [(row.name, *row.exits, row.macs) for row in ordered])
    figure = plot("leaving-by-class", table, traces, layout)
    return html("run.leaving", measured, figure, len(drawn), exits > MANY)


def reliability_section(facts: Facts) -> Markup:
    """The calibration curve of every exit."""
    curves = known(facts)[0].analysis.reliability
    exits = len(curves)
    diagonal = {"color": GREY, "width": 1, "dash": "dash"}
    traces: list[Trace] = [
        scatter("lines", [0, 1], [0, 1], None, name="perfect", line=diagonal, showlegend=False),
    ]
    for i, curve in enumerate(curves):
        filled = [part for part in curve.bins if part.count]
        most = max(part.count for part in filled)
        traces.append(
            scatter(
                "lines+markers",
                [part.confidence for part in filled],
                [part.accuracy for part in filled],
                "%{x:.1%} sure, %{y:.1%} right<br>%{customdata} pictures"
                f"<extra>exit {i + 1}, error {percent(curve.error)}</extra>",
                name=f"exit {i + 1}: {percent(curve.error)}",
                customdata=[part.count for part in filled],
                line={"color": faded(exit_color(i, exits)), "width": 1.5},
                marker={
                    "symbol": exit_symbol(i),
                    "color": exit_color(i, exits),
                    "opacity": 0.9,
                    # The area says how many pictures a point stands for.
                    "size": [5 + 13 * (part.count / most) ** 0.5 for part in filled],
                },
                showlegend=exits <= MANY,
            )
        )
    layout = {
        "height": 440,
        "xaxis": {"title_text": "mean confidence", "tickformat": ".0%", "range": [-0.02, 1.04]},
        "yaxis": {"title_text": "accuracy", "tickformat": ".0%", "range": [-0.04, 1.06]},
    }
    error = "expected calibration error of the exit"
    columns = ("exit", "from", "to", "pictures", "mean confidence", "accuracy", error)
    rows = [
        (i, part.low, part.high, part.count, part.confidence, part.accuracy, curve.error)
        for i, curve in enumerate(curves, start=1)
        for part in curve.bins
    ]
    return html("run.reliability", curves, plot("reliability", Table(columns, rows), traces, layout), exits > MANY)
