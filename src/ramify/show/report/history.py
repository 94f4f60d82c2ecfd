"""A run by epoch: accuracy of every exit, with the changes of the network marked."""

from collections.abc import Sequence

from ramify.run.events import EpochDone, Grew, GrowthEnded, Pruned, Widened
from ramify.show.report.facts import Change, Facts
from ramify.show.report.page import Section
from ramify.show.report.parts import missing, prose, wide
from ramify.show.report.plot import GREY, Plot, Table, Value, exit_colour, figure, plot_html, plotly_text, table_html
from ramify.show.words import growth_words, pruning_words, widening_words

LEGEND = 8
"""With more exits than so many, the legend gives way to the hover."""

LISTED = 12
"""Changes that are listed at once; of more, the list is folded away."""


def history_section(facts: Facts) -> Section:
    """Accuracy of every exit by epoch."""
    title = "Accuracy by epoch"
    if not facts.epochs:
        why = "This run trained for no epoch: it keeps the network that it made of its parent's."
        return Section("epochs", title, "", missing(why))
    validated = any(each.valid is not None for done in facts.epochs for each in done.exits)
    lines = "on the validation pictures; the thin lines are the training pictures, augmented and while learning"
    lead = (
        f"Each line is one exit, {lines}."
        if validated
        else (
            "Each line is one exit on the training pictures, augmented and while learning: this run held none out for "
            "validation."
        )
    )
    best = f" The network of epoch {facts.summary.epoch} is kept." if facts.summary.finished else ""
    body = plot_html(_accuracy_plot(facts, validated)) + _happenings(facts.changes)
    return Section("epochs", title, lead + best, body)


def change_words(change: Change) -> str:
    """One change as it is written in the log of the run."""
    match change:
        case Grew():
            return growth_words(change)
        case Widened():
            return widening_words(change)
        case Pruned():
            return pruning_words(change)
        case GrowthEnded():
            return f"growth ends; {change.reason}"


def marks(changes: Sequence[Change]) -> dict[str, object]:
    """Layout of a plot over epochs: a dotted line before each epoch at which the network changed."""
    by_epoch: dict[int, list[Change]] = {}
    for change in changes:
        by_epoch.setdefault(change.epoch, []).append(change)
    shapes = [
        {
            "type": "line",
            "xref": "x",
            "yref": "paper",
            "x0": epoch - 0.5,
            "x1": epoch - 0.5,
            "y0": 0,
            "y1": 1,
            "line": {"color": GREY, "width": 1, "dash": "dot"},
        }
        for epoch in by_epoch
    ]
    # In a crowd only the signs are left; the words are in the hover and in the list below.
    brief = len(by_epoch) > 6
    notes = [
        {
            # The script of the page leaves only the sign where there is little room.
            "name": "change",
            "x": epoch - 0.5,
            "xref": "x",
            "y": 1,
            "yref": "paper",
            "yanchor": "bottom",
            "showarrow": False,
            "text": "<br>".join(dict.fromkeys(_sign(each, brief) for each in found)),
            "hovertext": "<br>".join(f"before epoch {epoch}: {plotly_text(change_words(each))}" for each in found),
        }
        for epoch, found in by_epoch.items()
    ]
    return {"shapes": shapes, "annotations": notes}


def _sign(change: Change, brief: bool) -> str:
    match change:
        case Grew():
            return "▲" if brief else f"▲ stage {change.growth.stage + 1}"
        case Widened():
            return "◆" if brief else "◆ wider"
        case Pruned():
            return "✂" if brief else "✂ pruned"
        case GrowthEnded():
            return "■" if brief else "■ grown"


def _accuracy_plot(facts: Facts, validated: bool) -> Plot:
    exits = max(len(done.exits) for done in facts.epochs)
    crowded = exits > LEGEND
    traces: list[dict[str, object]] = []
    for exit_ in range(exits):
        seen = [done for done in facts.epochs if exit_ < len(done.exits)]
        colour = exit_colour(exit_, exits)
        for part in ("train", "valid") if validated else ("train",):
            main = part == "valid" or not validated
            tops = [score.top1 if (score := getattr(done.exits[exit_], part)) else None for done in seen]
            pictures = "validation" if part == "valid" else "training"
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers" if main and len(facts.epochs) <= 60 else "lines",
                    "name": f"exit {exit_ + 1}",
                    "legendgroup": str(exit_),
                    "showlegend": main and not crowded,
                    "x": [done.epoch for done in seen],
                    "y": tops,
                    "opacity": 1 if main else 0.4,
                    "line": {"color": colour, "width": 2.5 if main else 1},
                    "marker": {"size": 5},
                    "hovertemplate": f"epoch %{{x}}<br>%{{y:.2%}} of {pictures}<extra>exit {exit_ + 1}</extra>",
                }
            )
    layout = {
        "xaxis": epoch_axis(facts.epochs),
        "yaxis": {"title": {"text": "accuracy"}, "tickformat": ".0%"},
        "margin": {"t": top_margin(facts.changes)},
        "legend": {"y": -0.2, "yanchor": "top"},
        **marks(facts.changes),
    }
    rows: list[tuple[Value, ...]] = [
        (
            done.epoch,
            exit_ + 1,
            each.train.top1,
            each.valid.top1 if each.valid else None,
            each.train.loss,
            each.valid.loss if each.valid else None,
        )
        for done in facts.epochs
        for exit_, each in enumerate(done.exits)
    ]
    columns = ("epoch", "exit", "train accuracy", "valid accuracy", "train loss", "valid loss")
    sights = "The first exit is amber, the last one blue. " if crowded else ""
    legend = "Dotted lines mark growth (▲), widening (◆) and pruning (✂)." if facts.changes else ""
    caption = f"Accuracy of every exit by epoch. {sights}{legend}".strip()
    return Plot("accuracy-by-epoch", figure(traces, layout), Table(columns, tuple(rows)), caption)


def _happenings(changes: Sequence[Change]) -> str:
    if not changes:
        return prose("Nothing was grown, widened or pruned in this run.")
    rows = tuple((change.epoch, change_words(change)) for change in changes)
    table = wide("What happened", table_html(Table(("before epoch", "change"), rows)))
    if len(rows) > LISTED:
        table = f"<details><summary>{len(rows)} changes</summary>{table}</details>"
    return f"<h3>What happened</h3>{table}"


def top_margin(changes: Sequence[Change]) -> int:
    """Pixels that the signs of :func:`marks` need over a plot."""
    epochs = [change.epoch for change in changes]
    return 20 + 16 * max((epochs.count(epoch) for epoch in epochs), default=0)


def epoch_axis(epochs: Sequence[EpochDone]) -> dict[str, object]:
    """The axis of every plot over epochs: whole numbers, and room for what came before the first."""
    last = epochs[-1].epoch
    axis: dict[str, object] = {"title": {"text": "epoch"}, "range": [0.3, last + 0.7], "tickformat": "d"}
    return {**axis, "dtick": 1} if last <= 12 else axis
