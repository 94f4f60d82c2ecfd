"""The sections of a run by epoch: accuracy, density, time and memory, with the changes of the network marked."""

from collections.abc import Sequence
from itertools import groupby

from markupsafe import Markup

from ramify.run.events import Grew, GrowthEnded, Pruned, Widened
from ramify.show.report.facts import Facts
from ramify.show.report.page import html
from ramify.show.report.plot import (
    ACCENT,
    GREY,
    MANY,
    Plot,
    Table,
    Trace,
    Value,
    bars,
    exit_color,
    plot,
    plotly_text,
    scatter,
)
from ramify.show.words import Change, change_words

_LISTED = 12
"""Changes that are listed at once; a longer list is folded away."""


def not_trained(facts: Facts) -> str:
    """Why a run has no epochs to show; empty where it has."""
    return "" if facts.epochs else "This run trained for no epoch: it keeps the network that it made of its parent's."


def accuracy_section(facts: Facts) -> Markup:
    """Accuracy of every exit by epoch, and the list of changes."""
    validated = any(figures.valid is not None for done in facts.epochs for figures in done.exits)
    exits = max(len(done.exits) for done in facts.epochs)
    traces: list[Trace] = []
    for exit_ in range(exits):
        figures = [done.exits[exit_] if exit_ < len(done.exits) else None for done in facts.epochs]
        for part in ("train", "valid") if validated else ("train",):
            main = part == "valid" or not validated
            scores = [None if row is None else row.valid if part == "valid" else row.train for row in figures]
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
                    line={"color": exit_color(exit_, exits), "width": 2.5 if main else 1},
                    marker_size=5,
                )
            )
    rows = [
        (
            *(done.epoch, exit_ + 1, row.train.top1, row.valid.top1 if row.valid else None),
            *(row.train.loss, row.valid.loss if row.valid else None),
        )
        for done in facts.epochs
        for exit_, row in enumerate(done.exits)
    ]
    columns = ("epoch", "exit", "train accuracy", "valid accuracy", "train loss", "valid loss")
    layout = _layout(facts, "accuracy", yaxis_tickformat=".0%", legend=_below(0.2))
    drawn = plot("accuracy-by-epoch", Table(columns, rows), traces, layout)
    changes = Table(("before epoch", "change"), [(change.epoch, change_words(change)) for change in facts.changes])
    return html("run.epochs", facts.summary, drawn, changes, validated, exits > MANY, len(changes.rows) > _LISTED)


def _layout(facts: Facts, title: str, marked: bool = True, **more: object) -> dict[str, object]:
    """Layout of a plot over epochs, with a dotted line before each epoch at which the network changed."""
    last = facts.epochs[-1].epoch
    axis: dict[str, object] = {"title_text": "epoch", "range": [0.3, last + 0.7], "tickformat": "d"}
    layout = {"xaxis": {**axis, "dtick": 1} if last <= 12 else axis, "yaxis_title_text": title, **more}
    if not marked:
        return layout
    by_epoch = {epoch: [*changes] for epoch, changes in groupby(facts.changes, lambda change: change.epoch)}
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
                "text": "<br>".join(dict.fromkeys(_sign(change, brief) for change in changes)),
                "hovertext": "<br>".join(f"before epoch {epoch}: {plotly_text(change_words(it))}" for it in changes),
            }
            for epoch, changes in by_epoch.items()
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


def density_section(facts: Facts) -> Markup:
    """Density by layer, and by stage over the epochs where it changed."""
    layers = facts.summary.layers
    total, kept = (sum(sizes[i] for sizes in layers.values()) for i in (0, 1))
    drawn = bars(
        [left / size for size, left in layers.values()],
        [_layer_words(name) for name in layers],
        "%{y}<br>%{customdata[0]:,} of %{customdata[1]:,} weights kept, %{x:.1%}<extra></extra>",
        orientation="h",
        customdata=[[left, size] for size, left in layers.values()],
        marker_color=[exit_color(_stage_of(name), facts.exits) for name in layers],
    )
    layout = {
        "height": 90 + 18 * len(layers),
        "xaxis": {"title_text": "share of weights kept", "tickformat": ".0%", "range": [0, 1.03], "dtick": 0.25},
        "yaxis": {"autorange": "reversed", "type": "category", "tickfont_size": 11, "showgrid": False},
        "bargap": 0.3,
        "showlegend": False,
    }
    rows = [(name, size, left, left / size) for name, (size, left) in layers.items()]
    by_layer = plot("density-by-layer", Table(("layer", "weights", "kept", "density"), rows), [drawn], layout)
    pruned = facts.epochs and any(isinstance(change, Pruned) for change in facts.changes)
    moves = [done.regrown for done in facts.epochs if done.regrown is not None]
    return html(
        "run.density",
        facts,
        (kept, total),
        by_layer,
        _density_by_epoch(facts) if pruned else None,
        (sum(sum(regrown.moved) for regrown in moves), sum(regrown.times for regrown in moves)),
    )


def _density_by_epoch(facts: Facts) -> Plot:
    stages = max(len(done.density) for done in facts.epochs)
    traces = [
        _line(
            facts,
            [done.density[stage] if stage < len(done.density) else None for done in facts.epochs],
            "%{y:.1%} kept",
            f"stage {stage + 1}",
            line={"color": exit_color(stage, stages), "width": 2.5, "shape": "hvh"},
            showlegend=stages <= MANY,
        )
        for stage in range(stages)
    ]
    layout = _layout(facts, "density", height=300, yaxis_tickformat=".0%", yaxis_range=[0, 1.04], legend=_below(0.28))
    rows = [(done.epoch, stage + 1, share) for done in facts.epochs for stage, share in enumerate(done.density)]
    return plot("density-by-epoch", Table(("epoch", "stage", "density"), rows), traces, layout)


def _line(facts: Facts, values: Sequence[float | None], hover: str, name: str, **more: object) -> Trace:
    """A value for each epoch, None where there is none."""
    mode = str(more.pop("mode", "lines"))
    text = f"epoch %{{x}}<br>{hover}<extra>{name}</extra>"
    return scatter(mode, [done.epoch for done in facts.epochs], values, text, name=name, **more)


def _points(facts: Facts) -> str:
    return "lines+markers" if len(facts.epochs) <= 60 else "lines"


def _below(distance: float) -> dict[str, object]:
    """A legend below the plot, clear of the marks of changes."""
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


def effort_section(facts: Facts) -> Markup:
    """Time and memory by epoch."""
    epochs = facts.epochs
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
    layout = _layout(facts, "seconds of training", height=280, yaxis_rangemode="tozero", bargap=0.25)
    known = any(done.memory is not None or done.device_memory is not None for done in epochs)
    return html(
        "run.effort",
        epochs,
        sorted(done.pictures_per_second for done in epochs)[len(epochs) // 2],
        plot("time-by-epoch", table, [drawn], layout),
        _memory(facts) if known else None,
    )


def _memory(facts: Facts) -> Plot:
    epochs = facts.epochs
    lines = [
        ("main memory", [done.memory for done in epochs], ACCENT),
        ("GPU memory", [done.device_memory for done in epochs], exit_color(0, 2)),
    ]
    if all(done.device_memory is None for done in epochs):
        lines.pop()
    traces = [
        _line(
            facts,
            [None if size is None else size / 2**20 for size in sizes],
            "%{y:,.0f} MiB",
            name,
            mode=_points(facts),
            line={"color": color, "width": 2.5},
        )
        for name, sizes, color in lines
    ]
    style = {"height": 280, "yaxis_rangemode": "tozero", "showlegend": len(traces) > 1}
    layout = _layout(facts, "peak memory, MiB", marked=False, **style)
    rows = [(done.epoch, done.memory, done.device_memory) for done in epochs]
    table = Table(("epoch", "peak memory, bytes", "peak GPU memory, bytes"), rows)
    return plot("memory-by-epoch", table, traces, layout)
