"""Repairing the damaged journal of a search: its readable lines are written to a new one."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ramify.errors import InputError
from ramify.files import write_atomic
from ramify.search.goals import directions
from ramify.search.space import parse_space
from ramify.search.storage import journal_record, open_journal, quiet_optuna

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

RECORD_LOST = "its record was damaged"


def mend_journal(path: Path, space: str | None) -> str | None:
    """Make the journal at ``path`` readable, for its owner.

    Args:
        space: that of the search, where the journal has lost it.

    Returns:
        What was saved, as a sentence; None where nothing was damaged but a last line that was cut short.

    Raises:
        InputError: the file is no journal of a search.
    """
    if not path.exists():
        return None
    try:
        content = path.read_bytes()
    except OSError as error:
        why = error.strerror or error
        raise InputError(f"{path}: cannot be read ({why}); accepted: the record of a search, a file") from None
    whole = content[: content.rfind(b"\n") + 1]
    try:
        open_journal(path)
    except InputError:
        pass
    else:
        if whole != content:
            write_atomic(path, whole)
        return None
    lines = whole.splitlines()
    records = [record for line in lines if (record := journal_record(line)) is not None]
    trials = _saved_trials(records)
    attrs: dict[str, object] = {}
    for record in records:
        user = record.get("user_attr")
        if "study_id" in record and isinstance(user, dict):
            attrs |= user
    if not trials and "space" not in attrs:
        raise InputError(f"{path}: is no record of a search; accepted: to move it away and start the search again")
    fresh, kept = path.with_suffix(".new"), path.with_suffix(".damaged")
    fresh.unlink(missing_ok=True)
    _write_journal(fresh, path.parent.name, {"space": space, **attrs}, trials)
    write_atomic(kept, content)
    fresh.replace(path)
    lost = sum(trial.user_attrs.get("failed") == RECORD_LOST for trial in trials)
    return (
        f"{path}: {len(lines) - len(records)} of {len(lines)} lines were damaged; "
        f"{len(trials) - lost} of {len(trials)} trials are saved (as it was: {kept.name})"
    )


def _saved_trials(records: "list[dict[str, object]]") -> "list[FrozenTrial]":
    """The trials of the readable lines; one whose first line is lost has failed."""
    from optuna.distributions import json_to_distribution
    from optuna.trial import TrialState, create_trial

    born: dict[int, Mapping[str, object]] = {}
    attrs: dict[int, dict[str, object]] = {}
    ended: dict[int, Mapping[str, object]] = {}
    for record in records:
        user, trial = record.get("user_attrs"), record.get("trial_id")
        if isinstance(user, dict) and isinstance(user.get("number"), int):
            born[user["number"]] = record
            attrs.setdefault(user["number"], {}).update(user)
        elif isinstance(trial, int) and isinstance(record.get("user_attr"), dict):
            attrs.setdefault(trial, {}).update(record["user_attr"])  # type: ignore[call-overload]
        elif isinstance(trial, int) and "state" in record:
            ended[trial] = record
    trials: list[FrozenTrial] = []
    for number in range(max([*born, *attrs, *ended], default=-1) + 1):
        if number not in born:
            trials.append(create_trial(state=TrialState.FAIL, user_attrs={"failed": RECORD_LOST, "number": number}))
            continue
        texts, params = born[number].get("distributions"), born[number].get("params")
        assert isinstance(texts, dict)
        assert isinstance(params, dict)
        kinds = {name: json_to_distribution(text) for name, text in texts.items()}
        end = ended.get(number, {"state": TrialState.RUNNING.value, "values": None})
        values, system = end["values"], born[number].get("system_attrs")
        trials.append(
            create_trial(
                state=TrialState(int(str(end["state"]))),
                values=values if isinstance(values, list) else None,
                params={name: kind.to_external_repr(params[name]) for name, kind in kinds.items()},
                distributions=kinds,
                user_attrs=attrs[number],
                system_attrs=system if isinstance(system, dict) else {},
            )
        )
    return trials


def _write_journal(path: Path, name: str, attrs: "Mapping[str, object]", trials: "list[FrozenTrial]") -> None:
    import optuna

    space = parse_space(str(attrs["space"]), str(path.parent))
    with quiet_optuna():
        study = optuna.create_study(
            study_name=name, storage=open_journal(path), directions=directions(space.objectives)
        )
        for key, value in attrs.items():
            study.set_user_attr(key, value)
        study.add_trials(trials)
