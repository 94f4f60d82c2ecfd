"""The plots of a comparison: a color and a mark for each group, means with error bars of one standard deviation."""

from collections.abc import Sequence
from dataclasses import dataclass

from ramify.show.groups import Figure, Group, Spread, accuracy_of, exit_words, exits_of, plus_minus
from ramify.show.report.baseline import Compared
from ramify.show.report.plot import GREY, Plot, Table, Trace, Value, bars, faded, plot, plotly_text, scatter

COLORS = ("#3a6fd8", "#d0603a", "#2a9468", "#9a5bc8", "#bd8500", "#2391ab", "#c4487f", "#78838f")
"""Colors of the groups, of middle lightness, which stand out from white and from black. They repeat."""

MARKS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "pentagon", "cross", "x")
"""Marks of the groups by their names in plotly; stars are for policies."""

LETTERS = "●■◆▲▼⬟✚✖"
"""The same marks as letters."""


@dataclass(frozen=True)
class Mark:
    """How a group is drawn: its color, plotly's name of its mark, and a letter that looks like it."""

    color: str
    symbol: str
    letter: str


def mark(group: int) -> Mark:
    """The mark of a group, counted from 0."""
    # Shifted by one for each time that the colors have repeated, so that the pairs do not.
    place = (group + group // len(COLORS)) % len(MARKS)
    return Mark(COLORS[group % len(COLORS)], MARKS[place], LETTERS[place])


def _error_bars(spreads: Sequence[Spread], color: str, factor: float = 1) -> Trace:
    """Error bars of one deviation."""
    return {
        "type": "data",
        "array": [factor * (row.deviation or 0) for row in spreads],
        "color": color,
        "thickness": 1.5,
        "width": 4,
        "visible": any(row.deviation for row in spreads),
    }


def _means(group: int, x: Sequence[float], spreads: Sequence[Spread], hover: str, name: str, **more: object) -> Trace:
    """The means of a group, with their deviations, joined by a line."""
    style = mark(group)
    shown: Trace = {
        "name": plotly_text(name),
        "legendgroup": str(group),
        "line": {"color": style.color, "width": 1.5},
        "marker": {"size": 9, "symbol": style.symbol, "color": style.color},
        "error_y": _error_bars(spreads, style.color),
        "customdata": [[plus_minus(row, "%"), row.n] for row in spreads],
        **more,
    }
    mode = str(shown.pop("mode", "lines+markers"))
    return scatter(mode, x, [row.mean for row in spreads], f"{hover}<extra>%{{fullData.name}}</extra>", **shown)


def _plot(name: str, table: Table, traces: Sequence[Trace], layout: Trace) -> Plot:
    """A figure without a legend of its own: the page has one in HTML."""
    return plot(name, table, traces, {"showlegend": False, **layout})


def _accuracy_axis(means: Sequence[float]) -> Trace:
    near = bool(means) and max(means) - min(means) <= 0.04
    return {"title_text": "test accuracy", "tickformat": ".1%" if near else ".0%"}


def exits_plot(groups: Sequence[Group]) -> Plot:
    """Accuracy of each exit, the last exits of all groups above each other."""
    exits = exits_of(groups)
    traces: list[Trace] = []
    rows: list[tuple[str, str, float, float | None, int]] = []
    for i, group in enumerate(groups):
        shift = (i - (len(groups) - 1) / 2) * min(0.1, 0.6 / len(groups))
        means = [(at + shift, exit_, row) for at, exit_ in enumerate(exits) if (row := group.accuracy(exit_))]
        rows += [(group.label, exit_words(exit_), row.mean, row.deviation, row.n) for _, exit_, row in means]
        dots = [
            (at, value, plotly_text(f"{run.name}, {exit_words(exit_)}"))
            for at, exit_, row in means
            for run in group.finished
            if row.n > 1 and (value := accuracy_of(exit_)(run)) is not None
        ]
        traces.append(
            scatter(
                "markers",
                [at for at, _, _ in dots],
                [value for _, value, _ in dots],
                "%{y:.2%}<extra>%{text}</extra>",
                name="single runs",
                legendgroup=str(i),
                text=[words for _, _, words in dots],
                marker={"size": 5, "color": mark(i).color, "opacity": 0.35},
            )
        )
        hover = "%{customdata[0]} (n = %{customdata[1]})"
        traces.append(_means(i, [at for at, _, _ in means], [row for _, _, row in means], hover, group.label))
    words = [exit_words(exit_) for exit_ in exits]
    layout: Trace = {
        "xaxis": {"tickvals": list(range(len(exits))), "ticktext": words, "range": [-0.5, len(exits) - 0.5]},
        "yaxis": _accuracy_axis([row[2] for row in rows]),
    }
    table = Table(("group", "exit", "mean accuracy", "standard deviation", "n"), rows)
    return _plot("accuracy-of-exits", table, traces, layout)


def tradeoff_plot(groups: Sequence[Group]) -> Plot:
    """Accuracy against average MACs: every exit alone, and the calibrated policies."""
    traces: list[Trace] = []
    rows: list[tuple[str, str, float, float | None, float, float | None, int]] = []
    for i, group in enumerate(groups):
        exits = [
            (exit_words(exit_), right, macs)
            for exit_ in group.exits
            if (right := group.accuracy(exit_)) and (macs := group.macs(exit_))
        ]
        policy = [("calibrated policy", *spreads)] if (spreads := group.policy()) else []
        rows += [
            (group.label, words, right.mean, right.deviation, macs.mean, macs.deviation, right.n)
            for words, right, macs in (*exits, *policy)
        ]
        color = mark(i).color
        star = {"color": color, "size": 16, "symbol": "star", "line": {"width": 1, "color": "rgba(127,127,127,.6)"}}
        for points, more in ((exits, {}), (policy, {"mode": "markers", "marker": star})):
            traces.append(
                _means(
                    i,
                    [macs.mean for _, _, macs in points],
                    [right for _, right, _ in points],
                    "%{customdata[0]}: %{customdata[1]} for %{customdata[2]} MACs (n = %{customdata[3]})",
                    group.label,
                    error_x=_error_bars([macs for _, _, macs in points], color),
                    customdata=[
                        [words, plus_minus(right, "%"), plus_minus(macs, "short"), right.n]
                        for words, right, macs in points
                    ],
                    **more,
                )
            )
    layout: Trace = {
        "xaxis": {"title_text": "average MACs for a picture", "rangemode": "tozero", "tickformat": "~s"},
        "yaxis": _accuracy_axis([row[2] for row in rows]),
    }
    columns = ("group", "answering", "mean accuracy", "its deviation", "mean MACs", "their deviation", "n")
    return _plot("accuracy-against-macs", Table(columns, rows), traces, layout)


def epochs_plot(groups: Sequence[Group]) -> Plot:
    """Accuracy of the deepest exit by epoch: the mean, in a band of one deviation to either side."""
    traces: list[Trace] = []
    rows: list[tuple[Value, ...]] = []
    for i, group in enumerate(groups):
        curve, style = group.epochs(), mark(i)
        rows += [(group.label, epoch, row.mean, row.deviation, row.n) for epoch, row in curve.items()]
        band = [(epoch, row.mean, row.deviation) for epoch, row in curve.items() if row.deviation is not None]
        back = band[::-1]
        traces.append(
            scatter(
                "lines",
                [epoch for epoch, _, _ in (*band, *back)],
                [mean + wide for _, mean, wide in band] + [mean - wide for _, mean, wide in back],
                None,
                name="band",
                legendgroup=str(i),
                fill="toself",
                fillcolor=faded(style.color, 0.16),
                line_width=0,
            )
        )
        hover = "epoch %{x}: %{customdata[0]} (n = %{customdata[1]})"
        line = {"line": {"color": style.color, "width": 2}, "marker": {"size": 6, "symbol": style.symbol}}
        mode = "lines+markers" if len(curve) <= 60 else "lines"
        drawn = _means(i, list(curve), list(curve.values()), hover, group.label, mode=mode, **line)
        drawn.pop("error_y")
        traces.append(drawn)
    layout: Trace = {
        "xaxis_title_text": "epoch",
        "yaxis": {"title_text": "validation accuracy", "tickformat": ".0%"},
    }
    table = Table(("group", "epoch", "mean accuracy", "standard deviation", "n"), rows)
    return _plot("accuracy-by-epoch", table, traces, layout)


def amount_plot(groups: Sequence[Group], figure: Figure, name: str, axis: str, unit: str) -> Plot:
    """A bar for each group, as long as the mean of one figure."""
    shown = [(i, group, row) for i, group in enumerate(groups) if (row := group.spread(figure)) is not None]
    spreads = [row for _, _, row in shown]
    places = list(range(len(shown)))
    labels = [(plotly_text(group.label), plus_minus(row, unit)) for _, group, row in shown]
    drawn = bars(
        [row.mean for row in spreads],
        places,
        "%{customdata[0]}: %{customdata[1]} (n = %{customdata[2]})<extra></extra>",
        orientation="h",
        error_x={**_error_bars(spreads, GREY), "thickness": 2},
        marker_color=[mark(i).color for i, _, _ in shown],
        customdata=[[*label, row.n] for label, row in zip(labels, spreads, strict=True)],
    )
    # The figure stands below the name: inside a short bar there is no room, and beside it lies the error bar.
    names = [f"{label}<br><b>{mean}</b>" for label, mean in labels]
    layout: Trace = {
        "height": 70 + 52 * len(shown),
        "xaxis": {"title_text": axis, "rangemode": "tozero", "tickformat": "~s"},
        "yaxis": {"tickvals": places, "ticktext": names, "range": [len(shown) - 0.5, -0.5]},
        "bargap": 0.45,
    }
    rows = [(group.label, row.mean, row.deviation, row.n) for _, group, row in shown]
    return _plot(name, Table(("group", f"mean {axis}", "standard deviation", "n"), rows), [drawn], layout)


def reach(rows: Sequence[Compared]) -> float:
    """The largest distance from 0 in these differences, in points."""
    ends = [abs(row.difference.mean.mean) + (row.difference.mean.deviation or 0.0) for row in rows]
    singles = [abs(value) for row in rows for _, value in row.difference.by_seed]
    return 100 * max([*ends, *singles, 0.0])


def difference_plot(rows: Sequence[Compared], group: int, limit: float, name: str) -> Plot:
    """Grown less static, in points of accuracy: a row for each exit, on an axis that goes to ``limit`` both ways."""
    style = mark(group)
    spreads = [row.difference.mean for row in rows]
    singles = [(row.words, *pair) for row in rows for pair in row.difference.by_seed if row.difference.mean.n > 1]
    traces = [
        scatter(
            "markers",
            [100 * value for _, _, value in singles],
            [words for words, _, _ in singles],
            "%{y}, %{text}: %{x:+.2f} points<extra></extra>",
            name="single seeds",
            text=[f"seed {seed}" for _, seed, _ in singles],
            marker={"size": 6, "color": style.color, "opacity": 0.4},
        ),
        scatter(
            "markers",
            [100 * spread.mean for spread in spreads],
            [row.words for row in rows],
            "%{y}: %{customdata[0]} points<extra></extra>",
            name="mean",
            error_x=_error_bars(spreads, style.color, 100),
            marker={"size": 10, "symbol": style.symbol, "color": style.color},
            customdata=[[plus_minus(spread, "points")] for spread in spreads],
        ),
    ]
    zero = {"type": "line", "xref": "x", "yref": "paper", "x0": 0, "x1": 0, "y0": 0, "y1": 1}
    layout: Trace = {
        "height": 90 + 36 * len(rows),
        "xaxis": {"title_text": "points, grown less static", "range": [-limit, limit], "zeroline": False},
        "yaxis": {"type": "category", "categoryorder": "array", "categoryarray": [row.words for row in rows][::-1]},
        "shapes": [{**zero, "line": {"color": GREY, "width": 1.5}}],
    }
    data = [
        (row.words, spread.mean, spread.deviation, *row.difference.n, "paired" if row.difference.paired else "unpaired")
        for row, spread in zip(rows, spreads, strict=True)
    ]
    columns = ("answering", "mean difference", "standard deviation", "n grown", "n static", "pairing")
    return _plot(name, Table(columns, data), traces, layout)
