"""The plots of a comparison: a colour and a mark for each group, means with error bars of one standard deviation."""

from collections.abc import Sequence

from ramify.show.report.baseline import Difference, Match
from ramify.show.report.compare_parts import colour, exit_words, mark, plus_minus
from ramify.show.report.plot import GREY, Figure, Plot, Table, Value, figure
from ramify.show.terminal.groups import LAST, Group, Spread

BARS = "Error bars: one standard deviation over the seeds; none where there is one seed."

Trace = dict[str, object]
Rows = list[tuple[Value, ...]]


def plain(text: str) -> str:
    """Words for plotly, which reads a few tags."""
    return text.replace("&", "&amp;").replace("<", "&lt;")


def drawing(traces: Sequence[Trace], layout: Trace) -> Figure:
    """A figure without a legend of its own: a page has one in HTML."""
    return figure(traces, {"showlegend": False, **layout})


def bars(told: Sequence[Spread], colour_: str) -> Trace:
    """Error bars of one deviation."""
    return {
        "type": "data",
        "array": [each.deviation or 0 for each in told],
        "color": colour_,
        "thickness": 1.5,
        "width": 4,
        "visible": any(each.deviation for each in told),
    }


def exits_plot(groups: Sequence[Group]) -> Plot:
    """Accuracy of each exit, the last exits of all groups above each other."""
    inner = max((len(group.earlier) for group in groups), default=0)
    places = [*range(inner), LAST]
    traces: list[Trace] = []
    rows: Rows = []
    for i, group in enumerate(groups):
        shift = (i - (len(groups) - 1) / 2) * min(0.1, 0.6 / len(groups))
        at: list[float] = []
        told: list[Spread] = []
        dots: list[tuple[float, float, str]] = []
        for place, exit_ in enumerate(places):
            found = group.accuracy(exit_)
            if found is None:
                continue
            at.append(place + shift)
            told.append(found)
            rows.append((group.label, exit_words(exit_), found.mean, found.deviation, found.n))
            for run in group.finished:
                one = run.accuracy_at(exit_)
                if one is not None and found.n > 1:
                    dots.append((place + shift, one, plain(f"{run.name}, {exit_words(exit_)}")))
        traces.append(_dots(dots, i, "%{y:.2%}"))
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": plain(group.label),
                "legendgroup": str(i),
                "x": at,
                "y": [each.mean for each in told],
                "error_y": bars(told, colour(i)),
                "line": {"color": colour(i), "width": 1.5},
                "marker": {"size": 9, "symbol": mark(i)[0], "color": colour(i)},
                "customdata": [[plus_minus(each, "%"), each.n] for each in told],
                "hovertemplate": "%{customdata[0]} (n = %{customdata[1]})<extra>%{fullData.name}</extra>",
            }
        )
    words = [exit_words(exit_) for exit_ in places]
    layout = {
        "xaxis": {"tickvals": list(range(len(places))), "ticktext": words, "range": [-0.5, len(places) - 0.5]},
        "yaxis": {"title": {"text": "test accuracy"}, "tickformat": ".0%" if _wide(rows) else ".1%"},
    }
    caption = f"Test accuracy of each exit: means over the seeds, each seed a faint dot. {BARS}"
    columns = ("group", "exit", "mean accuracy", "standard deviation", "n")
    return Plot("accuracy-of-exits", drawing(traces, layout), Table(columns, tuple(rows)), caption)


def _wide(rows: Rows) -> bool:
    """Whether accuracies lie far enough apart for ticks in whole percent."""
    means = [row[2] for row in rows if isinstance(row[2], float)]
    return not means or max(means) - min(means) > 0.04


def _dots(dots: Sequence[tuple[float, float, str]], group: int, value: str) -> Trace:
    """The single runs behind a mean."""
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "single runs",
        "legendgroup": str(group),
        "x": [x for x, _, _ in dots],
        "y": [y for _, y, _ in dots],
        "text": [words for _, _, words in dots],
        "marker": {"size": 5, "color": colour(group), "opacity": 0.35},
        "hovertemplate": f"{value}<extra>%{{text}}</extra>",
    }


def tradeoff_plot(groups: Sequence[Group]) -> Plot:
    """Accuracy against average MACs: every exit alone, and the calibrated policies."""
    traces: list[Trace] = []
    rows: Rows = []
    called = False
    for i, group in enumerate(groups):
        exits = [
            (exit_words(exit_), accuracy, macs)
            for exit_ in (*group.earlier, LAST)
            for accuracy in [group.spread(lambda run, exit_=exit_: run.accuracy_at(exit_))]  # type: ignore[misc]
            for macs in [group.spread(lambda run, exit_=exit_: run.macs_at(exit_))]  # type: ignore[misc]
            if accuracy is not None and macs is not None
        ]
        found = group.policy()
        policy = [] if found is None else [("calibrated policy", *found)]
        rows += [
            (group.label, words, right.mean, right.deviation, cost.mean, cost.deviation, right.n)
            for words, right, cost in (*exits, *policy)
        ]
        dot = {"color": colour(i), "size": 9, "symbol": mark(i)[0]}
        star = {"color": colour(i), "size": 16, "symbol": "star", "line": {"width": 1, "color": "rgba(127,127,127,.6)"}}
        for points, mode, marker in ((exits, "lines+markers", dot), (policy, "markers", star)):
            traces.append(
                {
                    "type": "scatter",
                    "mode": mode,
                    "name": plain(group.label),
                    "legendgroup": str(i),
                    "x": [cost.mean for _, _, cost in points],
                    "y": [right.mean for _, right, _ in points],
                    "error_x": bars([cost for _, _, cost in points], colour(i)),
                    "error_y": bars([right for _, right, _ in points], colour(i)),
                    "line": {"color": colour(i), "width": 1.5},
                    "marker": marker,
                    "customdata": [
                        [words, plus_minus(right, "%"), plus_minus(cost, "short"), right.n]
                        for words, right, cost in points
                    ],
                    "hovertemplate": "%{customdata[0]}: %{customdata[1]} for %{customdata[2]} MACs "
                    "(n = %{customdata[3]})<extra>%{fullData.name}</extra>",
                }
            )
        called = called or bool(policy)
    layout = {
        "xaxis": {"title": {"text": "average MACs for a picture"}, "rangemode": "tozero", "tickformat": "~s"},
        "yaxis": {"title": {"text": "test accuracy"}, "tickformat": ".0%" if _wide(rows) else ".1%"},
    }
    stars = (
        " A star is a calibrated policy, which lets each picture leave at the first exit that is sure."
        if called
        else ""
    )
    caption = f"Each exit alone, from the first to the last.{stars} {BARS}"
    columns = ("group", "answering", "mean accuracy", "its deviation", "mean MACs", "their deviation", "n")
    return Plot("accuracy-against-macs", drawing(traces, layout), Table(columns, tuple(rows)), caption)


def epochs_plot(groups: Sequence[Group]) -> Plot:
    """Accuracy of the deepest exit by epoch: the mean, in a band of one deviation to either side."""
    traces: list[Trace] = []
    rows: Rows = []
    for i, group in enumerate(groups):
        curve = group.epochs()
        rows += [(group.label, epoch, each.mean, each.deviation, each.n) for epoch, each in curve.items()]
        band = [(epoch, each.mean, each.deviation) for epoch, each in curve.items() if each.deviation is not None]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": "band",
                "legendgroup": str(i),
                "x": [epoch for epoch, _, _ in band] + [epoch for epoch, _, _ in reversed(band)],
                "y": [mean + wide for _, mean, wide in band] + [mean - wide for _, mean, wide in reversed(band)],
                "fill": "toself",
                "fillcolor": _clear(colour(i), 0.16),
                "line": {"width": 0},
                "hoverinfo": "skip",
            }
        )
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers" if len(curve) <= 60 else "lines",
                "name": plain(group.label),
                "legendgroup": str(i),
                "x": list(curve),
                "y": [each.mean for each in curve.values()],
                "line": {"color": colour(i), "width": 2},
                "marker": {"size": 6, "symbol": mark(i)[0]},
                "customdata": [[plus_minus(each, "%"), each.n] for each in curve.values()],
                "hovertemplate": "epoch %{x}: %{customdata[0]} (n = %{customdata[1]})<extra>%{fullData.name}</extra>",
            }
        )
    layout = {
        "xaxis": {"title": {"text": "epoch"}},
        "yaxis": {"title": {"text": "validation accuracy"}, "tickformat": ".0%"},
    }
    caption = (
        "Validation accuracy of the deepest exit that there is, by epoch: the mean over the seeds, in a band of one "
        "standard deviation to either side. It drops for a while where a network grows or is pruned."
    )
    columns = ("group", "epoch", "mean accuracy", "standard deviation", "n")
    return Plot("accuracy-by-epoch", drawing(traces, layout), Table(columns, tuple(rows)), caption)


def _clear(hex_: str, opacity: float) -> str:
    return f"rgba({', '.join(str(int(hex_[i : i + 2], 16)) for i in (1, 3, 5))}, {opacity})"


def amount_plot(
    groups: Sequence[Group], told: Sequence[Spread | None], name: str, axis: str, unit: str, caption: str
) -> Plot:
    """A bar for each group, as long as the mean of one figure."""
    shown = [(i, group, each) for i, (group, each) in enumerate(zip(groups, told, strict=True)) if each is not None]
    trace: Trace = {
        "type": "bar",
        "orientation": "h",
        "y": list(range(len(shown))),
        "x": [each.mean for _, _, each in shown],
        "error_x": {**bars([each for _, _, each in shown], GREY), "thickness": 2},
        "marker": {"color": [colour(i) for i, _, _ in shown]},
        "customdata": [[plain(group.label), plus_minus(each, unit), each.n] for _, group, each in shown],
        "hovertemplate": "%{customdata[0]}: %{customdata[1]} (n = %{customdata[2]})<extra></extra>",
    }
    # The figure stands below the name: inside a short bar there is no room, and beside it lies the error bar.
    names = [f"{plain(group.label)}<br><b>{plus_minus(each, unit)}</b>" for _, group, each in shown]
    layout = {
        "height": 70 + 52 * len(shown),
        "xaxis": {"title": {"text": axis}, "rangemode": "tozero", "tickformat": "~s"},
        "yaxis": {"tickvals": list(range(len(shown))), "ticktext": names, "range": [len(shown) - 0.5, -0.5]},
        "bargap": 0.45,
    }
    rows = tuple((group.label, each.mean, each.deviation, each.n) for _, group, each in shown)
    table = Table(("group", f"mean {axis}", "standard deviation", "n"), rows)
    return Plot(name, drawing([trace], layout), table, caption)


Compared = tuple[str, Difference]
"""What is compared, and the difference in accuracy."""


def difference_plot(match: Match, rows: Sequence[Compared], groups: Sequence[Group], reach: float, name: str) -> Plot:
    """Grown less static, in points of accuracy: a row for each exit, on an axis that goes to ``reach`` both ways."""
    at = groups.index(match.grown)
    traces: list[Trace] = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "single seeds",
            "x": [100 * value for _, found in rows for _, value in found.by_seed if found.told.n > 1],
            "y": [words for words, found in rows for _ in found.by_seed if found.told.n > 1],
            "text": [f"seed {seed}" for _, found in rows for seed, _ in found.by_seed if found.told.n > 1],
            "marker": {"size": 6, "color": colour(at), "opacity": 0.4},
            "hovertemplate": "%{y}, %{text}: %{x:+.2f} points<extra></extra>",
        },
        {
            "type": "scatter",
            "mode": "markers",
            "name": "mean",
            "x": [100 * found.told.mean for _, found in rows],
            "y": [words for words, _ in rows],
            "error_x": {
                **bars([found.told for _, found in rows], colour(at)),
                "array": [100 * (found.told.deviation or 0) for _, found in rows],
            },
            "marker": {"size": 10, "symbol": mark(at)[0], "color": colour(at)},
            "customdata": [[plus_minus(found.told, "points")] for _, found in rows],
            "hovertemplate": "%{y}: %{customdata[0]} points<extra></extra>",
        },
    ]
    layout: Trace = {
        "height": 90 + 36 * len(rows),
        "xaxis": {"title": {"text": "points, grown less static"}, "range": [-reach, reach], "zeroline": False},
        "yaxis": {"type": "category", "categoryorder": "array", "categoryarray": [words for words, _ in rows][::-1]},
        "shapes": [
            {
                "type": "line",
                "xref": "x",
                "yref": "paper",
                "x0": 0,
                "x1": 0,
                "y0": 0,
                "y1": 1,
                "line": {"color": GREY, "width": 1.5},
            }
        ],
    }
    table = Table(
        ("answering", "mean difference", "standard deviation", "n grown", "n static", "pairing"),
        tuple(
            (words, found.told.mean, found.told.deviation, *found.n, "paired" if found.paired else "unpaired")
            for words, found in rows
        ),
    )
    dots = " Faint dots: single seeds." if any(found.paired and found.told.n > 1 for _, found in rows) else ""
    caption = f"To the right of the line {match.grown.label} is more accurate than {match.static.label}.{dots} {BARS}"
    return Plot(name, drawing(traces, layout), table, caption)
