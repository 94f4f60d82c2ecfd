"""A search and its record: opening it, asking for trials, telling results.

::

    searches/<name>/
        search.json      where the record is, without a password
        space.yaml       the space, with nothing left open
        journal.log      the record, where no database keeps it
        leases.json      who is at work on what, likewise
        runs/trial-0007/ the run of each trial; in rungs/ its network at each rung, for trials that begin as it

The record is a study of Optuna. Each trial is born whole, in one write: the sampler draws it from a copy of the record,
so that a death at any moment leaves a trial that is there or is not, and the same record always gives the same trial.
"""

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

from ramify.config import Config
from ramify.configfile import read_config
from ramify.errors import ConfigError, InputError, RunError
from ramify.files import write_atomic
from ramify.run.folder import is_run
from ramify.search.ancestry import Ancestor, Candidate, choose_ancestor, heir_config, rung_folder
from ramify.search.draw import suggest
from ramify.search.goals import costs, directions, feasible
from ramify.search.halving import Standing, Verdict, verdicts
from ramify.search.leases import Leases
from ramify.search.space import Space, parse_space, space_yaml
from ramify.search.storage import (
    address,
    close_storage,
    need_optuna,
    open_storage,
    patiently,
    quiet_optuna,
    without_password,
)
from ramify.seeds import derive

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.study import Study
    from optuna.trial import FrozenTrial

SEARCHES_DIR = Path("searches")
SPACE, SEARCH = "space.yaml", "search.json"
REFUSALS = 200
"""After so many draws in a row that no configuration accepts, a space is called impossible."""
POPULATION = 10
"""Of a generation of NSGA-II: searches have tens of trials, not thousands."""
STARTUP = 8
"""Random trials before a model of the record draws."""


@dataclass(frozen=True)
class Trial:
    """One trial as the record has it.

    Attributes:
        number: from 0 on.
        finished: no worker will touch it again.
        failed: why it gave no result, else None.
        overrides: its configuration.
        params: what the sampler drew.
        results: for each rung that it reached, its objectives and whatever else was measured.
        ancestor: what it begins as; None for a fresh network.
    """

    number: int
    finished: bool
    failed: str | None
    overrides: tuple[str, ...]
    params: Mapping[str, object]
    results: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    ancestor: Ancestor | None = None

    @property
    def epochs(self) -> int:
        """The last rung that it reached, 0 if none."""
        return max(self.results, default=0)

    @property
    def values(self) -> Mapping[str, float]:
        """Its latest results; empty before the first rung."""
        return self.results[self.epochs] if self.results else {}

    @property
    def name(self) -> str:
        """Of its run."""
        return trial_name(self.number)


def trial_name(number: int) -> str:
    """The name of a trial's run."""
    return f"trial-{number:04}"


@dataclass(frozen=True)
class Search:
    """An open search."""

    name: str
    folder: Path
    space: Space
    study: "Study"
    backend: "BaseStorage"
    leases: Leases

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    def wanted(self) -> int:
        """How many trials it is to have."""
        return int(patiently(lambda: self.study.user_attrs)["trials"])

    def stopped(self) -> bool:
        """Whether its workers have been told to leave."""
        return bool(patiently(lambda: self.study.user_attrs).get("stopped", False))

    def trials(self) -> list[Trial]:
        """Every trial, by number."""
        return [_trial(each) for each in patiently(self._frozen)]

    def close(self) -> None:
        """Let go of the database; a search that is not closed does so when its process ends."""
        close_storage(self.backend, self.leases)

    def _frozen(self) -> "list[FrozenTrial]":
        return sorted(self.study.get_trials(deepcopy=False), key=lambda trial: trial.number)


def start_search(
    name: str,
    space: Space | None,
    trials: int,
    *,
    storage: str | None = None,
    searches_dir: Path = SEARCHES_DIR,
) -> Search:
    """A new search, or one to go on with: the same name with the same space, and perhaps more trials.

    Args:
        name: letters, digits, '.', '_' and '-'.
        space: what to search; None for that of the search that is there, or the ready one for digits.
        trials: how many it is to have; a search that is to have more already keeps its number.
        storage: address of a database; None for a journal file in the folder, or wherever the record is already.
        searches_dir: where searches are kept.

    Raises:
        InputError: the name is taken by a search with another space, or the storage does not answer.
    """
    if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", name) is None:
        raise InputError(f"name: got {name!r}; accepted: letters, digits, '.', '_' and '-'")
    folder = searches_dir / name
    url = storage or _kept_address(folder)
    if url is None:
        folder.mkdir(parents=True, exist_ok=True)
    backend, leases = open_storage(folder, url, name)
    with quiet_optuna():
        import optuna

        known = {study.study_name for study in optuna.get_all_study_summaries(backend, include_best_trial=False)}
        if name in known:
            study = optuna.load_study(study_name=name, storage=backend)
            there = _space_of(study, name)
            if space is not None and space_yaml(space) != space_yaml(there):
                different = _difference(there, space)
                close_storage(backend, leases)
                raise InputError(
                    f"name: got {name}, a search with another space (it differs in {different}); "
                    f"accepted: another name, or ramify search start {name} without a space to go on with it"
                )
            space = there
        else:
            if space is None:
                from ramify.search.space import read_space

                space = read_space("digits")
            study = optuna.create_study(
                study_name=name, storage=backend, directions=directions(space.objectives), load_if_exists=True
            )
            study.set_metric_names(list(space.objectives))
            study.set_user_attr("space", space_yaml(space))
    study.set_user_attr("trials", max(trials, int(study.user_attrs.get("trials", 0))))
    study.set_user_attr("stopped", False)
    _keep(folder, space, url)
    return Search(name, folder, space, study, backend, leases)


def open_search(name: str, *, storage: str | None = None, searches_dir: Path = SEARCHES_DIR) -> Search:
    """A search that was started, here or on another machine.

    Raises:
        InputError: there is none of that name (the nearest is told), or the storage does not answer.
    """
    folder = searches_dir / name
    url = storage or _kept_address(folder)
    if url is None and not (folder / SPACE).exists():
        there = sorted(entry.name for entry in searches_dir.iterdir()) if searches_dir.is_dir() else []
        near = difflib.get_close_matches(name, there, n=1)
        hint = f"nearest: {near[0]}" if near else f"there: {', '.join(there[:8]) or 'none'}"
        raise InputError(f"got {name!r}, which is no search in {searches_dir}; accepted: the name of one ({hint})")
    backend, leases = open_storage(folder, url, name)
    with quiet_optuna():
        import optuna

        try:
            study = patiently(lambda: optuna.load_study(study_name=name, storage=backend))
        except KeyError:
            raise InputError(
                f"got {name!r}, which is no search in that storage; accepted: one that was started"
            ) from None
    space = patiently(lambda: _space_of(study, name))
    if not (folder / SPACE).exists():
        _keep(folder, space, url)
    return Search(name, folder, space, study, backend, leases)


def config_of_trial(
    name: str,
    number: int,
    overrides: Sequence[str] = (),
    *,
    storage: str | None = None,
    searches_dir: Path = SEARCHES_DIR,
) -> Config:
    """The configuration of a trial, for a full training of its own: ``<search>-<number>`` in the usual folder.

    ``overrides`` come last.

    Raises:
        InputError: there is no such search or trial.
    """
    search = open_search(name, storage=storage, searches_dir=searches_dir)
    trials = search.trials()
    if not 0 <= number < len(trials):
        last = f"0 to {len(trials) - 1}" if trials else "none, as it has no trials yet"
        raise InputError(f"trial: got {number}; accepted: {last}")
    return read_config(overrides=[*trials[number].overrides, f"name={name}-{number:04}", *overrides])


def trial_config(search: Search, trial: Trial) -> Config:
    """The configuration of a trial's run within its search.

    One that is to begin as another begins afresh where that one's network is not in the folder, as on another machine
    that shares only the database.
    """
    own = [*trial.overrides, f"name={trial.name}", f"runs_dir='{search.runs}'"]
    if trial.ancestor is not None:
        parent = rung_folder(search.runs / trial_name(trial.ancestor.trial), trial.ancestor.rung)
        if is_run(parent):
            return heir_config(own, parent)
    return read_config(overrides=own)


def _ancestor(search: Search, overrides: Sequence[str]) -> Ancestor | None:
    """What a new trial of ``overrides`` begins as, of all that has a result now."""
    if not search.space.inherit:
        return None
    candidates = [
        Candidate(trial.number, trial.epochs, trial.values["accuracy"], _as_begun(trial))
        for trial in search.trials()
        if trial.results and trial.failed is None
    ]
    return choose_ancestor(read_config(overrides=overrides), candidates)


def _as_begun(trial: Trial) -> Config:
    """The configuration of a trial's run, wherever it is kept."""
    if trial.ancestor is None:
        return read_config(overrides=trial.overrides)
    return heir_config(trial.overrides, Path(trial_name(trial.ancestor.trial)))


def began_fresh(search: Search, number: int) -> None:
    """Put on record that a trial began with a fresh network after all."""

    def write() -> None:
        search.backend.set_trial_user_attr(search._frozen()[number]._trial_id, "ancestor", None)

    patiently(write)


def verdicts_of(search: Search, trials: Sequence[Trial]) -> dict[int, tuple[Verdict, int]]:
    """What is to be done with each trial that is not finished."""
    space = search.space
    standings = [
        Standing(
            trial.number,
            {
                rung: (_violation(space, values), costs(values, space.objectives))
                for rung, values in trial.results.items()
            },
            out=trial.failed is not None,
        )
        for trial in trials
    ]
    found = verdicts(space, standings, search.wanted())
    return {number: verdict for number, verdict in found.items() if not trials[number].finished}


def add_trial(search: Search, token: str) -> Trial:
    """Draw the next trial and put it on record; ``token`` marks it, so that a second attempt finds the first.

    Raises:
        RunError: the space gives no configuration that is accepted.
    """
    from optuna.trial import TrialState, create_trial

    def born() -> Trial:
        there = search._frozen()
        for trial in there:
            if trial.user_attrs.get("token") == token:
                return _trial(trial)
        drawn, overrides, refused = propose(search.space, there)
        ancestor = _ancestor(search, overrides)
        template = create_trial(
            state=TrialState.RUNNING,
            params=drawn.params,
            distributions=drawn.distributions,
            user_attrs={
                "overrides": overrides,
                "refused": refused,
                "token": token,
                "ancestor": None if ancestor is None else asdict(ancestor),
            },
            system_attrs=drawn.system_attrs,
        )
        search.study.add_trial(template)
        return _trial(search._frozen()[len(there)])

    return patiently(born)


def record_result(search: Search, number: int, rung: int, values: Mapping[str, float]) -> None:
    """Put on record what a trial is worth at a rung; the first record of it stands."""

    def write() -> None:
        trial = search._frozen()[number]
        key = f"rung:{rung}"
        if not trial.state.is_finished() and key not in trial.user_attrs:
            search.backend.set_trial_user_attr(trial._trial_id, key, dict(values))

    patiently(write)


def finish_trial(search: Search, number: int, *, failed: str | None = None) -> bool:
    """Close a trial with its latest results, or as failed; False, and nothing done, if it is closed already."""
    from optuna.trial import TrialState

    def close() -> bool:
        trial = search._frozen()[number]
        if trial.state.is_finished():
            return False
        storage = search.backend
        if failed is not None:
            storage.set_trial_user_attr(trial._trial_id, "failed", failed)
            search.study.tell(number, state=TrialState.FAIL, skip_if_finished=True)
            return True
        record = _trial(trial)
        storage.set_trial_user_attr(trial._trial_id, "rung", record.epochs)
        values = [record.values[name] for name in search.space.objectives]
        search.study.tell(number, values, skip_if_finished=True)
        return True

    with quiet_optuna():
        return patiently(close)


def propose(space: Space, record: "Sequence[FrozenTrial]") -> "tuple[FrozenTrial, list[str], int]":
    """What the sampler draws after ``record``: the trial, its overrides, and how many draws were refused before it.

    Trials that wait at a rung count with the results they have. Draws depend on the record and the seed alone.

    Raises:
        RunError: the space gives no configuration that is accepted.
    """
    need_optuna()
    import optuna

    reason = ""
    for attempt in range(REFUSALS):
        with quiet_optuna():
            sampler = _sampler(space, derive(space.seed, "trial", len(record), attempt) % 2**32)
            study = optuna.create_study(directions=directions(space.objectives), sampler=sampler)
            study.add_trials([_as_seen(space, trial) for trial in record])
            trial = study.ask()
            overrides = suggest(space, trial)
            drawn = study.get_trials(deepcopy=True)[-1]
        try:
            read_config(overrides=overrides)
        except ConfigError as error:
            reason = error.problems[0].replace(" (command line)", "")
            continue
        return drawn, overrides, attempt
    raise RunError(f"space: {REFUSALS} draws in a row were refused, the last because of {reason}")


def _as_seen(space: Space, trial: "FrozenTrial") -> "FrozenTrial":
    """A trial as samplers see it: complete as soon as it has results, with its constraints."""
    from optuna.trial import FrozenTrial, TrialState, create_trial

    record = _trial(trial)
    seen = create_trial(
        state=TrialState.FAIL if record.failed else TrialState.COMPLETE if record.results else TrialState.RUNNING,
        values=[record.values[name] for name in space.objectives] if record.results and not record.failed else None,
        params=trial.params,
        distributions=trial.distributions,
        system_attrs={key: value for key, value in trial.system_attrs.items() if not key.startswith("constraints")},
    )
    if record.results and space.constraints:
        excess = [constraint.excess(record.values) for constraint in space.constraints]
        if hasattr(FrozenTrial, "set_constraint"):
            for constraint, value in zip(space.constraints, excess, strict=True):
                seen.set_constraint(constraint.text, value)
        else:  # Optuna 4
            seen.system_attrs["constraints"] = excess
    return seen


def _sampler(space: Space, seed: int) -> "BaseSampler":
    from optuna import samplers
    from optuna.trial import FrozenTrial

    if space.sampler == "random":
        return samplers.RandomSampler(seed=seed)
    # Optuna 4 asks for a function where later ones read what the trials carry.
    old = not hasattr(FrozenTrial, "set_constraint") and bool(space.constraints)

    def kept(trial: FrozenTrial) -> Sequence[float]:
        found: Sequence[float] = trial.system_attrs.get("constraints", ())
        return found

    limits = kept if old else None
    if space.sampler == "nsgaii":
        return samplers.NSGAIISampler(population_size=POPULATION, seed=seed, constraints_func=limits)
    if space.sampler == "gp":
        return samplers.GPSampler(seed=seed, n_startup_trials=STARTUP, constraints_func=limits)
    return samplers.TPESampler(
        seed=seed,
        n_startup_trials=STARTUP,
        multivariate=True,
        group=True,
        constant_liar=True,
        constraints_func=limits,
    )


def _violation(space: Space, values: Mapping[str, float]) -> float:
    if feasible(values, space.constraints):
        return 0.0
    return sum(max(0.0, constraint.excess(values)) for constraint in space.constraints)


def _trial(frozen: "FrozenTrial") -> Trial:
    attrs = frozen.user_attrs
    results = {int(key.partition(":")[2]): values for key, values in attrs.items() if key.startswith("rung:")}
    failed = attrs.get("failed") or ("it was given up" if frozen.state.name in ("FAIL", "PRUNED") else None)
    return Trial(
        number=frozen.number,
        finished=frozen.state.is_finished(),
        failed=failed if frozen.state.is_finished() else None,
        overrides=tuple(attrs.get("overrides", ())),
        params=dict(frozen.params),
        results=dict(sorted(results.items())),
        ancestor=Ancestor(**attrs["ancestor"]) if attrs.get("ancestor") else None,
    )


def _kept_address(folder: Path) -> str | None:
    try:
        kept = json.loads((folder / SEARCH).read_text(encoding="utf-8"))["storage"]
    except FileNotFoundError:
        return None
    return None if kept is None else str(kept)


def _keep(folder: Path, space: Space, url: str | None) -> None:
    write_atomic(folder / SPACE, space_yaml(space).encode())
    kept = None if url is None else without_password(address(url))
    write_atomic(folder / SEARCH, (json.dumps({"storage": kept}, indent=2) + "\n").encode())


def _space_of(study: "Study", name: str) -> Space:
    text = study.user_attrs.get("space")
    if text is None:
        raise InputError(f"name: got {name}, a study of Optuna that is no search of ramify; accepted: another name")
    return parse_space(str(text), f"search {name}")


def _difference(one: Space, other: Space) -> str:
    names = (each.name for each in fields(Space))
    return ", ".join(name for name in names if getattr(one, name) != getattr(other, name))
