"""``ramify train``: one run or several."""

import contextlib
import json
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ramify.cli.common import (
    RUNS_DIR,
    Arguments,
    AsJson,
    Overwrite,
    Quiet,
    RunsDir,
    download_lines,
    first_process,
    say,
    show,
    sort_given,
    warn,
)
from ramify.cli.report import report_of
from ramify.config.presets import presets
from ramify.errors import ConfigError, RamifyError, RunError, StoppedError
from ramify.shortage import refusal
from ramify.training.allocator import bound_memory, keep_freed_memory

DEMO = "digits"
"""The preset that is trained where no argument names a task."""

if TYPE_CHECKING:
    from types import FrameType

    from ramify.config.rules import Config
    from ramify.data.fetch import Progress
    from ramify.run.events import Observer
    from ramify.run.summary import Summary

Training = Callable[["Sequence[Observer]", "Progress"], "Summary"]


def train(
    arguments: Arguments = None,
    resume: Annotated[str | None, typer.Option(metavar="NAME", help="Go on with a run that was stopped.")] = None,
    from_search: Annotated[
        str | None, typer.Option("--from_search", metavar="NAME", help="Train the network that a search found.")
    ] = None,
    trial: Annotated[int | None, typer.Option(min=0, metavar="K", help="With --from_search: which trial.")] = None,
    repeats: Annotated[int, typer.Option(min=1, metavar="N", help="Run N seeds; ends with mean and deviation.")] = 1,
    folds: Annotated[
        int | None,
        typer.Option(min=2, metavar="N", help="N-fold cross-validation: N runs; ends with mean and deviation."),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse pictures that have copies in several parts or classes.")
    ] = False,
    rescaled: Annotated[
        int | None,
        typer.Option(
            "--rescale", min=1, metavar="EPOCHS", help="The same in so many epochs, its schedules moved along."
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(metavar="M", help="As --rescale, in as many epochs as fit into M minutes here."),
    ] = None,
    overwrite: Overwrite = False,
    trust: Annotated[
        bool, typer.Option("--trust", help="Import the code that `network.module` of a run's folder names.")
    ] = False,
    track: Annotated[
        list[str] | None,
        typer.Option(metavar="TRACKER", help="Log to `tensorboard` or `wandb` as well; may be repeated."),
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    runs_dir: RunsDir = None,
) -> None:
    """Grow and train a network, keep it, and measure it.

    Where no argument says what to train, it is the preset `digits`, the embedded handwritten digits. `ramify config
    --presets` lists the presets. A YAML file with several documents (---) is several runs in turn.

    Examples:

    - `ramify train`
    - `ramify train mine.yaml train.epochs=40`
    - `ramify train photos data.source=my_photos/`
    - `ramify train photos data.source=my_photos/ --folds 5`
    - `ramify train seed-2020 --rescale 40`
    - `ramify train cpu-10min --minutes 5`
    - `ramify train --track tensorboard`
    - `ramify train --resume digits-iterative`
    - `ramify train --from_search demo --trial 7 train.epochs=100`
    """
    bound_memory()
    keep_freed_memory()
    from ramify.run.folder import check_free

    track = track or []
    if resume is not None:
        numbers = any(number is not None for number in (trial, rescaled, minutes))
        others = any((arguments, repeats > 1, folds, strict, overwrite, from_search, numbers))
        _resume(resume, runs_dir or RUNS_DIR, others, trust, track, quiet, as_json)
        return
    configs = _configs(arguments or [], runs_dir, from_search, trial, trust)
    if minutes is not None:
        for copy in _copies(configs, folds, repeats):
            check_free(copy, overwrite)  # before minutes are measured
    configs = _rescaled(configs, rescaled, minutes, quiet or as_json)
    _train(_copies(configs, folds, repeats), overwrite, strict, track, quiet, as_json)


def _resume(name: str, runs_dir: Path, others: bool, trust: bool, track: list[str], quiet: bool, as_json: bool) -> None:
    from ramify.run.saved import find_run
    from ramify.show.trackers.registry import trackers
    from ramify.training.run import resume

    if others:
        raise ConfigError(
            "--resume: got other arguments beside it; accepted: --resume NAME alone, as it goes on as it began"
        )
    folder = find_run(name, runs_dir)
    logs = trackers(track, warn, folder)
    run_one(lambda observers, progress: resume(folder, observers, trust=trust, progress=progress), quiet, as_json, logs)


def _configs(
    arguments: Sequence[str], runs_dir: Path | None, from_search: str | None, trial: int | None, trust: bool
) -> "list[Config]":
    """The configurations of files and overrides, or of the trial of a search."""
    from ramify.config.read import read_configs
    from ramify.run.derive import OF_THE_PLACE
    from ramify.run.folder import is_run

    files, overrides = sort_given(arguments)
    if runs_dir is not None:
        overrides.append(f"runs_dir={runs_dir}")
    if from_search is not None and trial is not None:
        if files:
            raise ConfigError(f"--from_search: got {files[0]} beside it; accepted: key=value alone")
        from ramify.search.study import config_of_trial

        config = config_of_trial(from_search, trial, overrides)
        if not trust:
            _refuse_code(f"the search {from_search}", config)
        return [config]
    if from_search is not None or trial is not None:
        raise ConfigError("--from_search: got it or --trial alone; accepted: both, as in --from_search demo --trial 7")
    if not files and OF_THE_PLACE.issuperset(text.partition("=")[0] for text in overrides):
        files = [presets()[DEMO]]
    configs = read_configs(files, overrides)
    # The folder of a run may come from another person.
    for path in files if not trust else ():
        if is_run(path.parent):
            for config in read_configs([path]):
                _refuse_code(str(path), config)
    return configs


def _refuse_code(source: str, config: "Config") -> None:
    from ramify.training.run import untrusted

    if config.network.module is not None and config.parent is None:
        raise ConfigError(untrusted(source, config.network.module))


def _rescaled(configs: "list[Config]", epochs: int | None, minutes: float | None, quiet: bool) -> "list[Config]":
    """Each configuration in so many epochs, or minutes."""
    from ramify.config.rescaling import rescale
    from ramify.training.minutes import rescale_to_minutes

    if epochs is not None and minutes is not None:
        raise ConfigError("--minutes: got --rescale beside it; accepted: one of the two")
    if epochs is not None:
        return [rescale(config, epochs) for config in configs]
    if minutes is None:
        return configs
    scaled = []
    for config in configs:
        scaled.append(rescale_to_minutes(config, minutes))
        if not quiet:
            say(f"{minutes:g} minutes: {scaled[-1].train.epochs} epochs fit, as short runs show")
    return scaled


def _copies(configs: "list[Config]", folds: int | None, repeats: int) -> "list[Config]":
    """Each configuration once for each fold and seed, both in its name."""
    from ramify.run.folder import default_name

    fixed = next((config.data.fold for config in configs if config.data.fold is not None), None)
    if folds is not None and fixed is not None:
        raise ConfigError(f"--folds: got data.fold = {list(fixed)} beside it; accepted: one of the two")
    copies: list[Config] = []
    for config in configs:
        for fold in range(1, folds + 1) if folds is not None else (None,):
            for seed in range(config.seed, config.seed + repeats):
                changes: dict[str, object] = {}
                name = config.name or default_name(config)
                if fold is not None:
                    changes["data"] = config.data.model_copy(update={"fold": (fold, folds)})
                    name += f"-fold{fold}"
                if repeats > 1:
                    changes["seed"] = seed
                    name += f"-seed{seed}"
                copies.append(config.model_copy(update={**changes, "name": name}) if changes else config)
    names = [config.name for config in copies if config.name is not None]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"name: got {twice[0]!r} for several runs; accepted: a name of its own for each, or none")
    return copies


def _train(
    configs: "list[Config]", overwrite: bool, strict: bool, track: list[str], quiet: bool, as_json: bool
) -> None:
    """Train one run, or several in turn; one that fails is reported and does not keep the others from running."""
    from ramify.show.trackers.registry import trackers

    trainings = [training_of(config, overwrite, strict) for config in configs]
    logs = trackers(track, warn)
    if len(trainings) == 1:
        run_one(trainings[0], quiet, as_json, logs)
        return
    summaries: list[Summary] = []
    failure: RamifyError | None = None
    for number, training in enumerate(trainings, start=1):
        if not as_json and first_process():
            say(f"{'' if quiet else chr(10)}run {number} of {len(trainings)}")
        try:
            with _watching(quiet, as_json, logs) as (observers, progress):
                summaries.append(training(observers, progress))
            report_of(Path(summaries[-1].folder), warn)
        except StoppedError:
            raise
        except (RamifyError, OSError, MemoryError, RuntimeError) as error:
            reported = error if isinstance(error, RamifyError) else refusal(error)
            if reported is None:
                reported = RunError(f"{type(error).__name__}: {' '.join(str(error).split())}")
            failure = failure or reported
            for problem in reported.problems:
                warn(f"error: run {number}: {problem}")
    _compare(summaries, as_json)
    if failure is not None:
        raise type(failure)(f"{len(configs) - len(summaries)} of {len(configs)} runs failed, as reported above")


def training_of(config: "Config", overwrite: bool, strict: bool = False) -> Training:
    """The training of ``config``, for :func:`run_one`."""
    from ramify.training.run import train

    return lambda observers, progress: train(config, observers, overwrite=overwrite, progress=progress, strict=strict)


def run_one(training: Training, quiet: bool, as_json: bool, logs: "Sequence[Observer]" = ()) -> None:
    """One run with its live view or lines, its report, and its tables at the end."""
    from ramify.show.terminal.tables import run_table

    with _watching(quiet, as_json, logs) as (observers, progress):
        summary = training(observers, progress)
    path = report_of(Path(summary.folder), warn)
    if not as_json and first_process():
        show(run_table(summary))
        look = f"; look at {path.name} in it" if path else ""
        say(f"kept in {summary.folder}; read it back with: ramify info {summary.name}{look}")


def _compare(summaries: "list[Summary]", as_json: bool) -> None:
    from ramify.show.groups import spread
    from ramify.show.terminal.tables import comparison_table, exit_accuracies

    if not summaries or not first_process():
        return
    if not as_json:
        show(comparison_table(summaries))
        return
    means: dict[str, list[float]] = {}
    if len({(summary.recipe, len(summary.exits)) for summary in summaries}) == 1:
        spreads = [spread(values) for values in zip(*map(exit_accuracies, summaries), strict=True)]
        means = {"mean": [it.mean for it in spreads if it], "std": [it.deviation or 0.0 for it in spreads if it]}
    say(json.dumps({"event": "compared", "runs": [summary.name for summary in summaries], **means}))


@contextlib.contextmanager
def _watching(quiet: bool, as_json: bool, logs: "Sequence[Observer]") -> "Iterator[tuple[list[Observer], Progress]]":
    """Observers and progress of a run; Ctrl-C and SIGTERM become a sentence."""
    from rich.console import Console

    from ramify.run.events import Event, Started
    from ramify.show.terminal.lines import json_lines, plain_lines
    from ramify.show.terminal.live import LiveView

    names: list[str] = []

    def remember(event: Event) -> None:
        if isinstance(event, Started):
            names.append(event.name)

    console = Console()
    with contextlib.ExitStack() as stack:
        observers: list[Observer] = [remember, *logs]
        progress: Progress = lambda *_: None  # noqa: E731
        quiet = quiet or not first_process()
        if as_json and first_process():
            observers.append(json_lines(say))
        elif not quiet and console.is_terminal:
            view = LiveView(console)
            stack.enter_context(view.live)
            observers.append(view)
            progress = view.fetching
        elif not quiet:
            observers.append(plain_lines(say))
            progress = download_lines(say)
        how = "from the keyboard"

        def end(number: int, frame: "FrameType | None") -> None:
            nonlocal how
            how = "by SIGTERM"
            raise KeyboardInterrupt

        if threading.current_thread() is threading.main_thread():
            stack.callback(signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, end))
        try:
            yield observers, progress
        except KeyboardInterrupt:
            then = f"go on with: ramify train --resume {names[-1]}" if names else "nothing was trained yet"
            raise StoppedError(f"stopped {how}; {then}") from None
