"""``ramify search``: look for networks that are accurate, small and quick to answer."""

import contextlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ramify.cli.common import AsJson, Workers, say, say_json, show, split_given, warn, workers_here
from ramify.errors import InputError, RunError

if TYPE_CHECKING:
    from ramify.search.engine import TaskEngine
    from ramify.search.space import Space
    from ramify.search.study import Search

app = typer.Typer(
    name="search",
    help="Look for networks worth having: accurate, small, and quick to answer.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
SEARCHES = Path("searches")
STORAGE = "RAMIFY_STORAGE"

_Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the search.")]
Storage = Annotated[
    str | None,
    typer.Option(envvar=STORAGE, metavar="ADDRESS", help="Database for many machines: postgresql://user@host/database"),
]
SearchesDir = Annotated[Path | None, typer.Option("--searches_dir", help="Where searches are kept [default: searches]")]
On = Annotated[
    str | None,
    typer.Option(metavar="ENGINE", help="Where to compute: dask://host:port, slurm, pbs, lsf or sge [default: here]"),
]
EngineOptions = Annotated[
    Path | None,
    typer.Option("--engine_options", metavar="FILE", help="YAML for dask-jobqueue: queue, walltime, memory, ..."),
]


@app.command()
def start(
    name: _Name,
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SPACE|KEY=VALUE", help="A space: YAML file, digits or colour32; overrides of its base."
        ),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="How many trials the search is to have [default: 20, or as before]"),
    ] = None,
    workers: Workers = 1,
    on: On = None,
    engine_options: EngineOptions = None,
    sampler: Annotated[
        str | None, typer.Option(metavar="tpe|nsgaii|gp|random", help="In place of the space's.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="In place of the space's.")] = None,
    inherit: Annotated[
        bool | None,
        typer.Option("--inherit/--no_inherit", help="Whether trials begin as earlier ones that they extend."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry_run", help="Print the space and five samples, and stop.")] = False,
    trust: Annotated[
        bool, typer.Option("--trust", help="Import the code that the space of a search that is there names.")
    ] = False,
    storage: Storage = None,
    as_json: AsJson = False,
    searches_dir: SearchesDir = None,
) -> None:
    """Start a search, or go on with one: after Ctrl-C, a crash, or for more trials.

    Examples:

    - `ramify search start demo --trials 20 --workers 2`
    - `ramify search start mine mine.yaml --trials 200 --on dask://10.0.0.5:8786`
    - `ramify search start mine mine.yaml --trials 200 --workers 16 --on slurm --engine_options gpu.yaml`
    - `ramify search start mine mine.yaml --storage postgresql://me@db/ramify`
    - `ramify search start demo --dry_run`
    """
    from ramify.search.engine import open_engine
    from ramify.search.goals import load_function
    from ramify.search.space import read_space
    from ramify.search.study import start_search

    files, overrides = split_given(arguments or [])
    if len(files) > 1:
        raise InputError(f"space: got {' and '.join(map(str, files))}; accepted: one space")
    own = {"sampler": sampler, "seed": seed, "inherit": inherit}
    changes = bool(files or overrides or any(value is not None for value in own.values()))
    space = read_space(str(files[0]) if files else "digits", overrides, **own) if changes else None
    if dry_run:
        _show_samples(space or read_space("digits"), as_json)
        return
    for objective in space.objectives if space else ():
        if objective.function is not None:
            load_function(objective.function)
    folder, gpus = searches_dir or SEARCHES, space is None or dict(space.base).get("train.device") != "cpu"
    with open_engine(on, workers_here(workers, on), engine_options, gpus=gpus) as engine:
        search = start_search(name, space, trials, storage=storage, searches_dir=folder, trust=trust, warn=warn)
        with contextlib.closing(search):
            _run(search, engine, as_json)


def _run(search: "Search", engine: "TaskEngine", as_json: bool) -> None:
    """Coordinate the search, and show its front at the end."""
    from ramify.search.coordinator import WorkEvent, coordinate, leaving_on_signals
    from ramify.search.study import STOP
    from ramify.show.terminal.front import event_line

    def write(event: WorkEvent) -> None:
        record = {"event": type(event).__name__, **asdict(event)}
        say(json.dumps(record) if as_json else event_line(event, search.space))

    if not as_json:
        say(
            f"search {search.name}: {search.planned} trials of up to {search.space.epochs} epochs, "
            f"compared after {', '.join(map(str, search.space.rungs))}, for {', '.join(search.space.names)}; "
            f"kept in {search.folder}"
        )
    with leaving_on_signals() as leave:
        coordinate(search, engine, write, leave=leave)
    left = leave.is_set() or (search.folder / STOP).exists()
    if not as_json:
        if left:
            say(f"left; go on with: ramify search start {search.name}")
        _show_front(search)
    ended = search.trials()
    if ended and not left and all(trial.failed for trial in ended):
        reason = ended[-1].failed
        raise RunError(f"search {search.name}: all of its {len(ended)} trials failed; the last one: {reason}")


@app.command()
def status(name: _Name, storage: Storage = None, as_json: AsJson = False, searches_dir: SearchesDir = None) -> None:
    """Show the progress of a search, and the trials in training."""
    from ramify.search.front import front_of
    from ramify.search.halving import verdicts
    from ramify.search.measure import epochs_done
    from ramify.search.study import STOP, open_search
    from ramify.search.task import in_use
    from ramify.show.terminal.front import front_sentences

    search = open_search(name, storage=storage, searches_dir=searches_dir or SEARCHES)
    trials, front = search.trials(), front_of(search)
    left = verdicts(search.space, trials, search.planned)
    training = {
        trial.name: {"epoch": epochs_done(search.runs / trial.name), "up_to_epoch": left[trial.number][1]}
        for trial in trials
        if trial.number in left and in_use(search.runs / trial.name)
    }
    counts = {
        "wanted": search.planned,
        "finished": sum(trial.finished and trial.failed is None for trial in trials),
        "failed": len(front.failed),
        "training": len(training),
        "waiting": sum(not trial.finished and trial.name not in training for trial in trials),
    }
    stopped = (search.folder / STOP).exists()
    if as_json:
        say_json({"name": name, "stopped": stopped, **counts, "at_work": training, "saved": front.saved})
        return
    say(f"search {name}{', stopped' if stopped else ''}")
    say(", ".join(f"{number} {word}" for word, number in counts.items()))
    for run, progress in training.items():
        say(f"{run}: epoch {progress['epoch']}, up to epoch {progress['up_to_epoch']}")
    for sentence in front_sentences(front):
        say(sentence)


@app.command()
def stop(name: _Name, storage: Storage = None, searches_dir: SearchesDir = None) -> None:
    """Ask a search to stop; `ramify search start NAME` goes on with it."""
    from ramify.files import write_atomic
    from ramify.search.study import STOP, open_search

    search = open_search(name, storage=storage, searches_dir=searches_dir or SEARCHES)
    write_atomic(search.folder / STOP, b"")
    say(f"search {name}: it stops within seconds; go on with: ramify search start {name}")


@app.command()
def front(
    name: _Name,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Write every trial as CSV.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.svg", help="Draw the front: SVG, PDF or PNG.")] = None,
    storage: Storage = None,
    as_json: AsJson = False,
    searches_dir: SearchesDir = None,
) -> None:
    """Show the networks that no other beats, and what mattered.

    Examples:

    - `ramify search front demo --plot front.svg`
    - `ramify search front demo --csv trials.csv`
    """
    from ramify.files import write_atomic
    from ramify.search.front import front_of, importances
    from ramify.search.study import open_search
    from ramify.show.terminal.front import front_csv, front_json, plot_front

    search = open_search(name, storage=storage, searches_dir=searches_dir or SEARCHES)
    result = front_of(search)
    if csv is not None:
        write_atomic(csv, front_csv(result).encode())
    if plot is not None:
        plot_front(result, plot)
    if as_json:
        say_json(front_json(result, importances(search)))
        return
    _show_front(search)
    for path in (csv, plot):
        if path is not None:
            say(f"written: {path}")


def _show_front(search: "Search") -> None:
    from ramify.search.front import front_of, importances
    from ramify.show.terminal.front import front_sentences, front_table, importance_table

    result = front_of(search)
    if result.best:
        show(front_table(result))
    for sentence in front_sentences(result):
        say(sentence)
    shares = importances(search)
    if shares:
        show(importance_table(shares))


def _show_samples(space: "Space", as_json: bool) -> None:
    """The space and five draws, as five trials of an empty record would be."""
    from ramify.search.sampling import propose
    from ramify.search.space import space_yaml

    spaces = (space.model_copy(update={"sampler": "random", "seed": space.seed + i}) for i in range(5))
    samples = [[text for text in propose(it, [])[1] if text not in it.overrides] for it in spaces]
    if as_json:
        say_json({"space": space_yaml(space), "samples": samples})
        return
    say(space_yaml(space))
    for number, sample in enumerate(samples):
        say(f"# sample {number}: {' '.join(sample)}")
