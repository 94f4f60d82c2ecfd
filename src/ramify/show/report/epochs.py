"""The sections of a run by epoch: accuracy, density, time and memory, with the changes of the network marked."""

from collections.abc import Sequence

from markupsafe import Markup

from ramify.run.events import Grew, GrowthEnded, Pruned, Widened
from ramify.show.report.facts import Facts
from ramify.show.report.page import html
from ramify.show.report.plot import (
    ACCENT,
    GREY,
    MANY,
    Table,
    Trace,
    Value,
    bars,
    exit_colour,
    plot,
    plotly_text,
    scatter,
)
from ramify.show.words import Change, change_words, duration, percent

_LISTED = 12
"""Changes that are listed at once; of more, the list is folded away."""


def not_trained(facts: Facts) -> str:
    """Why a run has no epochs to show; empty where it has."""
    return "" if facts.epochs else "This run trained for no epoch: it keeps the network that it made of its parent's."


def accuracy(facts: Facts) -> tuple[str, Markup]:
    """Accuracy of every exit by epoch, and the list of changes."""
    validated = any(each.valid is not None for done in facts.epochs for each in done.exits)
    lead = "Each line is one exit "
    if validated:
        lead += "on the validation pictures; the thin lines are the training pictures, augmented and while learning."
    else:
        lead += "on the training pictures, augmented and while learning: this run held none out for validation."
    if facts.summary.finished:
        lead += f" The network of epoch {facts.summary.epoch} is kept."
    exits = max(len(done.exits) for done in facts.epochs)
    traces: list[Trace] = []
    for exit_ in range(exits):
        figures = [done.exits[exit_] if exit_ < len(done.exits) else None for done in facts.epochs]
        for part in ("train", "valid") if validated else ("train",):
            main = part == "valid" or not validated
            scores = [None if each is None else each.valid if part == "valid" else each.train for each in figures]
            traces.append(
                _line(
                    facts,
                    [None if score is None else score.top1 for score in scores],
                    f"%{{y:.2%}} of {'validation' if part == 'valid' else 'training'}",
                    f"exit {exit_ + 1}",
                    mode=_points(facts) if main else "lines",
                    legendgroup=str(exit_),
                    showlegend=main and exits <= MANY,
                    opacity=1 if main else 0.4,
                    line={"color": exit_colour(exit_, exits), "width": 2.5 if main else 1},
                    marker_size=5,
                )
            )
    rows = [
        (
            *(done.epoch, exit_ + 1, each.train.top1, each.valid.top1 if each.valid else None),
            *(each.train.loss, each.valid.loss if each.valid else None),
        )
        for done in facts.epochs
        for exit_, each in enumerate(done.exits)
    ]
    columns = ("epoch", "exit", "train accuracy", "valid accuracy", "train loss", "valid loss")
    caption = ["Accuracy of every exit by epoch."]
    caption += ["The first exit is amber, the last one blue."] if exits > MANY else []
    caption += ["Dotted lines mark growth (▲), widening (◆) and pruning (✂)."] if facts.changes else []
    layout = _layout(facts, "accuracy", yaxis_tickformat=".0%", legend=_below(0.2))
    drawn = plot("accuracy-by-epoch", " ".join(caption), Table(columns, rows), traces, layout)
    return lead, drawn + _changes(facts.changes)


def _changes(changes: Sequence[Change]) -> Markup:
    if not changes:
        return html("prose", "Nothing was grown, widened or pruned in this run.")
    rows = [(change.epoch, change_words(change)) for change in changes]
    table = html("frame", "wide", "What happened", html("table", Table(("before epoch", "change"), rows)))
    if len(rows) > _LISTED:
        table = html("details", f"{len(rows)} changes", table)
    return html("heading", "What happened") + table


def _layout(facts: Facts, title: str, marked: bool = True, **more: object) -> dict[str, object]:
    """Layout of a plot over epochs, with a dotted line before each epoch at which the network changed."""
    last = facts.epochs[-1].epoch
    axis: dict[str, object] = {"title_text": "epoch", "range": [0.3, last + 0.7], "tickformat": "d"}
    layout = {"xaxis": {**axis, "dtick": 1} if last <= 12 else axis, "yaxis_title_text": title, **more}
    if not marked:
        return layout
    by_epoch: dict[int, list[Change]] = {}
    for change in facts.changes:
        by_epoch.setdefault(change.epoch, []).append(change)
    # Where there are many, only the signs are left; the words are in the hover and in the list below.
    brief = len(by_epoch) > 6
    line = {"type": "line", "xref": "x", "yref": "paper", "y0": 0, "y1": 1}
    style = {"color": GREY, "width": 1, "dash": "dot"}
    # The script of the page cuts notes of this name to their signs where there is little room.
    note = {"name": "change", "xref": "x", "y": 1, "yref": "paper", "yanchor": "bottom", "showarrow": False}
    return layout | {
        "margin_t": 20 + 16 * max(map(len, by_epoch.values()), default=0),
        "shapes": [{**line, "x0": epoch - 0.5, "x1": epoch - 0.5, "line": style} for epoch in by_epoch],
        "annotations": [
            {
                **note,
                "x": epoch - 0.5,
                "text": "<br>".join(dict.fromkeys(_sign(each, brief) for each in found)),
                "hovertext": "<br>".join(f"before epoch {epoch}: {plotly_text(change_words(each))}" for each in found),
            }
            for epoch, found in by_epoch.items()
        ],
    }


def _sign(change: Change, brief: bool) -> str:
    match change:
        case Grew():
            sign, word = "▲", f"stage {change.growth.stage + 1}"
        case Widened():
            sign, word = "◆", "wider"
        case Pruned():
            sign, word = "✂", "pruned"
        case GrowthEnded():
            sign, word = "■", "grown"
    return sign if brief else f"{sign} {word}"


def density(facts: Facts) -> tuple[str, Markup]:
    """Density by layer, and by stage over the epochs where it changed."""
    layers = facts.summary.layers
    total, kept = (sum(each[i] for each in layers.values()) for i in (0, 1))
    drawn = bars(
        [left / size for size, left in layers.values()],
        [_layer_words(name) for name in layers],
        "%{y}<br>%{customdata[0]:,} of %{customdata[1]:,} weights kept, %{x:.1%}<extra></extra>",
        orientation="h",
        customdata=[[left, size] for size, left in layers.values()],
        marker_color=[exit_colour(_stage_of(name), facts.exits) for name in layers],
    )
    layout = {
        "height": 90 + 18 * len(layers),
        "xaxis": {"title_text": "share of weights kept", "tickformat": ".0%", "range": [0, 1.03], "dtick": 0.25},
        "yaxis": {"autorange": "reversed", "type": "category", "tickfont_size": 11, "showgrid": False},
        "bargap": 0.3,
        "showlegend": False,
    }
    rows = [(name, size, left, left / size) for name, (size, left) in layers.items()]
    table = Table(("layer", "weights", "kept", "density"), rows)
    caption = "The share of the weights of each layer that no mask removes, in the color of the exit of its stage."
    body = plot("density-by-layer", caption, table, [drawn], layout)
    if facts.epochs and any(isinstance(change, Pruned) for change in facts.changes):
        body += _density_by_epoch(facts)
    moves = [done.regrown for done in facts.epochs if done.regrown is not None]
    if moves:
        steps, moved = sum(each.times for each in moves), sum(sum(each.moved) for each in moves)
        body += html(
            "prose",
            f"Connections moved while the network learned ({facts.config.prune.policy}): {moved:,} moves in {steps:,} "
            "steps. Each took one connection away and gave its layer another, so densities stayed.",
        )
    if kept < total:
        lead = f"{kept:,} of {total:,} weights are kept, {percent(kept / total)}; the others are masked and zero."
    elif facts.summary.receipt is not None:
        lead = "Compaction has taken masked channels out; no weight that is left is masked."
    else:
        lead = "Every weight is there: nothing was pruned."
    return lead, body


def _density_by_epoch(facts: Facts) -> Markup:
    stages = max(len(done.density) for done in facts.epochs)
    traces = [
        _line(
            facts,
            [done.density[stage] if stage < len(done.density) else None for done in facts.epochs],
            "%{y:.1%} kept",
            f"stage {stage + 1}",
            line={"color": exit_colour(stage, stages), "width": 2.5, "shape": "hvh"},
            showlegend=stages <= MANY,
        )
        for stage in range(stages)
    ]
    layout = _layout(facts, "density", height=300, yaxis_tickformat=".0%", yaxis_range=[0, 1.04], legend=_below(0.28))
    rows = [(done.epoch, stage + 1, share) for done in facts.epochs for stage, share in enumerate(done.density)]
    table = Table(("epoch", "stage", "density"), rows)
    return plot("density-by-epoch", "The share of weights kept in each stage, by epoch.", table, traces, layout)


def _line(facts: Facts, values: Sequence[float | None], hover: str, name: str, **more: object) -> Trace:
    """A value for each epoch, None where there is none."""
    mode = str(more.pop("mode", "lines"))
    text = f"epoch %{{x}}<br>{hover}<extra>{name}</extra>"
    return scatter(mode, [done.epoch for done in facts.epochs], values, text, name=name, **more)


def _points(facts: Facts) -> str:
    return "lines+markers" if len(facts.epochs) <= 60 else "lines"


def _below(distance: float) -> dict[str, object]:
    """A legend below the plot, where the marks of changes leave it room."""
    return {"y": -distance, "yanchor": "top"}


def _stage_of(layer: str) -> int:
    parts = layer.split(".")
    return int(parts[1]) if parts[0] == "stages" else 0


def _layer_words(name: str) -> str:
    """``'stages.0.cells.1.conv2' -> 'stage 1, cell 2, conv2'``."""
    parts = name.split(".")
    if parts[0] != "stages":
        return " ".join(parts)
    words, rest = [f"stage {int(parts[1]) + 1}"], parts[2:]
    if rest[0] == "cells":
        words, rest = [*words, f"cell {int(rest[1]) + 1}"], rest[2:]
    return ", ".join([*words, " ".join(part for part in rest if not part.isdigit())])


def effort(facts: Facts) -> tuple[str, Markup]:
    """Time and memory by epoch."""
    epochs = facts.epochs
    speed = sorted(done.pictures_per_second for done in epochs)[len(epochs) // 2]
    total = duration(sum(done.seconds for done in epochs))
    lead = f"{total} of training in {len(epochs)} epochs, {speed:,.0f} pictures a second (median)."
    drawn = bars(
        [done.epoch for done in epochs],
        [done.seconds for done in epochs],
        "epoch %{x}<br>%{y:.2f} s, %{customdata[0]:,.0f} pictures/s<br>learning rate %{customdata[1]:.3g}"
        "<extra></extra>",
        name="seconds",
        marker_color=ACCENT,
        customdata=[[done.pictures_per_second, done.learning_rate] for done in epochs],
    )
    rows: list[tuple[Value, ...]] = [
        (done.epoch, done.seconds, done.pictures_per_second, done.learning_rate, done.loss) for done in epochs
    ]
    table = Table(("epoch", "seconds", "pictures per second", "learning rate", "weighted loss"), rows)
    caption = "Seconds of training in each epoch, validation left out; a growth makes the epochs after it longer."
    layout = _layout(facts, "seconds of training", height=280, yaxis_rangemode="tozero", bargap=0.25)
    body = plot("time-by-epoch", caption, table, [drawn], layout)
    if any(done.memory is not None or done.device_memory is not None for done in epochs):
        return lead, body + _memory(facts)
    return lead, body + html("missing", "Memory was not recorded when this run was trained.")


def _memory(facts: Facts) -> Markup:
    epochs = facts.epochs
    lines = [("main memory", [done.memory for done in epochs], ACCENT)]
    caption = "The most main memory that the process has held up to each epoch, in MiB (2^20 bytes)."
    if any(done.device_memory is not None for done in epochs):
        lines.append(("GPU memory", [done.device_memory for done in epochs], exit_colour(0, 2)))
        caption += " GPU memory is the most that PyTorch held in that epoch."
    traces = [
        _line(
            facts,
            [None if each is None else each / 2**20 for each in held],
            "%{y:,.0f} MiB",
            name,
            mode=_points(facts),
            line={"color": colour, "width": 2.5},
        )
        for name, held, colour in lines
    ]
    style = {"height": 280, "yaxis_rangemode": "tozero", "showlegend": len(traces) > 1}
    layout = _layout(facts, "peak memory, MiB", marked=False, **style)
    rows = [(done.epoch, done.memory, done.device_memory) for done in epochs]
    table = Table(("epoch", "peak memory, bytes", "peak GPU memory, bytes"), rows)
    return plot("memory-by-epoch", caption, table, traces, layout)
