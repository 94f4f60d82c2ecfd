"""What the exits are worth: accuracy against cost, by threshold, for each alone, and by the calibrated policy."""

from pathlib import Path

from ramify.run.readback import Measured
from ramify.show.report.facts import Facts
from ramify.show.report.page import Section
from ramify.show.report.parts import missing, wide
from ramify.show.report.plot import (
    ACCENT,
    GREY,
    Plot,
    Table,
    Value,
    exit_colour,
    exit_symbol,
    figure,
    plot_html,
)
from ramify.show.words import count, percent, short


def cost_section(facts: Facts) -> Section:
    """Accuracy against average MACs."""
    title = "Accuracy and cost"
    if facts.measured is None:
        return Section("cost", title, "", missing(facts.unmeasured))
    found = facts.measured
    if len(found.analysis.macs) == 1:
        why = "The network has one exit: every picture costs the same, and there is nothing to trade."
        return Section("cost", title, "", _exit_table(found) + missing(why))
    lead = (
        "A picture leaves at the first exit whose highest probability reaches a threshold: with a lower threshold the "
        f"average picture costs less. On {count(found.pictures)} {found.part} of {Path(found.source).name}."
    )
    body = plot_html(_cost_plot(found)) + _policy_words(found)
    return Section("cost", title, lead, body + _exit_table(found))


def _cost_plot(found: Measured) -> Plot:
    analysis = found.analysis
    exits, last = len(analysis.macs), analysis.macs[-1]
    curve = analysis.curve
    traces: list[dict[str, object]] = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "by threshold",
            "x": [point.macs for point in curve],
            "y": [point.accuracy for point in curve],
            "line": {"color": GREY, "width": 2},
            "customdata": [[point.threshold, point.macs / last] for point in curve],
            "hovertemplate": "threshold %{customdata[0]:.4g}<br>%{y:.2%} right<br>%{x:.3s} MACs, "
            "%{customdata[1]:.0%} of the last exit<extra></extra>",
        },
        {
            "type": "scatter",
            "mode": "markers",
            "name": "exits",
            "x": list(analysis.macs),
            "y": list(analysis.accuracy),
            "marker": {
                "size": 12,
                "color": [exit_colour(i, exits) for i in range(exits)],
                "symbol": [exit_symbol(i) for i in range(exits)],
            },
            "customdata": [[i + 1, macs / last] for i, macs in enumerate(analysis.macs)],
            "hovertemplate": "exit %{customdata[0]} for every picture<br>%{y:.2%} right<br>%{x:.3s} MACs, "
            "%{customdata[1]:.0%} of the last exit<extra></extra>",
        },
        {
            "type": "scatter",
            "mode": "markers",
            "name": "oracle",
            "x": [analysis.oracle.macs],
            "y": [analysis.oracle.accuracy],
            "marker": {"size": 13, "symbol": "star-open", "color": GREY, "line": {"width": 2}},
            "hovertemplate": "oracle: each picture at its first right exit<br>%{y:.2%} right<br>%{x:.3s} MACs"
            "<extra></extra>",
        },
    ]
    columns = ("what", "threshold or exit", "average MACs", "accuracy", "average milliseconds")
    times = analysis.milliseconds
    rows: list[tuple[Value, ...]] = [
        ("threshold", point.threshold, point.macs, point.accuracy, point.milliseconds) for point in curve
    ]
    rows += [
        ("exit", i + 1, macs, analysis.accuracy[i], times[i] if times else None) for i, macs in enumerate(analysis.macs)
    ]
    rows.append(("oracle", None, analysis.oracle.macs, analysis.oracle.accuracy, analysis.oracle.milliseconds))
    caption = "Accuracy against the multiply-accumulates of an average picture: up and to the left is better."
    if found.outcome is not None:
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": "calibrated",
                "x": [found.outcome.macs],
                "y": [found.outcome.accuracy],
                "marker": {
                    "size": 17,
                    "symbol": "circle-open",
                    "color": ACCENT,
                    "line": {"width": 3},
                },
                "hovertemplate": "calibrated policy<br>%{y:.2%} right<br>%{x:.3s} MACs<extra></extra>",
            }
        )
        rows.append(("calibrated", None, found.outcome.macs, found.outcome.accuracy, found.outcome.milliseconds))
        caption += " The ring is the calibrated policy."
    layout = {
        "xaxis": {"title": {"text": "average MACs"}, "rangemode": "tozero", "tickformat": "~s"},
        "yaxis": {"title": {"text": f"accuracy on the {found.part}"}, "tickformat": ".1~%"},
    }
    return Plot("accuracy-against-macs", figure(traces, layout), Table(columns, tuple(rows)), caption)


def _policy_words(found: Measured) -> str:
    if found.outcome is None or found.policy is None:
        return missing(
            "No exit policy was calibrated for this run, so there is no calibrated point, and every picture goes to "
            "the last exit; ramify calibrate finds one, and ramify report draws it."
        )
    outcome, rule = found.outcome, found.policy.calibration.policy
    heats = rule.temperatures or (1.0,) * rule.exits
    marks = [*("never" if each is None else f"{each:.4g}" for each in rule.thresholds), "all"]
    rows = "".join(
        f'<tr><th scope="row">{i}</th><td class="number">{mark}</td><td class="number">{heat:.2f}</td>'
        f'<td class="number">{percent(share)}</td></tr>'
        for i, (mark, heat, share) in enumerate(zip(marks, heats, outcome.exits, strict=True), start=1)
    )
    return (
        f"<h3>The calibrated policy</h3><p>By {rule.criterion.replace('_', ' ')}, chosen on "
        f"{count(found.policy.calibration.pictures)} validation pictures. On the {found.part} it gets "
        f"{percent(outcome.accuracy)} right, {percent(found.analysis.accuracy[-1])} at the last exit alone, for "
        f"{percent(outcome.macs / found.analysis.macs[-1])} of its multiply-accumulates.{_ranking_words(found)}</p>"
        + wide(
            "The calibrated policy",
            '<table><thead><tr><th scope="col">exit</th><th scope="col" class="number">leaves from</th>'
            '<th scope="col" class="number">temperature</th><th scope="col" class="number">leaving</th></tr></thead>'
            f"<tbody>{rows}</tbody></table>",
        )
    )


def _ranking_words(found: Measured) -> str:
    """How well the scores rank pictures by whether waiting helps, and the accuracy against the best exit."""
    ranking = found.ranking
    if ranking is None:
        return ""
    best = ranking.against_best
    aurocs = ", ".join("-" if each is None else f"{each:.2f}" for each in ranking.auroc)
    return (
        f" Against the exit that is best alone that is {100 * best.mean:+.2f} points ({100 * best.low:+.2f} to "
        f"{100 * best.high:+.2f} with 95 %). Its scores tell the pictures that a deeper exit would correct from the "
        f"rest with an AUC of {aurocs} by exit, 0.5 being chance."
    )


def _exit_table(found: Measured) -> str:
    """Each exit alone."""
    times = found.analysis.milliseconds
    rows = ""
    for i, each in enumerate(found.exits):
        score = each.test or each.valid
        assert score is not None  # it was measured on the one or the other
        time = f"{times[i]:.2f} ms" if times else ""
        cells = (short(each.macs), time, count(each.kept), percent(score.top1), percent(score.top3))
        rows += (
            f'<tr><th scope="row">{_dot(i, len(found.exits))}{i + 1}</th>'
            + "".join(f'<td class="number">{cell}</td>' for cell in cells)
            + "</tr>"
        )
    heads = ("MACs", "latency", "weights kept", "accuracy", "among top 3")
    return "<h3>Each exit alone</h3>" + wide(
        "Each exit alone",
        '<table><thead><tr><th scope="col">exit</th>'
        + "".join(f'<th scope="col" class="number">{head}</th>' for head in heads)
        + f"</tr></thead><tbody>{rows}</tbody></table>",
    )


def _dot(exit_: int, exits: int) -> str:
    return f'<span class="dot" style="background:{exit_colour(exit_, exits)}"></span>'
