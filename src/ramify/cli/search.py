"""``ramify search``: look for networks worth having."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ramify.cli.common import AsJson, say, say_json, show, split_given
from ramify.errors import InputError, RunError

if TYPE_CHECKING:
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

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the search.")]
Storage = Annotated[
    str | None,
    typer.Option(envvar=STORAGE, metavar="ADDRESS", help="Database for many machines: postgresql://user@host/database"),
]
SearchesDir = Annotated[Path | None, typer.Option("--searches_dir", help="Where searches are kept [default: searches]")]
LeaseSeconds = Annotated[
    float, typer.Option("--lease_seconds", min=0.5, help="How long others wait for a worker that is not heard of.")
]


@app.command()
def start(
    name: Name,
    given: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SPACE|KEY=VALUE", help="A space: YAML file, digits or colour32; overrides of its base."
        ),
    ] = None,
    trials: Annotated[int, typer.Option(min=1, metavar="N", help="How many trials the search is to have.")] = 20,
    workers: Annotated[int, typer.Option(min=0, metavar="K", help="Processes here; 0 only sets the search up.")] = 1,
    sampler: Annotated[
        Literal["tpe", "nsgaii", "gp", "random"] | None, typer.Option(help="In place of the space's.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="In place of the space's.")] = None,
    inherit: Annotated[
        bool | None,
        typer.Option("--inherit/--no_inherit", help="Whether trials begin as earlier ones that they extend."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry_run", help="Print the space and five samples, and stop.")] = False,
    storage: Storage = None,
    lease_seconds: LeaseSeconds = 60.0,
    as_json: AsJson = False,
    searches_dir: SearchesDir = None,
) -> None:
    """Start a search, or go on with one, and work on it here.

    Examples:

    - `ramify search start demo --trials 20 --workers 2`
    - `ramify search start mine mine.yaml --trials 200 --storage postgresql://me@db/ramify`
    - `ramify search start demo --dry_run`
    """
    from ramify.search.space import read_space, space_yaml
    from ramify.search.study import start_search

    files, overrides = split_given(given or [])
    if len(files) > 1:
        raise InputError(f"space: got {' and '.join(map(str, files))}; accepted: one space")
    own = {"sampler": sampler, "seed": seed, "inherit": inherit}
    changes = bool(files or overrides or any(value is not None for value in own.values()))
    space = read_space(str(files[0]) if files else "digits", overrides, **own) if changes else None
    if dry_run:
        chosen = space or read_space("digits")
        if as_json:
            say_json({"space": space_yaml(chosen), "samples": _samples(chosen)})
            return
        say(space_yaml(chosen))
        for number, sample in enumerate(_samples(chosen)):
            say(f"# sample {number}: {' '.join(sample)}")
        return
    search = start_search(name, space, trials, storage=storage, searches_dir=searches_dir or SEARCHES)
    if not as_json:
        say(
            f"search {name}: {search.wanted()} trials of up to {search.space.epochs} epochs, "
            f"compared after {', '.join(map(str, search.space.rungs))}, for {', '.join(search.space.objectives)}; "
            f"kept in {search.folder}"
        )
    if workers == 1:
        _work(search, lease_seconds, as_json)
    elif workers > 1:
        _spawn(search, workers, storage, lease_seconds, as_json)
    if workers and not as_json:
        _show_front(search)


@app.command()
def worker(
    name: Name,
    storage: Storage = None,
    lease_seconds: LeaseSeconds = 60.0,
    as_json: AsJson = False,
    searches_dir: SearchesDir = None,
) -> None:
    """Join a search from anywhere, and leave at any time: others go on with the trial.

    Examples:

    - `ramify search worker demo`
    - `ramify search worker mine --storage postgresql://me@db/ramify`
    """
    from ramify.search.study import open_search

    _work(open_search(name, storage=storage, searches_dir=searches_dir or SEARCHES), lease_seconds, as_json)


@app.command()
def status(name: Name, storage: Storage = None, as_json: AsJson = False, searches_dir: SearchesDir = None) -> None:
    """Tell how far a search is, and who is at work."""
    from ramify.search.front import front_of
    from ramify.search.study import open_search, verdicts_of
    from ramify.show.front import front_sentences

    search = open_search(name, storage=storage, searches_dir=searches_dir or SEARCHES)
    trials, front, held = search.trials(), front_of(search), search.leases.held()
    counts = {
        "wanted": search.wanted(),
        "finished": sum(trial.finished and trial.failed is None for trial in trials),
        "failed": len(front.failed),
        "training": sum(trial.name in held for trial in trials),
        "waiting": sum(not trial.finished and trial.name not in held for trial in trials),
    }
    at_work = {
        trial.name: {"worker": held[trial.name].worker, "up_to_epoch": rung}
        for trial in trials
        if trial.name in held
        for rung in [verdicts_of(search, trials).get(trial.number, ("train", trial.epochs))[1]]
    }
    if as_json:
        say_json({"name": name, "stopped": search.stopped(), **counts, "at_work": at_work, "saved": front.saved})
        return
    say(f"search {name}{', stopped' if search.stopped() else ''}")
    say(", ".join(f"{number} {word}" for word, number in counts.items()))
    for run, doing in at_work.items():
        say(f"{run}: up to epoch {doing['up_to_epoch']}, by {doing['worker']}")
    for sentence in front_sentences(front):
        say(sentence)


@app.command()
def stop(name: Name, storage: Storage = None, searches_dir: SearchesDir = None) -> None:
    """Tell all workers of a search to leave; `ramify search start NAME` goes on with it."""
    from ramify.search.study import open_search

    search = open_search(name, storage=storage, searches_dir=searches_dir or SEARCHES)
    search.study.set_user_attr("stopped", True)
    say(f"search {name}: its workers leave within seconds; go on with: ramify search start {name}")


@app.command()
def front(
    name: Name,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Write every trial as CSV.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw the front.")] = None,
    storage: Storage = None,
    as_json: AsJson = False,
    searches_dir: SearchesDir = None,
) -> None:
    """Show the networks that no other beats, and what mattered.

    Examples:

    - `ramify search front demo --plot front.png`
    - `ramify search front demo --csv trials.csv`
    """
    from ramify.files import write_atomic
    from ramify.search.front import front_of, importances
    from ramify.search.study import open_search
    from ramify.show.front import front_csv, front_json, plot_front

    search = open_search(name, storage=storage, searches_dir=searches_dir or SEARCHES)
    found = front_of(search)
    if csv is not None:
        write_atomic(csv, front_csv(found).encode())
    if plot is not None:
        plot_front(found, plot)
    if as_json:
        say_json(front_json(found, importances(search)))
        return
    _show_front(search)
    for path in (csv, plot):
        if path is not None:
            say(f"written: {path}")


def _show_front(search: "Search") -> None:
    from ramify.search.front import front_of, importances
    from ramify.show.front import front_sentences, front_table, importance_table

    found = front_of(search)
    if found.best:
        show(front_table(found))
    for sentence in front_sentences(found):
        say(sentence)
    mattered = importances(search)
    if mattered:
        show(importance_table(mattered))


def _samples(space: "Space") -> list[list[str]]:
    """Five draws, as five trials of an empty record would be."""
    from dataclasses import replace

    from ramify.search.study import propose

    drawn = (propose(replace(space, sampler="random", seed=space.seed + i), [])[1] for i in range(5))
    return [[text for text in each if text not in space.overrides] for each in drawn]


def _work(search: "Search", lease_seconds: float, as_json: bool) -> None:
    from ramify.search.worker import WorkEvent, leaving_on_signals, work
    from ramify.show.front import event_line

    def tell(event: WorkEvent) -> None:
        say(
            json.dumps({"event": type(event).__name__, **asdict(event)}) if as_json else event_line(event, search.space)
        )

    with leaving_on_signals() as leave:
        work(search, tell, leave=leave, lease_seconds=lease_seconds)
    if leave.is_set() and not as_json:
        say(f"left; go on with: ramify search worker {search.name}")


def _spawn(search: "Search", workers: int, storage: str | None, lease_seconds: float, as_json: bool) -> None:
    """Worker processes here, until they end; what stops this process stops them."""
    from ramify.search.worker import leaving_on_signals

    command = [sys.executable, "-m", "ramify", "search", "worker", search.name]
    command += ["--searches_dir", str(search.folder.parent), "--lease_seconds", str(lease_seconds)]
    # The address may hold a password: an environment is read by its owner alone, a command line by everybody.
    environment = {**os.environ, **({STORAGE: storage} if storage else {})}
    with leaving_on_signals() as leave:
        processes = [
            subprocess.Popen([*command, *(["--json"] if as_json else [])], env=environment) for _ in range(workers)
        ]
        while any(process.poll() is None for process in processes):
            if leave.wait(0.2):
                for process in processes:
                    process.send_signal(signal.SIGTERM)
                break
        codes = [process.wait() for process in processes]
    lost = [code for code in codes if code != 0]
    finished = all(trial.finished for trial in search.trials()) and len(search.trials()) >= search.wanted()
    if lost and not finished:
        raise RunError(f"{len(lost)} of {workers} workers ended early; go on with: ramify search start {search.name}")
