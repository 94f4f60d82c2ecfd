"""Who leaves where: the pictures of each class by exit."""

from ramify.ops.exits.analysis import Analysis
from ramify.show.report.facts import Facts
from ramify.show.report.history import LEGEND
from ramify.show.report.page import Section
from ramify.show.report.parts import missing
from ramify.show.report.plot import Plot, Table, exit_colour, figure, plot_html, plotly_text

WHOLE = {"range": [0, 1.005], "dtick": 0.25}
"""An axis of shares, from nothing to all."""

CLASSES = 40
"""Classes that are drawn; the table has all of them."""


def leaving_section(facts: Facts) -> Section:
    """Who exits where, by class."""
    title = "Who leaves where"
    if facts.measured is None:
        return Section("leaving", title, "", missing(facts.unmeasured))
    analysis = facts.measured.analysis
    if len(analysis.macs) == 1:
        return Section("leaving", title, "", missing("The network has one exit: every picture leaves there."))
    if analysis.by_policy:
        lead = f"Where the calibrated policy lets the {facts.measured.part} of each class leave."
    else:
        lead = (
            "Without a calibrated policy: the first exit that is right about each test picture; the last one also "
            "takes what no exit gets right."
        )
    if len(analysis.by_class) > CLASSES:
        lead += f" The {CLASSES} classes that leave latest are drawn; the table has all {len(analysis.by_class)}."
    return Section("leaving", title, lead, plot_html(_leaving_plot(analysis)))


def _leaving_plot(analysis: Analysis) -> Plot:
    exits = len(analysis.macs)
    # Those that leave late, the hard ones, stand on top; a class without pictures leaves nowhere.
    ordered = sorted(analysis.by_class, key=lambda each: each.macs or 0.0, reverse=True)
    drawn = ordered[:CLASSES]
    places = list(range(len(drawn)))
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "name": f"exit {i + 1}",
            "y": places,
            "x": [each.exits[i] / max(sum(each.exits), 1) for each in drawn],
            "customdata": [[each.exits[i], sum(each.exits)] for each in drawn],
            "marker": {"color": exit_colour(i, exits)},
            "showlegend": exits <= LEGEND,
            "hovertemplate": "%{customdata[0]} of %{customdata[1]} pictures, %{x:.1%}"
            f"<extra>exit {i + 1}</extra>",
        }
        for i in range(exits)
    ]
    names = [plotly_text(_shortened(each.name)) for each in drawn]
    layout = {
        "barmode": "stack",
        "height": 110 + 26 * len(drawn),
        "bargap": 0.28,
        "xaxis": {
            "title": {"text": "share of the pictures of the class"},
            "tickformat": ".0%",
            "range": [0, 1.005],
            "dtick": 0.25,
        },
        "yaxis": {"autorange": "reversed", "tickmode": "array", "tickvals": places, "ticktext": names},
        "legend": {"traceorder": "normal"},
        "margin": {"r": 28},
    }
    rows = tuple((each.name, *each.exits, each.macs) for each in ordered)
    table = Table(("class", *(f"exit {i + 1}" for i in range(exits)), "average MACs"), rows)
    caption = "The share of each class that leaves at each exit, the classes that leave latest on top."
    if exits > LEGEND:
        caption += " The first exit is amber, the last one blue."
    return Plot("leaving-by-class", figure(traces, layout), table, caption)


def _shortened(name: str) -> str:
    return name if len(name) <= 18 else f"{name[:17]}…"
