"""Events as whatever follows runs wants them: figures with a name, a sentence, a table of settings.

The names are the same for every tracker. They are made of letters, digits, ``_`` and ``/``, which all of them take.
"""

from ramify.config.rules import Config
from ramify.config.yamltext import to_text
from ramify.run.events import EpochDone, Event, Finished, Grew, GrowthEnded, NewBest, Pruned, Widened
from ramify.run.summary import Summary
from ramify.show.words import change_words, config_values, percent

PLACE = ("name", "runs_dir", "data.mirror", "train.threads")
"""Keys that say where a run is kept or computed, not what it is."""

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
    found = {
        "training/weighted_loss": event.loss,
        "training/learning_rate": event.learning_rate,
        "training/pictures_per_second": event.pictures_per_second,
        "training/seconds": event.seconds,
        "network/stages": event.stages,
    }
    if event.gradient_parity is not None:
        found["training/gradient_parity"] = event.gradient_parity
    if event.memory is not None:
        found["training/memory_bytes"] = event.memory
    if event.device_memory is not None:
        found["training/device_memory_bytes"] = event.device_memory
    if event.regrown is not None:
        found["network/connections_moved"] = sum(event.regrown.moved)
    for number, (figures, share) in enumerate(zip(event.exits, event.density, strict=True), start=1):
        found[f"network/density/exit_{number}"] = share
        for part, score in (("train", figures.train), ("valid", figures.valid)):
            if score is not None:
                found[f"accuracy/{part}/exit_{number}"] = score.top1
                found[f"loss/{part}/exit_{number}"] = score.loss
    return found


def final_scalars(summary: Summary) -> dict[str, float]:
    """What a finished run came to: test accuracy of each exit, and what the last one, that is the network, costs."""
    found: dict[str, float] = {}
    for number, each in enumerate(summary.exits, start=1):
        if each.test is not None:
            found[f"final/test_accuracy/exit_{number}"] = each.test.top1
    last = summary.exits[-1]
    if last.test is not None:
        found["final/test_accuracy"] = last.test.top1
    if last.valid is not None:
        found["final/valid_accuracy"] = last.valid.top1
    return found | {
        "final/weights_kept": last.kept,
        "final/macs": last.macs,
        "final/seconds": summary.seconds,
    }


FINAL = ("test_accuracy", "valid_accuracy", "weights_kept", "macs", "seconds")
"""The figures of :func:`final_scalars` by which runs are compared, in that order; each is called ``final/<name>``."""


def sentence_of(event: Event) -> str | None:
    """What has changed, in a sentence; None for events that change nothing.

    Example:
        >>> sentence_of(GrowthEnded(epoch=9, reason="the last growth paid 0.1 %"))
        'growth ends; the last growth paid 0.1 %'
    """
    match event:
        case Grew() | Widened() | GrowthEnded() | Pruned():
            return change_words(event)
        case Finished():
            tests = [percent(each.test.top1) for each in event.summary.exits if each.test is not None]
            return f"finished; right on the test pictures, by exit: {', '.join(tests)}"
        case _:
            return None


MAIN = (
    "data.batch_size",
    "data.limit",
    "data.source",
    "growth.init",
    "growth.mode",
    "network.cells",
    "network.channels",
    "network.kind",
    "network.structure",
    "prune.criterion",
    "prune.enabled",
    "prune.keep_ratio",
    "prune.policy",
    "seed",
    "train.epochs",
    "train.learning_rate",
)
"""The keys that most comparisons are about."""


def settings(config: Config) -> dict[str, Setting]:
    """Every key of a configuration that says what a run is; what is no number, text or truth is written as YAML.

    Example:
        >>> found = settings(Config())
        >>> found["train.learning_rate"], found["network.structure"]
        (0.02, '[0, 1, 0, 1, 0, 1, 0]')
    """
    found = {key: value for key, value in config_values(config).items() if key not in PLACE}
    return {key: value if isinstance(value, Setting) else to_text(value) for key, value in found.items()}


def main_settings(config: Config) -> dict[str, Setting]:
    """Of :func:`settings` those in :data:`MAIN`, and those that are not the defaults."""
    usual = settings(Config())
    return {key: value for key, value in settings(config).items() if key in MAIN or value != usual[key]}
