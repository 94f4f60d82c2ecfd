"""A run as lines of text, where no terminal is watching, and as lines of JSON for programs."""

import json
from collections.abc import Callable
from dataclasses import asdict

from ramify.run.events import (
    EpochDone,
    Event,
    Finished,
    Grew,
    GrowthEnded,
    NewBest,
    Observer,
    Pruned,
    Started,
    StepDone,
    StoppedEarly,
    Widened,
)
from ramify.show.words import change_words, duration, network_words, percent, regrown_words


def plain_lines(write: Callable[[str], None]) -> Observer:
    """An observer that writes a line an event; epochs that change nothing to speak of are left out in long runs."""

    def observe(event: Event) -> None:
        match event:
            case Started():
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
            case Grew() | Widened() | GrowthEnded() | Pruned():
                write(f"epoch {event.epoch}: {change_words(event)}")
            case EpochDone():
                write(_epoch_line(event))
            case StoppedEarly():
                write(f"stopped early after epoch {event.epoch}: none was better than epoch {event.best}")
            case NewBest() | StepDone() | Finished():
                pass

    return observe


def _epoch_line(event: EpochDone) -> str:
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


def json_lines(write: Callable[[str], None]) -> Observer:
    """An observer that writes every event but the steps as one JSON object a line, with its kind as ``event``."""
    kinds = {
        Started: "started",
        Grew: "grew",
        Widened: "widened",
        GrowthEnded: "growth_ended",
        Pruned: "pruned",
        EpochDone: "epoch",
        NewBest: "best",
        StoppedEarly: "stopped_early",
        Finished: "finished",
    }

    def observe(event: Event) -> None:
        if isinstance(event, StepDone):
            return
        if isinstance(event, Started):
            fields: dict[str, object] = {**vars(event), "config": event.config.model_dump(mode="json")}
        elif isinstance(event, Grew):
            fields = {"epoch": event.epoch, **asdict(event.growth), "reason": event.reason}
        elif isinstance(event, Widened):
            fields = {"epoch": event.epoch, **asdict(event.widening), "reason": event.reason}
        elif isinstance(event, Pruned):
            fields = {"epoch": event.epoch, **asdict(event.pruning), "density": event.density}
        elif isinstance(event, Finished):
            fields = asdict(event.summary)
        else:
            fields = asdict(event)
        write(json.dumps({"event": kinds[type(event)], **fields}))

    return observe
