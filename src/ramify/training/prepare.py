"""What a run needs before its first epoch: a device, its pictures, and a configuration with nothing left open."""

from dataclasses import replace
from pathlib import Path

from ramify.config.rules import Config, resolve
from ramify.data.fetch import Progress
from ramify.data.photo import larger
from ramify.data.sources import load_pictures, load_source
from ramify.errors import ConfigError
from ramify.run.derive import fit_to
from ramify.run.device import Place, place
from ramify.run.distributed import Team
from ramify.run.pictures import Parts, deal, deal_child, deal_resumed, remarks, whole
from ramify.shortage import usable_threads
from ramify.training.preflight import needs_what_is_there, unread


def prepare(
    config: Config,
    team: Team,
    progress: Progress | None = None,
    *,
    resumed: Path | None = None,
    strict: bool = False,
) -> tuple[Config, Place, Parts]:
    """The configuration with nothing left open, where the run computes, and its pictures.

    The first process of ``team`` loads the pictures first; the others then find them in the cache.

    Args:
        config: of the run.
        team: the processes that share it.
        progress: sees how far a download or the decoding is.
        resumed: the folder of a run that goes on, whose pictures stay as they were dealt out.
        strict: refuse copies of a picture in several parts or classes.

    Raises:
        InputError: the machine lacks the device, or the pictures cannot be read or do not fit the configuration.
        RunError: the pictures cannot be fetched.
    """
    config = resolve(config)
    fewer = None
    place(config)
    team.decided(lambda: None if team.size == 1 else len(load_source(whole(config.data), progress).train))

    def dealt(config: Config) -> Parts:
        if resumed is not None:
            return deal_resumed(config, resumed, progress)
        if config.parent is not None:
            return deal_child(config, Path(config.parent), progress)
        return deal(config, load_pictures(config.data, progress))

    parts = dealt(config)
    config = fit_to(config, parts)
    where = replace(place(config), team=team)  # the precision depends on the pictures, too
    if config.data.augment == "photo" and config.data.size is not None:
        kept = larger(parts.train.shape[1:])
        data = config.data.model_copy(update={"size": kept})
        parts = replace(parts, larger=dealt(config.model_copy(update={"data": data})).train)
    if len(parts.train) < 2 * team.size:
        least = 2 * team.size
        raise ConfigError(
            f"data.limit: got {len(parts.train)} training pictures; accepted: {least} or more, 2 a process"
        )
    if config.train.threads is not None:
        threads, fewer = usable_threads(config.train.threads)
        config = config.model_copy(update={"train": config.train.model_copy(update={"threads": threads})})
    needs_what_is_there(config, where)
    notes = (*remarks(parts, strict), *([f"train.{fewer}"] if fewer else []), *unread(config, len(parts.train)))
    return config, where, replace(parts, notes=notes)
