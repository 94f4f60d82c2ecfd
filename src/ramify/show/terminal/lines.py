"""A run as lines of text, where output is no terminal, and as lines of JSON for programs."""

import json
from collections.abc import Callable
from dataclasses import asdict

from ramify.run import events
from ramify.show.words import change_words, duration, network_words, percent, regrown_words


def plain_lines(write: Callable[[str], None]) -> events.Observer:
    """An observer that writes a line for each event."""

    def observe(event: events.Event) -> None:
        match event:
            case events.Started():
                config = event.config
                trained, valid, test = event.pictures
                write(f"run {event.folder}: {network_words(config)}")
                write(
                    f"  {config.data.source}: {trained:,} training, {valid:,} validation, {test:,} test pictures, "
                    f"{event.classes} classes; {event.device}, {event.precision}"
                )
                for note in event.notes:
                    write(f"  note: {note}")
                if event.epoch:
                    write(f"  goes on after epoch {event.epoch}")
            case events.Grew() | events.Widened() | events.GrowthEnded() | events.Pruned():
                write(f"epoch {event.epoch}: {change_words(event)}")
            case events.EpochDone():
                write(_epoch_line(event))
            case events.StoppedEarly():
                write(f"stopped early after epoch {event.epoch}: none was better than epoch {event.best}")
            case events.NewBest() | events.StepDone() | events.Finished():
                pass

    return observe


def _epoch_line(event: events.EpochDone) -> str:
    width = len(str(event.epochs))
    label, scores = "train", [figures.train for figures in event.exits]
    if event.exits[0].valid is not None:
        label, scores = "valid", [figures.valid or figures.train for figures in event.exits]
    exits = "  ".join(percent(score.top1) for score in scores)
    density = (
        "" if all(share == 1 for share in event.density) else f"density {'  '.join(map(percent, event.density))}  "
    )
    moves = "" if event.regrown is None else f"{regrown_words(event.regrown)}  "
    return (
        f"epoch {event.epoch:>{width}}/{event.epochs}  loss {event.loss:.3f}  {label} {exits}  {density}"
        f"{moves}lr {event.learning_rate:.3g}  {duration(event.seconds)}  {event.pictures_per_second:,.0f} pictures/s"
    )


def json_lines(write: Callable[[str], None]) -> events.Observer:
    """An observer that writes every event but the steps as one JSON object a line, with its kind as ``event``."""
    kinds = {
        events.Started: "started",
        events.Grew: "grew",
        events.Widened: "widened",
        events.GrowthEnded: "growth_ended",
        events.Pruned: "pruned",
        events.EpochDone: "epoch",
        events.NewBest: "best",
        events.StoppedEarly: "stopped_early",
        events.Finished: "finished",
    }

    def observe(event: events.Event) -> None:
        match event:
            case events.StepDone():
                return
            case events.Started():
                fields: dict[str, object] = {**vars(event), "config": event.config.model_dump(mode="json")}
            case events.Finished():
                fields = asdict(event.summary)
            case _:
                fields = {}
                for name, value in asdict(event).items():
                    fields |= value if name in ("growth", "widening", "pruning") else {name: value}
        write(json.dumps({"event": kinds[type(event)], **fields}))

    return observe
