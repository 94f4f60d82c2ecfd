"""The plots of a comparison: a color and a mark for each group, means with error bars of one standard deviation."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from ramify.show.groups import Figure, Group, Spread, exit_words, exits_of
from ramify.show.report.baseline import Compared, PairedRuns
from ramify.show.report.plot import GREY, Table, Trace, Value, bars, faded, plot, plotly_text, scatter
from ramify.show.words import short

BARS = "Error bars: one standard deviation over the seeds; none where there is one seed."

COLOURS = ("#3a6fd8", "#d0603a", "#2a9468", "#9a5bc8", "#bd8500", "#2391ab", "#c4487f", "#78838f")
"""Colors of the groups, of middle lightness: they stand out from white and from black. They repeat."""

MARKS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "pentagon", "cross", "x")
"""Marks of the groups for those who see no color, as plotly calls them; stars are for policies."""

LETTERS = "●■◆▲▼⬟✚✖"
"""The same marks as letters."""


@dataclass(frozen=True)
class Mark:
    """How a group is drawn: its color, plotly's name of its mark, and a letter that looks like it."""

    colour: str
    symbol: str
    letter: str


def mark(group: int) -> Mark:
    """The mark of a group, counted from 0."""
    # One further for each time that the colors have repeated, so that the pairs do not.
    place = (group + group // len(COLOURS)) % len(MARKS)
    return Mark(COLOURS[group % len(COLOURS)], MARKS[place], LETTERS[place])


def plus_minus(spread: Spread | None, unit: str, digits: int | None = None) -> str:
    """A mean with its deviation; ``unit`` is ``%`` of a share, ``points`` of a difference, ``s``, or ``short``.

    Example:
        >>> plus_minus(Spread(0.975, 0.004, 3), "%"), plus_minus(Spread(-0.01, None, 1), "points")
        ('97.50 ± 0.40 %', '-1.00')
    """
    if spread is None:
        return "-"
    if unit == "short":
        mean = f"{'-' if spread.mean < 0 else ''}{short(abs(spread.mean))}"
        return mean if not spread.deviation else f"{mean} ± {short(spread.deviation)}"
    factor, usual, after = {"%": (100, 2, " %"), "points": (100, 2, ""), "s": (1, 1, " s")}[unit]
    places = usual if digits is None else digits
    mean = f"{factor * spread.mean:{'+' if unit == 'points' else ''}.{places}f}"
    return f"{mean}{after}" if spread.deviation is None else f"{mean} ± {factor * spread.deviation:.{places}f}{after}"


def _bars(spreads: Sequence[Spread], colour: str, factor: float = 1) -> Trace:
    """Error bars of one deviation."""
    return {
        "type": "data",
        "array": [factor * (each.deviation or 0) for each in spreads],
        "color": colour,
        "thickness": 1.5,
        "width": 4,
        "visible": any(each.deviation for each in spreads),
    }


def _points(group: int, x: Sequence[float], spreads: Sequence[Spread], hover: str, name: str, **more: object) -> Trace:
    """The means of a group, with their deviations, joined by a line."""
    style = mark(group)
    shown: Trace = {
        "name": plotly_text(name),
        "legendgroup": str(group),
        "line": {"color": style.colour, "width": 1.5},
        "marker": {"size": 9, "symbol": style.symbol, "color": style.colour},
        "error_y": _bars(spreads, style.colour),
        "customdata": [[plus_minus(each, "%"), each.n] for each in spreads],
        **more,
    }
    mode = str(shown.pop("mode", "lines+markers"))
    return scatter(mode, x, [each.mean for each in spreads], f"{hover}<extra>%{{fullData.name}}</extra>", **shown)


def _plot(name: str, caption: str, table: Table, traces: Sequence[Trace], layout: Trace) -> Markup:
    """A figure without a legend of its own: the page has one in HTML."""
    return plot(name, caption, table, traces, {"showlegend": False, **layout})


def _accuracy_axis(means: Sequence[float]) -> Trace:
    near = bool(means) and max(means) - min(means) <= 0.04
    return {"title_text": "test accuracy", "tickformat": ".1%" if near else ".0%"}


def exits_plot(groups: Sequence[Group]) -> Markup:
    """Accuracy of each exit, the last exits of all groups above each other."""
    exits = exits_of(groups)
    traces: list[Trace] = []
    rows: list[tuple[str, str, float, float | None, int]] = []
    for i, group in enumerate(groups):
        shift = (i - (len(groups) - 1) / 2) * min(0.1, 0.6 / len(groups))
        means = [(at + shift, exit_, each) for at, exit_ in enumerate(exits) if (each := group.accuracy(exit_))]
        rows += [(group.label, exit_words(exit_), each.mean, each.deviation, each.n) for _, exit_, each in means]
        dots = [
            (at, value, plotly_text(f"{run.name}, {exit_words(exit_)}"))
            for at, exit_, each in means
            for run in group.finished
            if each.n > 1 and (value := run.accuracy_at(exit_)) is not None
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
                marker={"size": 5, "color": mark(i).colour, "opacity": 0.35},
            )
        )
        hover = "%{customdata[0]} (n = %{customdata[1]})"
        traces.append(_points(i, [at for at, _, _ in means], [each for _, _, each in means], hover, group.label))
    words = [exit_words(exit_) for exit_ in exits]
    layout: Trace = {
        "xaxis": {"tickvals": list(range(len(exits))), "ticktext": words, "range": [-0.5, len(exits) - 0.5]},
        "yaxis": _accuracy_axis([row[2] for row in rows]),
    }
    caption = f"Test accuracy of each exit: means over the seeds, each seed a faint dot. {BARS}"
    table = Table(("group", "exit", "mean accuracy", "standard deviation", "n"), rows)
    return _plot("accuracy-of-exits", caption, table, traces, layout)


def tradeoff_plot(groups: Sequence[Group]) -> Markup:
    """Accuracy against average MACs: every exit alone, and the calibrated policies."""
    traces: list[Trace] = []
    rows: list[tuple[str, str, float, float | None, float, float | None, int]] = []
    for i, group in enumerate(groups):
        exits = [
            (exit_words(exit_), right, macs)
            for exit_ in group.exits
            if (right := group.accuracy(exit_)) and (macs := group.macs(exit_))
        ]
        found = group.policy()
        policy = [] if found is None else [("calibrated policy", *found)]
        rows += [
            (group.label, words, right.mean, right.deviation, macs.mean, macs.deviation, right.n)
            for words, right, macs in (*exits, *policy)
        ]
        colour = mark(i).colour
        star = {"color": colour, "size": 16, "symbol": "star", "line": {"width": 1, "color": "rgba(127,127,127,.6)"}}
        for points, more in ((exits, {}), (policy, {"mode": "markers", "marker": star})):
            traces.append(
                _points(
                    i,
                    [macs.mean for _, _, macs in points],
                    [right for _, right, _ in points],
                    "%{customdata[0]}: %{customdata[1]} for %{customdata[2]} MACs (n = %{customdata[3]})",
                    group.label,
                    error_x=_bars([macs for _, _, macs in points], colour),
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
    stars = ""
    if any(row[1] == "calibrated policy" for row in rows):
        stars = " A star is a calibrated policy, which lets each picture leave at the first exit that is sure."
    caption = f"Each exit alone, from the first to the last.{stars} {BARS}"
    columns = ("group", "answering", "mean accuracy", "its deviation", "mean MACs", "their deviation", "n")
    return _plot("accuracy-against-macs", caption, Table(columns, rows), traces, layout)


def epochs_plot(groups: Sequence[Group]) -> Markup:
    """Accuracy of the deepest exit by epoch: the mean, in a band of one deviation to either side."""
    traces: list[Trace] = []
    rows: list[tuple[Value, ...]] = []
    for i, group in enumerate(groups):
        curve, style = group.epochs(), mark(i)
        rows += [(group.label, epoch, each.mean, each.deviation, each.n) for epoch, each in curve.items()]
        band = [(epoch, each.mean, each.deviation) for epoch, each in curve.items() if each.deviation is not None]
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
                fillcolor=faded(style.colour, 0.16),
                line_width=0,
            )
        )
        hover = "epoch %{x}: %{customdata[0]} (n = %{customdata[1]})"
        line = {"line": {"color": style.colour, "width": 2}, "marker": {"size": 6, "symbol": style.symbol}}
        mode = "lines+markers" if len(curve) <= 60 else "lines"
        drawn = _points(i, list(curve), list(curve.values()), hover, group.label, mode=mode, **line)
        traces.append({key: value for key, value in drawn.items() if key != "error_y"})
    layout: Trace = {
        "xaxis_title_text": "epoch",
        "yaxis": {"title_text": "validation accuracy", "tickformat": ".0%"},
    }
    caption = (
        "Validation accuracy of the deepest exit that there is, by epoch: the mean over the seeds, in a band of one "
        "standard deviation to either side. It drops for a while where a network grows or is pruned."
    )
    table = Table(("group", "epoch", "mean accuracy", "standard deviation", "n"), rows)
    return _plot("accuracy-by-epoch", caption, table, traces, layout)


def amount_plot(groups: Sequence[Group], figure: Figure, name: str, axis: str, unit: str, caption: str) -> Markup:
    """A bar for each group, as long as the mean of one figure."""
    shown = [(i, group, each) for i, group in enumerate(groups) if (each := group.spread(figure)) is not None]
    spreads = [each for _, _, each in shown]
    places = list(range(len(shown)))
    labels = [(plotly_text(group.label), plus_minus(each, unit)) for _, group, each in shown]
    drawn = bars(
        [each.mean for each in spreads],
        places,
        "%{customdata[0]}: %{customdata[1]} (n = %{customdata[2]})<extra></extra>",
        orientation="h",
        error_x={**_bars(spreads, GREY), "thickness": 2},
        marker_color=[mark(i).colour for i, _, _ in shown],
        customdata=[[*label, each.n] for label, each in zip(labels, spreads, strict=True)],
    )
    # The figure stands below the name: inside a short bar there is no room, and beside it lies the error bar.
    names = [f"{label}<br><b>{mean}</b>" for label, mean in labels]
    layout: Trace = {
        "height": 70 + 52 * len(shown),
        "xaxis": {"title_text": axis, "rangemode": "tozero", "tickformat": "~s"},
        "yaxis": {"tickvals": places, "ticktext": names, "range": [len(shown) - 0.5, -0.5]},
        "bargap": 0.45,
    }
    rows = [(group.label, each.mean, each.deviation, each.n) for _, group, each in shown]
    return _plot(name, caption, Table(("group", f"mean {axis}", "standard deviation", "n"), rows), [drawn], layout)


def reach(rows: Sequence[Compared]) -> float:
    """How far from 0 anything of these differences lies, in points."""
    ends = [abs(row.difference.mean.mean) + (row.difference.mean.deviation or 0.0) for row in rows]
    singles = [abs(value) for row in rows for _, value in row.difference.by_seed]
    return 100 * max([*ends, *singles, 0.0])


def difference_plot(match: PairedRuns, rows: Sequence[Compared], group: int, limit: float, name: str) -> Markup:
    """Grown less static, in points of accuracy: a row for each exit, on an axis that goes to ``limit`` both ways."""
    style = mark(group)
    spreads = [row.difference.mean for row in rows]
    singles = [(row.words, *each) for row in rows for each in row.difference.by_seed if row.difference.mean.n > 1]
    traces = [
        scatter(
            "markers",
            [100 * value for _, _, value in singles],
            [words for words, _, _ in singles],
            "%{y}, %{text}: %{x:+.2f} points<extra></extra>",
            name="single seeds",
            text=[f"seed {seed}" for _, seed, _ in singles],
            marker={"size": 6, "color": style.colour, "opacity": 0.4},
        ),
        scatter(
            "markers",
            [100 * each.mean for each in spreads],
            [row.words for row in rows],
            "%{y}: %{customdata[0]} points<extra></extra>",
            name="mean",
            error_x=_bars(spreads, style.colour, 100),
            marker={"size": 10, "symbol": style.symbol, "color": style.colour},
            customdata=[[plus_minus(each, "points")] for each in spreads],
        ),
    ]
    zero = {"type": "line", "xref": "x", "yref": "paper", "x0": 0, "x1": 0, "y0": 0, "y1": 1}
    layout: Trace = {
        "height": 90 + 36 * len(rows),
        "xaxis": {"title_text": "points, grown less static", "range": [-limit, limit], "zeroline": False},
        "yaxis": {"type": "category", "categoryorder": "array", "categoryarray": [row.words for row in rows][::-1]},
        "shapes": [{**zero, "line": {"color": GREY, "width": 1.5}}],
    }
    found = [
        (row.words, each.mean, each.deviation, *row.difference.n, "paired" if row.difference.paired else "unpaired")
        for row, each in zip(rows, spreads, strict=True)
    ]
    columns = ("answering", "mean difference", "standard deviation", "n grown", "n static", "pairing")
    dots = (
        " Faint dots: single seeds." if any(row.difference.mean.n > 1 and row.difference.paired for row in rows) else ""
    )
    caption = f"To the right of the line {match.grown.label} is more accurate than {match.static.label}.{dots} {BARS}"
    return _plot(name, caption, Table(columns, found), traces, layout)
