"""How far the confidence of an exit can be believed: its calibration curve."""

from ramify.ops.exits.analysis import Analysis
from ramify.show.report.facts import Facts
from ramify.show.report.history import LEGEND
from ramify.show.report.page import Section
from ramify.show.report.parts import missing
from ramify.show.report.plot import GREY, Plot, Table, Value, exit_colour, exit_symbol, faded, figure, plot_html
from ramify.show.words import percent


def reliability_section(facts: Facts) -> Section:
    """The calibration curve of every exit."""
    title = "Confidence"
    if facts.measured is None:
        return Section("reliability", title, "", missing(facts.unmeasured))
    analysis = facts.measured.analysis
    lead = (
        "Can it be believed? Of the pictures that an exit is 80 % sure of, 80 % should be right: on the diagonal. "
        "Below it the exit is too sure of itself. The expected calibration error is the mean distance, each "
        "picture counting alike."
    )
    return Section("reliability", title, lead, plot_html(_reliability_plot(analysis)))


def _reliability_plot(analysis: Analysis) -> Plot:
    exits = len(analysis.macs)
    traces: list[dict[str, object]] = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": [0, 1],
            "y": [0, 1],
            "name": "perfect",
            "line": {"color": GREY, "width": 1, "dash": "dash"},
            "hoverinfo": "skip",
            "showlegend": False,
        }
    ]
    rows: list[tuple[Value, ...]] = []
    for i, found in enumerate(analysis.reliability):
        filled = [each for each in found.bins if each.count]
        most = max(each.count for each in filled)
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": f"exit {i + 1}: {percent(found.error)}",
                "x": [each.confidence for each in filled],
                "y": [each.accuracy for each in filled],
                "customdata": [each.count for each in filled],
                "line": {"color": faded(exit_colour(i, exits)), "width": 1.5},
                "marker": {
                    "symbol": exit_symbol(i),
                    "color": exit_colour(i, exits),
                    "opacity": 0.9,
                    # The area tells how many pictures a point stands for.
                    "size": [5 + 13 * (each.count / most) ** 0.5 for each in filled],
                },
                "showlegend": exits <= LEGEND,
                "hovertemplate": "%{x:.1%} sure, %{y:.1%} right<br>%{customdata} pictures"
                f"<extra>exit {i + 1}, error {percent(found.error)}</extra>",
            }
        )
        rows += [
            (i + 1, each.low, each.high, each.count, each.confidence, each.accuracy, found.error) for each in found.bins
        ]
    columns = (
        "exit",
        "from",
        "to",
        "pictures",
        "mean confidence",
        "accuracy",
        "expected calibration error of the exit",
    )
    layout = {
        "height": 440,
        "xaxis": {"title": {"text": "mean confidence"}, "tickformat": ".0%", "range": [-0.02, 1.04]},
        "yaxis": {"title": {"text": "accuracy"}, "tickformat": ".0%", "range": [-0.04, 1.06]},
    }
    errors = (
        ", ".join(percent(each.error) for each in analysis.reliability)
        if exits <= LEGEND
        else (
            f"{percent(analysis.reliability[0].error)} at the first exit to {percent(analysis.reliability[-1].error)} "
            "at the last"
        )
    )
    caption = (
        f"Accuracy against confidence in {len(analysis.reliability[0].bins)} bins; larger marks stand for more "
        f"pictures. Expected calibration error by exit: {errors}."
    )
    return Plot("reliability", figure(traces, layout), Table(columns, tuple(rows)), caption)
