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
    Table,
    Trace,
    bars,
    exit_colour,
    exit_symbol,
    faded,
    plot,
    plotly_text,
    scatter,
)
from ramify.show.words import count, percent, short

_CLASSES = 40
"""Classes that are drawn; the table has all of them."""


def cost(facts: Facts) -> tuple[str, Markup]:
    """Accuracy against average MACs: by threshold, at each exit alone, and by the calibrated policy."""
    found = known(facts)
    if len(found.analysis.macs) == 1:
        why = "The network has one exit: every picture costs the same, and there is nothing to trade."
        return "", _exit_table(found) + html("missing", why)
    lead = (
        "A picture leaves at the first exit whose highest probability reaches a threshold: with a lower threshold the "
        f"average picture costs less. On {count(found.pictures)} {found.part} of {Path(found.source).name}."
    )
    return lead, _cost_plot(found) + _policy(found) + _exit_table(found)


def _cost_plot(found: Measured) -> Markup:
    analysis, last = found.analysis, found.analysis.macs[-1]
    exits, oracle, outcome = len(analysis.macs), analysis.oracle, found.outcome
    times = analysis.milliseconds or (None,) * exits
    per_exit = zip(range(1, exits + 1), analysis.macs, analysis.accuracy, times, strict=True)
    rows: list[tuple[str, float | None, float, float, float | None]] = [
        *(("threshold", point.threshold, point.macs, point.accuracy, point.milliseconds) for point in analysis.curve),
        *(("exit", *each) for each in per_exit),
        ("oracle", None, oracle.macs, oracle.accuracy, oracle.milliseconds),
    ]
    caption = "Accuracy against the multiply-accumulates of an average picture: up and to the left is better."
    if outcome is not None:
        rows.append(("calibrated", None, outcome.macs, outcome.accuracy, outcome.milliseconds))
        caption += " The ring is the calibrated policy."
    shown, symbols = [exit_colour(i, exits) for i in range(exits)], [exit_symbol(i) for i in range(exits)]
    star = {"size": 13, "symbol": "star-open", "color": GREY, "line_width": 2}
    ring = {"size": 17, "symbol": "circle-open", "color": ACCENT, "line_width": 3}
    traces: list[Trace] = []
    for kind, name, hover, style in (
        ("threshold", "by threshold", "threshold %{customdata[0]:.4g}", {"line": {"color": GREY, "width": 2}}),
        ("exit", "exits", "exit %{customdata[0]} for every picture", {"size": 12, "color": shown, "symbol": symbols}),
        ("oracle", "oracle", "oracle: each picture at its first right exit", star),
        ("calibrated", "calibrated", "calibrated policy", ring),
    ):
        drawn = [row for row in rows if row[0] == kind]
        if drawn:
            traces.append(
                scatter(
                    "lines" if kind == "threshold" else "markers",
                    [macs for _, _, macs, _, _ in drawn],
                    [right for _, _, _, right, _ in drawn],
                    f"{hover}<br>%{{y:.2%}} right<br>%{{x:.3s}} MACs, %{{customdata[1]:.0%}} of the last exit"
                    "<extra></extra>",
                    name=name,
                    customdata=[[where, macs / last] for _, where, macs, _, _ in drawn],
                    **(style if kind == "threshold" else {"marker": style}),
                )
            )
    layout = {
        "xaxis": {"title_text": "average MACs", "rangemode": "tozero", "tickformat": "~s"},
        "yaxis": {"title_text": f"accuracy on the {found.part}", "tickformat": ".1~%"},
    }
    columns = ("what", "threshold or exit", "average MACs", "accuracy", "average milliseconds")
    return plot("accuracy-against-macs", caption, Table(columns, rows), traces, layout)


def _policy(found: Measured) -> Markup:
    """The calibrated policy: what it gives, and its thresholds."""
    if found.outcome is None or found.policy is None:
        return html(
            "missing",
            "No exit policy was calibrated for this run, so there is no calibrated point, and every picture goes to "
            "the last exit; ramify calibrate finds one, and ramify report draws it.",
        )
    outcome, rule = found.outcome, found.policy.calibration.policy
    temperatures = rule.temperatures or (1.0,) * rule.exits
    thresholds = [*("never" if each is None else f"{each:.4g}" for each in rule.thresholds), "all"]
    each_exit = zip(thresholds, temperatures, outcome.exits, strict=True)
    rows = [
        (i, leaves, f"{temperature:.2f}", percent(share))
        for i, (leaves, temperature, share) in enumerate(each_exit, start=1)
    ]
    words = (
        f"By {rule.criterion.replace('_', ' ')}, chosen on {count(found.policy.calibration.pictures)} validation "
        f"pictures. On the {found.part} it gets {percent(outcome.accuracy)} right, "
        f"{percent(found.analysis.accuracy[-1])} at the last exit alone, for "
        f"{percent(outcome.macs / found.analysis.macs[-1])} of its multiply-accumulates."
    )
    if found.ranking is not None:
        best = found.ranking.against_best
        areas = ", ".join("-" if each is None else f"{each:.2f}" for each in found.ranking.auroc)
        words += (
            f" Against the exit that is best alone that is {100 * best.mean:+.2f} points ({100 * best.low:+.2f} to "
            f"{100 * best.high:+.2f} with 95 %). Its scores tell the pictures that a deeper exit would correct from "
            f"the rest with an AUC of {areas} by exit, 0.5 being chance."
        )
    title = "The calibrated policy"
    table = html("figures", ("exit", "leaves from", "temperature", "leaving"), rows)
    return html("heading", title) + html("prose", words) + html("frame", "wide", title, table)


def _exit_table(found: Measured) -> Markup:
    rows: list[tuple[object, ...]] = []
    for i, each in enumerate(found.exits):
        score = each.test or each.valid
        assert score is not None  # it was measured on the one or the other
        time = f"{found.analysis.milliseconds[i]:.2f} ms" if found.analysis.milliseconds else ""
        head = html("dot", exit_colour(i, len(found.exits))) + str(i + 1)
        rows.append((head, short(each.macs), time, count(each.kept), percent(score.top1), percent(score.top3)))
    title = "Each exit alone"
    columns = ("exit", "MACs", "latency", "weights kept", "accuracy", "among top 3")
    return html("heading", title) + html("frame", "wide", title, html("figures", columns, rows))


def leaving(facts: Facts) -> tuple[str, Markup]:
    """Where the pictures of each class leave, the classes that leave latest on top."""
    found = known(facts)
    analysis, exits = found.analysis, len(found.analysis.macs)
    if exits == 1:
        return "", html("missing", "The network has one exit: every picture leaves there.")
    if analysis.by_policy:
        lead = f"Where the calibrated policy lets the {found.part} of each class leave."
    else:
        lead = (
            "Without a calibrated policy: the first exit that is right about each test picture; the last one also "
            "takes what no exit gets right."
        )
    if len(analysis.by_class) > _CLASSES:
        lead += f" The {_CLASSES} classes that leave latest are drawn; the table has all {len(analysis.by_class)}."
    # A class without pictures leaves nowhere.
    ordered = sorted(analysis.by_class, key=lambda each: each.macs or 0.0, reverse=True)
    drawn = ordered[:_CLASSES]
    places = list(range(len(drawn)))
    traces = [
        bars(
            [each.exits[i] / max(sum(each.exits), 1) for each in drawn],
            places,
            f"%{{customdata[0]}} of %{{customdata[1]}} pictures, %{{x:.1%}}<extra>exit {i + 1}</extra>",
            orientation="h",
            name=f"exit {i + 1}",
            customdata=[[each.exits[i], sum(each.exits)] for each in drawn],
            marker_color=exit_colour(i, exits),
            showlegend=exits <= MANY,
        )
        for i in range(exits)
    ]
    shares = {"tickformat": ".0%", "range": [0, 1.005], "dtick": 0.25}
    names = [plotly_text(each.name, 18) for each in drawn]
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
    table = Table(columns, [(each.name, *each.exits, each.macs) for each in ordered])
    caption = "The share of each class that leaves at each exit, the classes that leave latest on top."
    if exits > MANY:
        caption += " The first exit is amber, the last one blue."
    return lead, plot("leaving-by-class", caption, table, traces, layout)


def reliability(facts: Facts) -> tuple[str, Markup]:
    """The calibration curve of every exit."""
    lead = (
        "Can it be believed? Of the pictures that an exit is 80 % sure of, 80 % should be right: on the diagonal. "
        "Below it the exit is too sure of itself. The expected calibration error is the mean distance, each "
        "picture counting alike."
    )
    curves = known(facts).analysis.reliability
    exits = len(curves)
    diagonal = {"color": GREY, "width": 1, "dash": "dash"}
    traces: list[Trace] = [
        scatter("lines", [0, 1], [0, 1], None, name="perfect", line=diagonal, showlegend=False),
    ]
    for i, curve in enumerate(curves):
        filled = [each for each in curve.bins if each.count]
        most = max(each.count for each in filled)
        traces.append(
            scatter(
                "lines+markers",
                [each.confidence for each in filled],
                [each.accuracy for each in filled],
                "%{x:.1%} sure, %{y:.1%} right<br>%{customdata} pictures"
                f"<extra>exit {i + 1}, error {percent(curve.error)}</extra>",
                name=f"exit {i + 1}: {percent(curve.error)}",
                customdata=[each.count for each in filled],
                line={"color": faded(exit_colour(i, exits)), "width": 1.5},
                marker={
                    "symbol": exit_symbol(i),
                    "color": exit_colour(i, exits),
                    "opacity": 0.9,
                    # The area says how many pictures a point stands for.
                    "size": [5 + 13 * (each.count / most) ** 0.5 for each in filled],
                },
                showlegend=exits <= MANY,
            )
        )
    layout = {
        "height": 440,
        "xaxis": {"title_text": "mean confidence", "tickformat": ".0%", "range": [-0.02, 1.04]},
        "yaxis": {"title_text": "accuracy", "tickformat": ".0%", "range": [-0.04, 1.06]},
    }
    errors = ", ".join(percent(curve.error) for curve in curves)
    if exits > MANY:
        errors = f"{percent(curves[0].error)} at the first exit to {percent(curves[-1].error)} at the last"
    caption = (
        f"Accuracy against confidence in {len(curves[0].bins)} bins; larger marks stand for more pictures. Expected "
        f"calibration error by exit: {errors}."
    )
    columns = (
        "exit",
        "from",
        "to",
        "pictures",
        "mean confidence",
        "accuracy",
        "expected calibration error of the exit",
    )
    rows = [
        (i, each.low, each.high, each.count, each.confidence, each.accuracy, curve.error)
        for i, curve in enumerate(curves, start=1)
        for each in curve.bins
    ]
    return lead, plot("reliability", caption, Table(columns, rows), traces, layout)
