"""A search and its record: opening it, drawing trials, keeping results.

::

    searches/<name>/
        search.json      the place of the record, without a password, and the number of trials
        space.yaml       the space with every value
        journal.log      the record, where no database keeps it
        stop             asks the coordinator to end
        runs/trial-0007/ the run of each trial; in rungs/ its network at each rung, for its heirs

The record is a study of Optuna, written by one process at a time: the coordinator (:mod:`ramify.search.coordinator`).
The sampler draws a trial from a copy of the record, and one write adds it: the same record always gives the same trial,
and a process that dies leaves a whole trial or none.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ramify.config.read import read_config
from ramify.config.rules import Config
from ramify.errors import CheckpointError, InputError, nearest_or_all
from ramify.files import write_atomic
from ramify.needs import need
from ramify.run.folder import is_run
from ramify.sealed import check_text, sealed_json, sealed_text
from ramify.search.ancestry import choose_ancestor, heir_config, rung_folder
from ramify.search.goals import directions
from ramify.search.mend import mend_journal
from ramify.search.sampling import propose
from ramify.search.space import Space, parse_space, read_space, space_yaml
from ramify.search.storage import (
    JOURNAL,
    SEARCH,
    Owner,
    address,
    close_storage,
    keep_end,
    kept_number,
    kept_values,
    open_storage,
    patiently,
    quiet_optuna,
    without_password,
)
from ramify.search.trial import Trial, as_seen, trial_name, trial_of
from ramify.search.vary import check_name

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.study import Study
    from optuna.trial import FrozenTrial

SEARCHES_DIR = Path("searches")
SPACE, STOP = "space.yaml", "stop"


@dataclass(frozen=True)
class _Entry:
    """A trial: as the record has it, as Optuna has it, and as samplers see it."""

    trial: Trial
    frozen: "FrozenTrial"
    seen: "FrozenTrial"


class Search:
    """An open search. Its coordinator, which has the ``owner``, keeps what it has read; others read again."""

    def __init__(self, name: str, folder: Path, space: Space, study: "Study") -> None:
        self.name, self.folder, self.space, self.study, self.backend = name, folder, space, study, study._storage
        self.owner: Owner | None = None
        self._entries: list[_Entry] | None = None
        self._planned: int | None = None

    @property
    def runs(self) -> Path:
        """The folder of the runs of its trials."""
        return self.folder.resolve() / "runs"

    @property
    def planned(self) -> int:
        """The number of trials that it is to have."""
        if self._planned is None or self.owner is None:
            self._planned = int(patiently(lambda: self.study.user_attrs).get("trials", 0))
        return self._planned

    def trials(self) -> list[Trial]:
        """Every trial, by number."""
        return [entry.trial for entry in self._record()]

    def _record(self) -> list[_Entry]:
        if self.owner is None or self._entries is None:
            frozen = sorted(patiently(lambda: self.study.get_trials(deepcopy=False)), key=lambda trial: trial.number)
            self._entries = [self._entry(trial) for trial in frozen]
        return self._entries

    def _entry(self, frozen: "FrozenTrial") -> _Entry:
        trial = trial_of(frozen)
        return _Entry(trial, frozen, as_seen(self.space, trial, frozen))

    def close(self) -> None:
        """Release the record; the end of the process does so, too."""
        close_storage(self.backend)
        if self.owner is not None:
            keep_end(self.folder / JOURNAL)
            self.owner.release()

    def add(self) -> Trial:
        """Draw the next trial and put it on record.

        Raises:
            RunError: no draw gives a valid configuration.
        """
        from optuna.trial import TrialState, create_trial

        entries, token = self._record(), secrets.token_hex(8)
        drawn, overrides, refused = propose(self.space, [entry.seen for entry in entries])
        ancestor = choose_ancestor(read_config(overrides=overrides), self.trials()) if self.space.inherit else None
        attrs = {"number": len(entries), "overrides": overrides, "refused": refused, "token": token}
        template = create_trial(
            state=TrialState.RUNNING,
            params=drawn.params,
            distributions=drawn.distributions,
            user_attrs={**attrs, "ancestor": None if ancestor is None else asdict(ancestor)},
            system_attrs=drawn.system_attrs,
        )

        def added() -> "FrozenTrial":
            # A second attempt finds what a first one wrote before its connection broke.
            for attempt in range(2):
                last = self.study.get_trials(deepcopy=False)[-1:]
                if last and last[0].user_attrs.get("token") == token:
                    return last[0]
                if attempt == 0:
                    self.study.add_trial(template)
            raise AssertionError("the trial that was added is not there")

        entries.append(self._entry(patiently(added)))
        return entries[-1].trial

    def begin_fresh(self, number: int) -> None:
        """Put on record that a trial begins with a fresh network after all."""
        self._write(number, "ancestor", None)

    def record(self, number: int, rung: int, values: Mapping[str, float], device: str | None = None) -> None:
        """Put the results of a trial at a rung on record."""
        self._write(number, f"rung:{rung}", {**values, "device": device} if device else dict(values))

    def finish(self, number: int, failed: str | None = None) -> None:
        """Put on record that a trial is finished, or that it failed and why."""
        from optuna.trial import TrialState

        if failed is None:
            latest = self._record()[number].trial.values
            values, state = [latest[name] for name in self.space.names], TrialState.COMPLETE
        else:
            self._write(number, "failed", failed)
            values, state = None, TrialState.FAIL
        with quiet_optuna():
            patiently(lambda: self.study.tell(number, values, state, skip_if_finished=True))
        self._read_again(number)

    def _write(self, number: int, key: str, value: object) -> None:
        trial_id = self._record()[number].frozen._trial_id
        patiently(lambda: self.backend.set_trial_user_attr(trial_id, key, value))
        self._read_again(number)

    def _read_again(self, number: int) -> None:
        entries = self._record()
        trial_id = entries[number].frozen._trial_id
        entries[number] = self._entry(patiently(lambda: self.backend.get_trial(trial_id)))


def start_search(
    name: str,
    space: Space | None = None,
    trials: int | None = None,
    *,
    storage: str | None = None,
    searches_dir: Path = SEARCHES_DIR,
    trust: bool = False,
    warn: Callable[[str], None] = lambda sentence: None,
) -> Search:
    """A new or an existing search, for its coordinator: until it is closed, no other process can start it.

    Args:
        space: None for that of the existing search, or the ready one for digits.
        trials: how many it is to have; None for as many as before, or 20.
        storage: address of a database; None for a journal file in the folder, or for the place of an existing record.
        trust: import the code that the space of an existing search names in ``network.module`` and its objectives.
        warn: called with a sentence about damage that was repaired.

    Raises:
        InputError: another process works on it, the name is taken by a search with another space, the storage does
            not answer, or the space of the existing search names code that is not trusted.
    """
    check_name(name)
    need("search", "optuna")
    folder = searches_dir / name
    if folder.exists() and not folder.is_dir():
        raise InputError(f"name: got {name}, but {folder} is a file; accepted: another name")
    url = address(storage) if storage else _kept_address(folder, warn)
    backend = None if url is None else open_storage(folder, url)
    folder.mkdir(parents=True, exist_ok=True)
    owner = Owner(name, folder, url)
    try:
        owner.acquire()
        if backend is None:
            saved = mend_journal(folder / JOURNAL, _kept_space(folder))
            if saved is not None:
                warn(saved)
            keep_end(folder / JOURNAL, known=False)
            backend = open_storage(folder, None)
        search = patiently(lambda: _own(name, space, trials, folder, url, backend))
        code = search.space.code
        if space is None and code and not trust:
            raise InputError(
                f"{folder}: names code, which would be imported: {', '.join(code)}; accepted: --trust (trust=True from "
                "Python), where you know that code, or the space itself"
            )
        (folder / STOP).unlink(missing_ok=True)
    except BaseException:
        owner.release()
        if backend is not None:
            close_storage(backend)
        raise
    search.owner = owner
    return search


def _own(
    name: str, space: Space | None, trials: int | None, folder: Path, url: str | None, backend: "BaseStorage"
) -> Search:
    """The search of its owner. It may be called again: every step finds what an earlier attempt has written."""
    import optuna

    with quiet_optuna():
        known = {study.study_name for study in optuna.get_all_study_summaries(backend, include_best_trial=False)}
        if name in known:
            study = optuna.load_study(study_name=name, storage=backend)
            text = study.user_attrs.get("space")
            old = parse_space(str(text), f"search {name}") if text is not None else None
            if old is None and study.get_trials(deepcopy=False):
                raise InputError(f"name: got {name}, a study of Optuna, no search of ramify; accepted: another name")
            if space is not None and old is not None and space_yaml(space) != space_yaml(old):
                different = ", ".join(key for key in Space.model_fields if getattr(space, key) != getattr(old, key))
                raise InputError(
                    f"name: got {name}, a search with another space (it differs in {different}); "
                    f"accepted: another name, or ramify search start {name} without a space to go on with it"
                )
            space = old or space
        kept = _kept_space(folder)
        space = space or (parse_space(kept, str(folder / SPACE)) if kept else read_space("digits"))
        attrs = study.user_attrs if name in known else {}
        planned = trials or int(attrs.get("trials") or kept_number(folder, "trials") or 20)
        # First the files: from them a search that dies here, or loses its record, starts again.
        write_atomic(folder / SPACE, sealed_text(space_yaml(space).encode()))
        bare = None if url is None else without_password(url)
        write_atomic(folder / SEARCH, sealed_json({"storage": bare, "trials": planned}))
        if name not in known:
            study = optuna.create_study(study_name=name, storage=backend, directions=directions(space.objectives))
        if "space" not in attrs:
            study.set_metric_names(list(space.names))
            study.set_user_attr("space", space_yaml(space))
        if attrs.get("trials") != planned:
            study.set_user_attr("trials", planned)
    return Search(name, folder, space, study)


def open_search(name: str, *, storage: str | None = None, searches_dir: Path = SEARCHES_DIR) -> Search:
    """A search that was started, here or on another machine, to read it.

    Raises:
        InputError: there is none of that name (the nearest is named), its record is damaged, or the storage does not
            answer.
    """
    folder = searches_dir / name
    url = address(storage) if storage else _kept_address(folder)
    if url is None and not (folder / JOURNAL).is_file():
        names = sorted(path.name for path in searches_dir.iterdir()) if searches_dir.is_dir() else []
        hint = nearest_or_all(name, names)
        raise InputError(f"got {name!r}, which is no search in {searches_dir}; accepted: the name of one ({hint})")
    backend = open_storage(folder, url)
    import optuna

    try:
        with quiet_optuna():
            study = patiently(lambda: optuna.load_study(study_name=name, storage=backend))
        space = parse_space(str(patiently(lambda: study.user_attrs)["space"]), f"search {name}")
    except KeyError:
        raise InputError(f"got {name!r}, which is no search in that storage; accepted: one that was started") from None
    return Search(name, folder, space, study)


def config_of_trial(
    name: str,
    number: int,
    overrides: Sequence[str] = (),
    *,
    searches_dir: Path = SEARCHES_DIR,
) -> Config:
    """The configuration of a trial for a full training: ``<search>-<number>`` in the usual folder, ``overrides`` last.

    Raises:
        InputError: there is no such search or trial.
    """
    trials = open_search(name, searches_dir=searches_dir).trials()
    if not 0 <= number < len(trials):
        last = f"0 to {len(trials) - 1}" if trials else "none, as it has no trials yet"
        raise InputError(f"trial: got {number}; accepted: {last}")
    return read_config(overrides=[*trials[number].overrides, f"name={name}-{number:04}", *overrides])


def trial_config(search: Search, trial: Trial) -> Config:
    """The configuration of a trial's run within its search.

    A trial with an ancestor begins fresh where the ancestor's network is not in the folder.
    """
    own = [*trial.overrides, f"name={trial.name}", f"runs_dir='{search.runs}'"]
    if trial.ancestor is not None:
        parent = rung_folder(search.runs / trial_name(trial.ancestor.trial), trial.ancestor.rung)
        if is_run(parent):
            return heir_config(own, parent)
    return read_config(overrides=own)


def _kept_address(folder: Path, warn: Callable[[str], None] = lambda sentence: None) -> str | None:
    try:
        kept = kept_values(folder)
        address = kept["storage"] if kept else None
    except (CheckpointError, KeyError):
        path = folder / SEARCH
        if not (folder / JOURNAL).is_file():
            accepts = "a file that says where the record is (give it again by --storage)"
            raise InputError(f"{path}: is damaged; accepted: {accepts}") from None
        warn(f"{path}: was damaged; the record is in {folder / JOURNAL}")
        return None
    return None if address is None else str(address)


def _kept_space(folder: Path) -> str | None:
    try:
        content = (folder / SPACE).read_bytes()
        check_text(content, str(folder / SPACE))
        return content.decode()
    except (OSError, UnicodeDecodeError, CheckpointError):
        return None
