"""A run from its configuration to its summary: what ``ramify train`` does."""

import contextlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from ramify.config.read import read_config
from ramify.config.rules import Config
from ramify.data.fetch import Progress
from ramify.errors import InputError
from ramify.files import readable_folder
from ramify.run.device import computing_with, place_of
from ramify.run.distributed import together
from ramify.run.events import Observer
from ramify.run.folder import (
    CONFIG,
    EVENTS,
    append_line,
    keep_lines_until,
    locked,
    new_run,
    read_summary,
    remove_run,
    write_config,
)
from ramify.run.pictures import keep_pictures, with_teacher
from ramify.run.saved import find_checkpoint, located
from ramify.run.summary import Summary
from ramify.training.loop import run_epochs
from ramify.training.prepare import prepare_run
from ramify.training.state import begin, keep_beginning, restore
from ramify.training.teacher import find_teacher, keep_teacher


def train(
    config: Config,
    observers: Iterable[Observer] = (),
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
    strict: bool = False,
) -> Summary:
    """Train the network that ``config`` describes, and keep it in its run folder.

    Under ``torchrun`` its processes share each batch; see :mod:`ramify.run.distributed`.

    Args:
        config: the run; null keys are filled in by :func:`ramify.config.rules.resolve` and from the pictures.
        observers: called with every :data:`~ramify.run.events.Event`, in the first process alone.
        overwrite: replace a finished or broken run of the same name.
        progress: of a download or the decoding of pictures.
        strict: refuse copies of a picture in several parts or classes.

    Raises:
        InputError: the configuration does not fit the pictures or the machine, the pictures cannot be read, or
            the run exists.
        RunError: the loss is no longer a number, or the disk is full; the last good checkpoint is intact.
    """
    config = located(config)
    with together(place_of(config).device, config.data.batch_size) as team, contextlib.ExitStack() as stack:
        config, where, parts = prepare_run(config, team, progress, strict=strict)
        teacher = find_teacher(config, where, parts)
        if teacher is not None and config.train.teacher is not None:
            parts = with_teacher(parts, find_checkpoint(config.train.teacher, config.runs_dir).parent)

        folder = team.decided(lambda: stack.enter_context(new_run(config, overwrite)))
        stack.enter_context(computing_with(config))
        config = config.model_copy(update={"name": folder.name})
        state = begin(config, where, parts)
        if team.first:
            remove_run(folder)
            keep_pictures(folder, parts)
            write_config(folder, config)
        keep_beginning(state, folder)
        keep_teacher(teacher, folder)
        return run_epochs(state, folder, parts, teacher, tuple(observers))


def resume(
    folder: Path, observers: Iterable[Observer] = (), *, trust: bool = False, progress: Progress | None = None
) -> Summary:
    """Resume the run in ``folder`` from its last checkpoint; a finished run returns its summary at once.

    On the same machine the weights end bitwise equal to those of an uninterrupted run. Another number of processes is
    possible; sums of floats are then rounded differently.

    Args:
        folder: of the run.
        observers: as in :func:`train`.
        trust: import the ``network.module`` of the folder, where the run was stopped before its first epoch. From that
            epoch on, nothing is imported.
        progress: as in :func:`train`.

    Raises:
        InputError: another process is in the folder, a file of it is damaged, the pictures have changed, or there is
            no network yet and its code is not trusted.
        RunError: as :func:`train`.
    """
    config = read_config([folder / CONFIG])
    begun = readable_folder(folder / "last").exists()
    if config.network.module is not None and config.parent is None and not begun and not trust:
        raise InputError(untrusted(str(folder), config.network.module))
    with together(place_of(config).device, config.data.batch_size) as team, contextlib.ExitStack() as stack:

        def open_folder() -> Summary | None:
            stack.enter_context(locked(folder))
            return read_summary(folder)

        done = team.decided(open_folder)
        if done is not None:
            return done
        config, where, parts = prepare_run(config, team, progress, resumed=folder)
        stack.enter_context(computing_with(config))
        teacher = find_teacher(config, where, parts, folder)
        keep_teacher(teacher, folder)
        started = readable_folder(folder / "last").exists()
        if started:
            state = restore(config, where, parts, folder)
        else:
            state = begin(config, where, parts)
            keep_beginning(state, folder)
        if team.first:
            parts = replace(parts, notes=(*parts.notes, *keep_lines_until(folder, state.epoch)))
            if state.epoch:
                append_line(folder / EVENTS, {"event": "resumed", "epoch": state.epoch})
        return run_epochs(state, folder, parts, teacher, tuple(observers))


def untrusted(where: str, module: str) -> str:
    """The sentence for a folder that names code, without ``--trust``."""
    return (
        f"{where}: names code in network.module={module}, which would be imported to make its network; accepted: "
        "--trust (trust=True from Python), where you know that code"
    )
