"""What a run needs before its first epoch: a device, its pictures, and a resolved configuration."""

from dataclasses import replace
from pathlib import Path

from ramify.config.rules import Config, ResolvedConfig, resolve
from ramify.config.unread import unread
from ramify.data.fetch import Progress
from ramify.data.photo import larger
from ramify.data.sources import load_pictures, load_source
from ramify.errors import ConfigError
from ramify.run.derive import fit_to
from ramify.run.device import Place, place_of
from ramify.run.distributed import Team
from ramify.run.pictures import Parts, child_parts, remarks, resumed_parts, split_parts, whole
from ramify.run.saved import run_behind
from ramify.shortage import usable_threads
from ramify.training.preflight import check_run, few_pictures


def prepare_run(
    config: Config, team: Team, progress: Progress | None = None, *, resumed: Path | None = None, strict: bool = False
) -> tuple[ResolvedConfig, Place, Parts]:
    """The resolved configuration of a run, where it computes, and its pictures.

    The first process of ``team`` loads the pictures first; the others then find them in the cache.

    Args:
        config: of the run.
        team: the processes that share it.
        progress: of a download or the decoding.
        resumed: the folder of a resumed run, whose pictures stay in their parts.
        strict: refuse copies of a picture in several parts or classes.

    Raises:
        InputError: the machine lacks the device, or the pictures cannot be read or do not fit the configuration.
        RunError: the pictures cannot be fetched.
    """
    resolved = resolve(config)
    place_of(resolved)
    team.decided(lambda: None if team.size == 1 else len(load_source(whole(resolved.data), progress).train))

    def load(config: Config) -> Parts:
        if resumed is not None:
            return resumed_parts(config, resumed, progress)
        if config.parent is not None:
            return child_parts(config, run_behind(config.parent) or Path(config.parent), progress)
        return split_parts(config, load_pictures(config.data, progress))

    parts = load(resolved)
    resolved = fit_to(resolved, parts)
    where = replace(place_of(resolved), team=team)  # the precision depends on the pictures, too
    data = resolved.data
    if data.augment == "photo" and data.size is not None:
        data = data.model_copy(update={"size": larger(parts.train.shape[1:])})
        parts = replace(parts, larger=load(resolved.model_copy(update={"data": data})).train)
    least, pictures = 2 * team.size, resolved.data.in_epoch(len(parts.train))
    if pictures < least:
        key = "limit" if pictures == len(parts.train) else "epoch_pictures"
        raise ConfigError(f"data.{key}: got {pictures} training pictures; accepted: {least} or more, 2 a process")
    notes = list(remarks(parts, strict))
    if resolved.train.threads is not None:
        threads, fewer = usable_threads(resolved.train.threads)
        resolved = resolved.model_copy(update={"train": resolved.train.model_copy(update={"threads": threads})})
        notes += [f"train.{fewer}"] if fewer else []
    check_run(resolved, where)
    notes += few_pictures(resolved, len(parts.train))
    notes += unread(config)
    return resolved, where, replace(parts, notes=tuple(notes))
