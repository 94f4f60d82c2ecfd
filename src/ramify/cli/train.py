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
    AsJson,
    Given,
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
from ramify.errors import ConfigError, RamifyError, RunError
from ramify.shortage import refusal
from ramify.training.allocator import bound_memory, keep_freed_memory

DEMO = "digits"
"""The preset that is trained where no argument says what to train."""

OF_THE_PLACE = frozenset({"name", "seed", "runs_dir", "train.device", "train.threads"})
"""Keys that say nothing of what is trained."""

Track = Annotated[
    list[str] | None,
    typer.Option("--track", metavar="TRACKER", help="Log to `tensorboard` or `wandb` as well; may be repeated."),
]

if TYPE_CHECKING:
    from types import FrameType

    from ramify.config.rules import Config
    from ramify.data.fetch import Progress
    from ramify.run.events import Observer
    from ramify.run.summary import Summary


def train(
    given: Given = None,
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
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run of the same name.")] = False,
    trust: Annotated[
        bool, typer.Option("--trust", help="Import the code that `network.module` of a run's folder names.")
    ] = False,
    track: Track = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the final table.")] = False,
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
    - `ramify train --track tensorboard`
    - `ramify train --resume digits-iterative`
    - `ramify train --from_search demo --trial 7 train.epochs=100`
    """
    bound_memory()
    keep_freed_memory()
    from ramify.show.trackers.registry import trackers

    given, track = given or [], track or []
    if resume is not None:
        others = (given, repeats > 1, folds, strict, overwrite, from_search, trial is not None, rescaled is not None)
        if any(others):
            raise ConfigError(
                "--resume: got other arguments beside it; accepted: --resume NAME alone, as it goes on as it began"
            )
        from ramify.run.saved import find_run
        from ramify.training.run import resume as go_on

        folder = find_run(resume, runs_dir or RUNS_DIR)
        logs = trackers(track, warn, folder)

        def gone_on(observers: "Sequence[Observer]", progress: "Progress") -> "Summary":
            return go_on(folder, observers, trust=trust, progress=progress)

        run_one(gone_on, quiet, as_json, logs)
        return

    from ramify.config.read import read_configs

    files, overrides = sort_given(given)
    if runs_dir is not None:
        overrides.append(f"runs_dir={runs_dir}")
    if (from_search is None) != (trial is None):
        raise ConfigError("--from_search: got it or --trial alone; accepted: both, as --from_search demo --trial 7")
    if from_search is None or trial is None:
        if not files and OF_THE_PLACE.issuperset(text.partition("=")[0] for text in overrides):
            files = [presets()[DEMO]]
        found = read_configs(files, overrides)
        if not trust:
            _no_code_of_runs(files)
    else:
        if files:
            raise ConfigError(f"--from_search: got {files[0]} beside it; accepted: key=value alone")
        from ramify.search.study import config_of_trial

        found = [config_of_trial(from_search, trial, overrides)]
        if not trust:
            _no_code(f"the search {from_search}", found[0])
    if rescaled is not None:
        from ramify.config.rescaling import rescale

        found = [rescale(config, rescaled) for config in found]
    configs = _repeated(_folded(found, folds), repeats)
    _names_differ(configs)
    if len(configs) == 1:
        run_one(_training(configs[0], overwrite, strict), quiet, as_json, trackers(track, warn))
        return
    trainings = [_training(config, overwrite, strict) for config in configs]
    summaries, failure = _several(trainings, quiet, as_json, trackers(track, warn))
    _compare(summaries, as_json)
    if failure is not None:
        raise type(failure)(f"{len(configs) - len(summaries)} of {len(configs)} runs failed, as told above")


def _no_code_of_runs(files: Sequence[Path]) -> None:
    """See that no file is the configuration in a run's folder, which somebody else may have made, and names code."""
    from ramify.config.read import read_configs
    from ramify.run.folder import is_run

    for path in files:
        if is_run(path.parent):
            for config in read_configs([path]):
                _no_code(str(path), config)


def _no_code(source: str, config: "Config") -> None:
    from ramify.training.run import untrusted

    if config.network.module is not None and config.parent is None:
        raise ConfigError(untrusted(source, config.network.module))


Training = Callable[["Sequence[Observer]", "Progress"], "Summary"]


def _training(config: "Config", overwrite: bool, strict: bool = False) -> Training:
    from ramify.training.run import train as train_one

    return lambda observers, progress: train_one(
        config, observers, overwrite=overwrite, progress=progress, strict=strict
    )


def _folded(configs: "list[Config]", folds: int | None) -> "list[Config]":
    """Each configuration once for each fold, the fold in its name."""
    if folds is None:
        return configs
    from ramify.run.folder import default_name

    fixed = next((config.data.fold for config in configs if config.data.fold is not None), None)
    if fixed is not None:
        raise ConfigError(f"--folds: got it beside data.fold = {list(fixed)}; accepted: one of the two")
    return [
        config.model_copy(
            update={
                "data": config.data.model_copy(update={"fold": (k, folds)}),
                "name": f"{config.name or default_name(config)}-fold{k}",
            }
        )
        for config in configs
        for k in range(1, folds + 1)
    ]


def _repeated(configs: "list[Config]", repeats: int) -> "list[Config]":
    """Each configuration once for each seed, the seed in its name."""
    if repeats == 1:
        return configs
    from ramify.run.folder import default_name

    return [
        config.model_copy(update={"seed": seed, "name": f"{config.name or default_name(config)}-seed{seed}"})
        for config in configs
        for seed in range(config.seed, config.seed + repeats)
    ]


def _names_differ(configs: "list[Config]") -> None:
    names = [config.name for config in configs if config.name is not None]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"name: got {twice[0]!r} for several runs; accepted: a name of its own for each, or none")


def run_one(training: Training, quiet: bool, as_json: bool, logs: "Sequence[Observer]" = ()) -> None:
    """One run, watched as was asked for, and its figures at the end."""
    from ramify.show.terminal.tables import run_table

    with _watching(quiet, as_json, logs) as (observers, progress):
        summary = training(observers, progress)
    path = report_of(Path(summary.folder), warn)
    if not as_json and first_process():
        show(run_table(summary))
        look = f"; look at {path.name} in it" if path else ""
        say(f"kept in {summary.folder}; read it back with: ramify info {summary.name}{look}")


def _several(
    trainings: Sequence[Training], quiet: bool, as_json: bool, logs: "Sequence[Observer]"
) -> "tuple[list[Summary], RamifyError | None]":
    """Every run in turn; one that fails is told and does not keep the others from running."""
    summaries: list[Summary] = []
    failure: RamifyError | None = None
    for number, training in enumerate(trainings, start=1):
        if not as_json and first_process():
            say(f"{'' if quiet else chr(10)}run {number} of {len(trainings)}")
        try:
            with _watching(quiet, as_json, logs) as (observers, progress):
                summaries.append(training(observers, progress))
            report_of(Path(summaries[-1].folder), warn)
        except (RamifyError, OSError, MemoryError, RuntimeError) as error:
            said = error if isinstance(error, RamifyError) else refusal(error)
            if said is None:
                said = RunError(f"{type(error).__name__}: {' '.join(str(error).split())}")
            failure = failure or said
            for problem in said.problems:
                warn(f"error: run {number}: {problem}")
    return summaries, failure


def _compare(summaries: "list[Summary]", as_json: bool) -> None:
    from ramify.show.terminal.tables import accuracies, comparison_table, mean_and_deviation

    if not summaries or not first_process():
        return
    if not as_json:
        show(comparison_table(summaries))
        return
    means: dict[str, list[float]] = {}
    if len({summary.recipe for summary in summaries}) == 1:
        pairs = [mean_and_deviation(values) for values in zip(*map(accuracies, summaries), strict=True)]
        means = {"mean": [mean for mean, _ in pairs], "std": [deviation for _, deviation in pairs]}
    say(json.dumps({"event": "compared", "runs": [summary.name for summary in summaries], **means}))


@contextlib.contextmanager
def _watching(quiet: bool, as_json: bool, logs: "Sequence[Observer]") -> "Iterator[tuple[list[Observer], Progress]]":
    """Observers for what was asked for; a key stroke to stop becomes a sentence."""
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
        progress: Progress = lambda name, done, total, unit="bytes": None  # noqa: E731
        quiet = quiet or not first_process()
        if as_json and first_process():
            observers.append(json_lines(say))
        elif not quiet and console.is_terminal:
            view = stack.enter_context(LiveView(console))
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
            raise RunError(f"stopped {how}; {then}") from None
