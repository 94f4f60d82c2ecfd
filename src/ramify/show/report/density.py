"""How dense a network is: by layer, and by stage over the epochs."""

from ramify.run.events import Pruned
from ramify.show.report.facts import Facts
from ramify.show.report.history import LEGEND, epoch_axis, marks, top_margin
from ramify.show.report.page import Section
from ramify.show.report.parts import prose
from ramify.show.report.plot import Plot, Table, exit_colour, figure, plot_html
from ramify.show.words import percent


def density_section(facts: Facts) -> Section:
    """Density by layer, and by stage over the epochs where it changed."""
    layers = facts.summary.layers
    total, kept = (sum(each[i] for each in layers.values()) for i in (0, 1))
    title = "Density by layer"
    colours = [exit_colour(_stage_of(name), facts.exits) for name in layers]
    bars = {
        "type": "bar",
        "orientation": "h",
        "y": [_layer_words(name) for name in layers],
        "x": [left / size for size, left in layers.values()],
        "customdata": [[left, size] for size, left in layers.values()],
        "marker": {"color": colours},
        "hovertemplate": "%{y}<br>%{customdata[0]:,} of %{customdata[1]:,} weights kept, %{x:.1%}<extra></extra>",
    }
    layout = {
        "height": 90 + 18 * len(layers),
        "xaxis": {"title": {"text": "share of weights kept"}, "tickformat": ".0%", "range": [0, 1.03], "dtick": 0.25},
        "yaxis": {"autorange": "reversed", "type": "category", "tickfont": {"size": 11}, "showgrid": False},
        "bargap": 0.3,
        "showlegend": False,
    }
    rows = tuple((name, size, left, left / size) for name, (size, left) in layers.items())
    table = Table(("layer", "weights", "kept", "density"), rows)
    caption = "The share of the weights of each layer that no mask removes, in the colour of the exit of its stage."
    body = plot_html(Plot("density-by-layer", figure([bars], layout), table, caption))
    if facts.epochs and any(isinstance(change, Pruned) for change in facts.changes):
        body += plot_html(_density_plot(facts))
    moves = [done.regrown for done in facts.epochs if done.regrown is not None]
    if moves:
        steps, moved = sum(each.times for each in moves), sum(sum(each.moved) for each in moves)
        body += prose(
            f"Connections moved while the network learned ({facts.config.prune.policy}): {moved:,} moves in {steps:,} "
            "steps. Each took one connection away and gave its layer another, so densities stayed."
        )
    if facts.summary.receipt is not None and kept == total:
        lead = "Compaction has taken masked channels out; what is left is whole."
    elif kept == total:
        lead = "Every weight is there: nothing was pruned."
    else:
        lead = f"{kept:,} of {total:,} weights are kept, {percent(kept / total)}; the others are masked and zero."
    return Section("density", title, lead, body)


def _stage_of(layer: str) -> int:
    parts = layer.split(".")
    return int(parts[1]) if parts[0] == "stages" else 0


def _layer_words(name: str) -> str:
    """``'stages.0.cells.1.conv2' -> 'stage 1, cell 2, conv2'``."""
    parts = name.split(".")
    if parts[0] != "stages":
        return " ".join(parts)
    words = [f"stage {int(parts[1]) + 1}"]
    rest = parts[2:]
    if rest[0] == "cells":
        words.append(f"cell {int(rest[1]) + 1}")
        rest = rest[2:]
    return ", ".join([*words, " ".join(part for part in rest if not part.isdigit())])


def _density_plot(facts: Facts) -> Plot:
    stages = max(len(done.density) for done in facts.epochs)
    traces = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": f"stage {stage + 1}",
            "x": [done.epoch for done in facts.epochs if stage < len(done.density)],
            "y": [done.density[stage] for done in facts.epochs if stage < len(done.density)],
            "line": {"color": exit_colour(stage, stages), "width": 2.5, "shape": "hvh"},
            "showlegend": stages <= LEGEND,
            "hovertemplate": f"epoch %{{x}}<br>%{{y:.1%}} kept<extra>stage {stage + 1}</extra>",
        }
        for stage in range(stages)
    ]
    layout = {
        "height": 300,
        "xaxis": epoch_axis(facts.epochs),
        "yaxis": {"title": {"text": "density"}, "tickformat": ".0%", "range": [0, 1.04]},
        "margin": {"t": top_margin(facts.changes)},
        "legend": {"y": -0.28, "yanchor": "top"},
        **marks(facts.changes),
    }
    rows = tuple((done.epoch, stage + 1, share) for done in facts.epochs for stage, share in enumerate(done.density))
    table = Table(("epoch", "stage", "density"), rows)
    return Plot("density-by-epoch", figure(traces, layout), table, "The share of weights kept in each stage, by epoch.")
