"""The live view of a run on a terminal: a bar for the epochs with the growths marked, a row for each exit."""

import math
import time
from collections.abc import Mapping, Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ramify.config.keys import births
from ramify.config.rules import Config
from ramify.run import events
from ramify.show.terminal.table import add, bold, table
from ramify.show.words import change_words, duration, network_words, percent, plural

BAR = 40
SPARKS = "▁▂▃▄▅▆▇█"
SPARK_WIDTH = 24


class LiveView:
    """An observer that draws in the block ``with view.live``; the view stays on the screen when the block ends."""

    def __init__(self, console: Console) -> None:
        self._started: events.Started | None = None
        self._step: events.StepDone | None = None
        self._epochs: list[events.EpochDone] = []
        self._loading = "loading pictures ..."
        self._note = ""
        self._best: events.NewBest | None = None
        self._growth_epochs: list[int] = []
        self._ended = False
        self._clock = time.monotonic()
        # Last, since it calls render at once.
        self.live = Live(console=console, get_renderable=self.render, refresh_per_second=8)

    def __call__(self, event: events.Event) -> None:
        match event:
            case events.Started():
                self._started, self._epochs, self._step, self._best, self._note = event, [], None, None, ""
                self._growth_epochs, self._ended = [], False
                self._clock = time.monotonic()
            case events.StepDone():
                self._step = event
            case events.Grew() | events.Widened() | events.GrowthEnded() | events.Pruned():
                if isinstance(event, events.Grew | events.Widened):
                    self._growth_epochs.append(event.epoch)
                self._ended = self._ended or isinstance(event, events.GrowthEnded)
                self._note = f"epoch {event.epoch}: {change_words(event)}"
            case events.EpochDone():
                self._epochs.append(event)
            case events.NewBest():
                self._best = event
            case events.StoppedEarly():
                self._note = f"stopped early after epoch {event.epoch}: none was better than epoch {event.best}"
            case events.Finished():
                self.live.refresh()

    def fetching(self, name: str, done: int, total: int | None, unit: str = "bytes") -> None:
        """Show the progress of a download, or of decoding pictures."""
        if unit == "pictures":
            share = done / total if total else 0.0
            bar = "━" * round(BAR * share)
            self._loading = f"decoding {name} {bar:─<{BAR}} {done:,} of {total or 0:,} pictures"
            return
        of = f" of {total / 1e6:.1f}" if total else ""
        self._loading = f"fetching {name}: {done / 1e6:.1f}{of} MB"

    def render(self) -> RenderableType:
        """The view as it is now."""
        started = self._started
        if started is None:
            return Text(self._loading, style="dim")
        return Group(self._heading(started), self._progress(started), self._exits(started), self._footer())

    def _heading(self, started: events.Started) -> Text:
        trained, valid, test = started.pictures
        config = started.config
        return Text.assemble(
            (started.name, "bold"),
            f"  {network_words(config)}\n",
            (
                f"{config.data.source}: {trained:,} + {valid:,} + {test:,} pictures, {started.classes} classes; "
                f"{started.device}, {started.precision}\n",
                "dim",
            ),
            *((f"note: {note}\n", "yellow") for note in started.notes),
        )

    def _progress(self, started: events.Started) -> Text:
        total = started.config.train.epochs
        finished = self._epochs[-1].epoch if self._epochs else started.epoch
        step = self._step
        part = step.done / step.total if step is not None and step.epoch > finished else 0.0
        done = finished + part
        spent = time.monotonic() - self._clock
        here = done - started.epoch
        # Before a tenth of an epoch, loading and setting up weigh too much.
        left = f"{duration(spent / here * (total - done))} left" if here >= 0.1 and done < total else ""
        return Text.assemble(
            (f"epoch {min(finished + (part > 0), total):>3}/{total} ", "bold"),
            *growth_bar(done, total, started.config.growth.epochs or self._growth_epochs),
            f" {100 * done / total:3.0f} %  {duration(spent)}  {left}",
        )

    def _exits(self, started: events.Started) -> Table:
        config = started.config
        density = ["density"] if config.prune.enabled else []
        columns = ["exit", "after", "valid top-1", "top-3", "loss", "train top-1", *density]
        made = table([*columns, "error, halved each step"], left=(1, len(columns)), rule=False)
        latest = self._epochs[-1] if self._epochs else None
        born = births(config) if config.growth.mode == "scheduled" else None
        for i, depth in enumerate(exit_depths(config)):
            label, after = str(i + 1), plural(depth, "cell")
            if latest is None or i >= len(latest.exits):
                grows = "does not grow" if self._ended else "grows when the loss stalls"
                if born is not None:
                    grows = f"grows at epoch {born[i]}" if born[i] > 1 else ""
                blank = [""] * (len(columns) - 2)
                add(made, label, after, *blank, grows, dim=bool(grows))
                continue
            figures, valid = latest.exits[i], latest.exits[i].valid
            top1, top3, loss = ("-",) * 3
            if valid is not None:
                top1, top3, loss = percent(valid.top1), percent(valid.top3), f"{valid.loss:.3f}"
            kept = [percent(latest.density[i])] if density else []
            errors = Text(sparkline(self._history(i), config.train.epochs), style="cyan")
            add(made, label, after, bold(top1), top3, loss, percent(figures.train.top1), *kept, errors)
        return made

    def _history(self, i: int) -> dict[int, float]:
        """Accuracy of exit ``i`` by epoch: on validation, or on train where there is none."""
        scores = {
            done.epoch: done.exits[i].valid or done.exits[i].train for done in self._epochs if i < len(done.exits)
        }
        return {epoch: score.top1 for epoch, score in scores.items()}

    def _footer(self) -> Text:
        parts: list[str] = []
        if self._epochs:
            latest = self._epochs[-1]
            parts.append(
                f"loss {latest.loss:.3f}  lr {latest.learning_rate:.3g}  {latest.pictures_per_second:,.0f} pictures/s"
            )
        if self._best is not None:
            parts.append(f"best at epoch {self._best.epoch}")
        return Text.assemble((f"{self._note}\n", "green"), ("  ".join(parts) + "\n", "dim"))


def growth_bar(done: float, total: int, growths: Sequence[int]) -> list[tuple[str, str]]:
    """A bar of epochs in styled pieces: filled up to ``done``, with a ``▲`` where the network grows."""
    marks = {min(int((epoch - 1) / total * BAR), BAR - 1) for epoch in growths}
    filled = done / total * BAR
    return [
        ("▲" if i in marks else "━", ("green" if i in marks else "cyan") if i < filled else "bright_black")
        for i in range(BAR)
    ]


def sparkline(accuracies: Mapping[int, float], epochs: int) -> str:
    """The errors of one exit over a run as a line of blocks, higher for fewer: each level halves the error.

    The line spans all ``epochs``: ``·`` marks epochs before the exit was grown, and those still to come are blank.

    Example:
        >>> sparkline({3: 0.5, 4: 0.75, 5: 1.0}, epochs=6)
        '··▁▂█ '
    """
    if not accuracies:
        return ""
    width = min(SPARK_WIDTH, epochs)
    line = ""
    for column in range(width):
        epoch = 1 + round(column * (epochs - 1) / max(width - 1, 1))
        if epoch in accuracies:
            error = max(1 - accuracies[epoch], 2.0**-9)
            line += SPARKS[min(max(int(-math.log2(error)) - 1, 0), len(SPARKS) - 1)]
        else:
            line += "·" if epoch < min(accuracies) else " "
    return line


def exit_depths(config: Config) -> list[int]:
    """Cells before each exit of the grown network; numbers of the exits in a network that is not made of cells."""
    network = config.network
    if network.has_backbone:
        return list(range(1, network.exits + 1))
    total = len(network.structure)
    if network.kind == "full":
        return [total]
    return [*(i + 1 for i, carries in enumerate(network.structure) if carries), total]
