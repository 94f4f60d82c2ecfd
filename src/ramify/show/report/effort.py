"""What a run took: time and memory by epoch."""

from collections.abc import Sequence

from ramify.run.events import EpochDone
from ramify.show.report.facts import Facts
from ramify.show.report.history import epoch_axis, marks, top_margin
from ramify.show.report.page import Section
from ramify.show.report.parts import missing
from ramify.show.report.plot import ACCENT, Plot, Table, exit_colour, figure, plot_html
from ramify.show.words import duration


def effort_section(facts: Facts) -> Section:
    """Time and memory by epoch."""
    title = "Time and memory"
    if not facts.epochs:
        return Section("effort", title, "", missing("This run trained for no epoch, so there is no time to tell."))
    total = sum(done.seconds for done in facts.epochs)
    speed = sorted(done.pictures_per_second for done in facts.epochs)[len(facts.epochs) // 2]
    lead = f"{duration(total)} of training in {len(facts.epochs)} epochs, {speed:,.0f} pictures a second (median)."
    body = plot_html(_seconds_plot(facts))
    if any(done.memory is not None or done.device_memory is not None for done in facts.epochs):
        body += plot_html(_memory_plot(facts.epochs))
    else:
        body += missing("Memory was not recorded when this run was trained.")
    return Section("effort", title, lead, body)


def _seconds_plot(facts: Facts) -> Plot:
    epochs = facts.epochs
    bars = {
        "type": "bar",
        "name": "seconds",
        "x": [done.epoch for done in epochs],
        "y": [done.seconds for done in epochs],
        "marker": {"color": ACCENT},
        "customdata": [[done.pictures_per_second, done.learning_rate] for done in epochs],
        "hovertemplate": "epoch %{x}<br>%{y:.2f} s, %{customdata[0]:,.0f} pictures/s<br>"
        "learning rate %{customdata[1]:.3g}<extra></extra>",
    }
    layout = {
        "height": 280,
        "xaxis": epoch_axis(facts.epochs),
        "yaxis": {"title": {"text": "seconds of training"}, "rangemode": "tozero"},
        "margin": {"t": top_margin(facts.changes)},
        "bargap": 0.25,
        **marks(facts.changes),
    }
    rows = tuple((done.epoch, done.seconds, done.pictures_per_second, done.learning_rate, done.loss) for done in epochs)
    columns = ("epoch", "seconds", "pictures per second", "learning rate", "weighted loss")
    caption = "Seconds of training in each epoch, validation left out; a growth makes the epochs after it longer."
    return Plot("time-by-epoch", figure([bars], layout), Table(columns, rows), caption)


def _memory_plot(epochs: Sequence[EpochDone]) -> Plot:
    lines = [("main memory", [done.memory for done in epochs], ACCENT)]
    if any(done.device_memory is not None for done in epochs):
        lines.append(("GPU memory", [done.device_memory for done in epochs], exit_colour(0, 2)))
    traces = [
        {
            "type": "scatter",
            "mode": "lines+markers" if len(epochs) <= 60 else "lines",
            "name": name,
            "x": [done.epoch for done in epochs],
            "y": [None if each is None else each / 2**20 for each in held],
            "line": {"color": colour, "width": 2.5},
            "hovertemplate": f"epoch %{{x}}<br>%{{y:,.0f}} MiB of {name}<extra></extra>",
        }
        for name, held, colour in lines
    ]
    layout = {
        "height": 280,
        "xaxis": epoch_axis(epochs),
        "yaxis": {"title": {"text": "peak memory, MiB"}, "rangemode": "tozero"},
        "showlegend": len(traces) > 1,
    }
    rows = tuple((done.epoch, done.memory, done.device_memory) for done in epochs)
    caption = "The most main memory that the process has held up to each epoch, in MiB (2^20 bytes)."
    if len(traces) > 1:
        caption += " GPU memory is the most that PyTorch held in that epoch."
    table = Table(("epoch", "peak memory, bytes", "peak GPU memory, bytes"), rows)
    return Plot("memory-by-epoch", figure(traces, layout), table, caption)
