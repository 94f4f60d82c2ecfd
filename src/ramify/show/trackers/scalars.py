"""Events for trackers: figures with a name, a sentence, a table of settings.

The names are the same for every tracker, of letters, digits, ``_`` and ``/``.
"""

from ramify.config.rules import Config
from ramify.config.yamltext import to_text
from ramify.run.events import EpochDone, Event, Finished, Grew, GrowthEnded, NewBest, Pruned, Widened
from ramify.run.summary import Summary
from ramify.show.words import change_words, config_values, percent

PLACE = ("name", "runs_dir", "data.mirror", "train.threads")
"""Keys of where a run is kept or computed."""

Setting = bool | int | float | str


def scalars(event: Event) -> dict[str, float]:
    """The figures of an event by name; most events have none.

    Names of one exit, or of the stage that ends in it, end in ``/exit_1``, ``/exit_2``, ... as in
    ``accuracy/valid/exit_1``.

    Example:
        >>> scalars(NewBest(epoch=7, score=0.93))
        {'training/best_score': 0.93}
    """
    match event:
        case EpochDone():
            return _of_epoch(event)
        case NewBest():
            return {"training/best_score": event.score}
        case Finished():
            return final_scalars(event.summary)
        case _:
            return {}


def _of_epoch(event: EpochDone) -> dict[str, float]:
    figures = {
        "training/weighted_loss": event.loss,
        "training/learning_rate": event.learning_rate,
        "training/pictures_per_second": event.pictures_per_second,
        "training/seconds": event.seconds,
        "network/stages": event.stages,
    }
    optional = {
        "training/gradient_parity": event.gradient_parity,
        "training/memory_bytes": event.memory,
        "training/device_memory_bytes": event.device_memory,
        "network/connections_moved": None if event.regrown is None else sum(event.regrown.moved),
    }
    figures |= {name: value for name, value in optional.items() if value is not None}
    for number, (row, share) in enumerate(zip(event.exits, event.density, strict=True), start=1):
        figures[f"network/density/exit_{number}"] = share
        for part, score in (("train", row.train), ("valid", row.valid)):
            if score is not None:
                figures[f"accuracy/{part}/exit_{number}"] = score.top1
                figures[f"loss/{part}/exit_{number}"] = score.loss
    return figures


def final_scalars(summary: Summary) -> dict[str, float]:
    """Test accuracy of each exit of a finished run, and accuracies, size and cost of the last one."""
    figures: dict[str, float] = {}
    for number, row in enumerate(summary.exits, start=1):
        if row.test is not None:
            figures[f"final/test_accuracy/exit_{number}"] = row.test.top1
    last = summary.exits[-1]
    if last.test is not None:
        figures["final/test_accuracy"] = last.test.top1
    if last.valid is not None:
        figures["final/valid_accuracy"] = last.valid.top1
    sizes = {"final/weights_kept": last.kept, "final/macs": last.macs, "final/seconds": summary.seconds}
    return figures | sizes


FINAL = ("test_accuracy", "valid_accuracy", "weights_kept", "macs", "seconds")
"""The figures of :func:`final_scalars` by which runs are compared, in that order; each is called ``final/<name>``."""


def sentence_of(event: Event) -> str | None:
    """A change of the network, or the end of the run, in a sentence; None for other events.

    Example:
        >>> sentence_of(GrowthEnded(epoch=9, reason="the last growth paid 0.1 %"))
        'growth ends; the last growth paid 0.1 %'
    """
    match event:
        case Grew() | Widened() | GrowthEnded() | Pruned():
            return change_words(event)
        case Finished():
            tests = [percent(row.test.top1) for row in event.summary.exits if row.test is not None]
            return f"finished; right on the test pictures, by exit: {', '.join(tests)}"
        case _:
            return None


MAIN = frozenset(
    {
        *("data.batch_size", "data.limit", "data.source", "growth.init", "growth.mode", "network.cells"),
        *("network.channels", "network.kind", "network.structure", "prune.criterion", "prune.enabled"),
        *("prune.keep_ratio", "prune.policy", "seed", "train.epochs", "train.learning_rate"),
    }
)
"""The keys that most comparisons are about."""


def settings(config: Config) -> dict[str, Setting]:
    """Every key but those of :data:`PLACE`; values other than numbers, texts and booleans are written as YAML.

    Example:
        >>> values = settings(Config())
        >>> values["train.learning_rate"], values["network.structure"]
        (0.02, '[0, 1, 0, 1, 0, 1, 0]')
    """
    return {
        key: value if isinstance(value, Setting) else to_text(value)
        for key, value in config_values(config).items()
        if key not in PLACE
    }


def main_settings(config: Config) -> dict[str, Setting]:
    """The :func:`settings` in :data:`MAIN`, and those that are not the defaults."""
    usual = settings(Config())
    return {key: value for key, value in settings(config).items() if key in MAIN or value != usual[key]}
