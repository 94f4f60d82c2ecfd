"""The front of a search as people look at it: tables, CSV, and a picture."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from ramify.config.yamltext import to_text
from ramify.search.coordinator import StepTaken, TrialEnded, WorkBegan, WorkEvent
from ramify.search.draw import as_table
from ramify.search.front import Front
from ramify.search.space import Space
from ramify.search.trial import Trial
from ramify.show.drawing import INK, axes, heading, log_axis, save
from ramify.show.labels import key_words
from ramify.show.terminal.table import table
from ramify.show.words import count, csv_lines, percent, plural, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, GREY = "#1f5fa8", "#b9bec6"
_NAMES = {
    "accuracy": "validation accuracy",
    "macs": "average MACs",
    "weights": "weights",
    "parameters": "parameters",
    "latency": "average milliseconds",
    "int8_bytes": "bytes in int8",
}


def figure(name: str, value: float) -> str:
    """A value of an objective as it is written in a table."""
    if name == "accuracy":
        return percent(value)
    if name in _NAMES and name != "latency":
        return short(value)
    return f"{value:.2f} ms" if name == "latency" else f"{value:.4g}"


def front_table(front: Front) -> Table:
    """The best trials, by size, with what they are."""
    objectives = front.space.names
    columns = ["trial", *(_NAMES.get(name, name) for name in objectives), "epochs", "began as", "network"]
    rows = [
        [
            *(str(trial.number), *(figure(name, trial.values[name]) for name in objectives)),
            *(str(trial.epochs), began_as(trial), network_of(trial, front.space)),
        ]
        for trial in front.best
    ]
    return table(columns, rows, left=[len(columns) - 1])


def began_as(trial: Trial) -> str:
    """What a trial's network was at first."""
    return "fresh" if trial.ancestor is None else f"{trial.ancestor.trial} at {trial.ancestor.rung}"


def network_of(trial: Trial, space: Space) -> str:
    """What of a trial's configuration a reader wants first."""
    drawn = as_table(trial.overrides, space)
    structure = drawn.get("network.structure")
    given = {**drawn, **({"network.structure": tuple(structure)} if isinstance(structure, list) else {})}
    keys = ["network.kind", "network.structure", "network.channels"]
    keys += ["prune.keep_ratio"] if given.get("prune.enabled") else []
    return ", ".join(key_words(key, given) for key in keys if given.get(key))


def front_sentences(front: Front) -> list[str]:
    """What the table does not say: how many there were, what was saved, what failed."""
    lines: list[str] = []
    counted = len(front.best) + len(front.dominated) + len(front.infeasible)
    limits = ", ".join(constraint.text for constraint in front.space.constraints)
    if counted and len(front.infeasible) == counted:
        names = {constraint.name for constraint in front.space.constraints}
        nearest = [
            f"{name} from {figure(name, min(values))} to {figure(name, max(values))}"
            for name in sorted(names)
            for values in [[trial.values[name] for trial in front.infeasible]]
        ]
        lines.append(f"no trial of {counted} meets the constraints ({limits}); seen: {', '.join(nearest)}")
    elif counted:
        others = f"{plural(len(front.dominated), 'other')} dominated"
        missed = f", {len(front.infeasible)} beyond the constraints ({limits})" if front.infeasible else ""
        lines.append(f"{plural(len(front.best), 'network')} on the front, {others}{missed}")
    else:
        lines.append("no trial has reached a rung yet")
    if front.waiting:
        lines.append(f"{plural(front.waiting, 'trial')} not finished")
    if front.trained:
        less = f", {percent(front.saved)} less than {count(front.full)} without halving" if front.saved > 0 else ""
        lines.append(f"{count(front.trained)} epochs trained{less}")
    devices = sorted({trial.device for trial in (*front.best, *front.dominated) if trial.device is not None})
    if len(devices) > 1:
        lines.append(f"latency was measured on different devices and cannot be compared: {', '.join(devices)}")
    if front.failed:
        lines.append(f"{plural(len(front.failed), 'trial')} failed, the last because of: {front.failed[-1].failed}")
    return lines


def importance_table(found: Mapping[str, Mapping[str, float]], most: int = 6) -> Table:
    """For each objective, the parameters that matter most."""
    names = list(found)
    total = {key: max(found[name].get(key, 0.0) for name in names) for name in names for key in found[name]}
    most_important = sorted(total, key=lambda key: -total[key])[:most]
    rows = [[key, *(percent(found[name].get(key)) for name in names)] for key in most_important]
    return table(["what mattered for", *(_NAMES.get(name, name) for name in names)], rows)


def front_csv(front: Front) -> str:
    """Every trial with a result: number, whether it is on the front, its figures, and what was drawn."""
    rows: list[dict[str, object]] = []
    groups = (("front", front.best), ("dominated", front.dominated), ("infeasible", front.infeasible))
    for group, trials in groups:
        for trial in trials:
            drawn = {key: to_text(value) for key, value in as_table(trial.overrides, front.space).items()}
            known = {"trial": trial.number, "group": group, "epochs": trial.epochs, "began_as": began_as(trial)}
            rows.append({**known, **trial.values, **drawn})
    names = list(dict.fromkeys(name for row in rows for name in row)) or ["trial", "group", "epochs", "began_as"]
    return csv_lines(names, [[row.get(name, "") for name in names] for row in rows])


def front_json(front: Front, found: Mapping[str, Mapping[str, float]]) -> dict[str, object]:
    """The same for programs."""

    def records(trials: Sequence[Trial]) -> list[dict[str, object]]:
        return [
            {
                "trial": trial.number,
                "epochs": trial.epochs,
                "finished": trial.finished,
                "ancestor": None if trial.ancestor is None else asdict(trial.ancestor),
                "values": dict(trial.values),
                "config": as_table(trial.overrides, front.space),
            }
            for trial in trials
        ]

    return {
        "name": front.name,
        "objectives": list(front.space.names),
        "constraints": [constraint.text for constraint in front.space.constraints],
        "front": records(front.best),
        "dominated": records(front.dominated),
        "infeasible": records(front.infeasible),
        "failed": [{"trial": trial.number, "reason": trial.failed} for trial in front.failed],
        "unfinished": front.waiting,
        "epochs": front.trained,
        "epochs_without_halving": front.full,
        "saved": front.saved,
        "importances": {name: dict(each) for name, each in found.items()},
    }


def plot_front(front: Front, path: Path) -> None:
    """A picture of the front: the first objective over each of the others, dominated trials in grey.

    Raises:
        InputError: matplotlib is not installed, or the file cannot be written.
    """
    objectives = front.space.names
    across = objectives[1:] or ("epochs",)
    drawing, panels = axes((0.6 + 5.6 * len(across), 4.8), columns=len(across))
    for panel, name in zip(panels[0], across, strict=True):
        _panel(panel, front, name, objectives[0])
    panels[0][0].set_ylabel(_label(objectives[0]), color=INK)
    trials = len(front.best) + len(front.dominated) + len(front.infeasible)
    heading(drawing, f"{front.name}: {plural(len(front.best), 'network')} on the front of {trials} trials")
    entries = {
        label: handle for panel in panels[0] for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    handles, columns = list(entries.values()), max(1, len(entries))
    drawing.legend(handles, list(entries), loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
    save(drawing, path)


def _label(name: str) -> str:
    return _NAMES.get(name, name) + (" (%)" if name == "accuracy" else "")


def _at(trial: Trial, name: str) -> float:
    value = float(trial.epochs) if name == "epochs" else trial.values[name]
    return 100 * value if name == "accuracy" else value


def _panel(panel: "Axes", front: Front, x: str, y: str) -> None:
    for trials, marker, label in (
        (front.dominated, "o", "dominated"),
        (front.infeasible, "x", "beyond the constraints"),
    ):
        if trials:
            points = [_at(trial, x) for trial in trials], [_at(trial, y) for trial in trials]
            panel.scatter(*points, s=26, marker=marker, color=GREY, linewidths=1.2, label=label, zorder=2)
    best = sorted(front.best, key=lambda trial: _at(trial, x))
    if best:
        steps = _staircase(front, x, y)
        at = [_at(trial, x) for trial in steps], [_at(trial, y) for trial in steps]
        panel.plot(*at, drawstyle="steps-post", color=BLUE, linewidth=1.2, alpha=0.45, zorder=3)
        here = {trial.number for trial in steps}
        for inside, fill, label in (
            (True, BLUE, "front (number of the trial)"),
            (False, "white", "front, for another size"),
        ):
            some = [trial for trial in best if (trial.number in here) == inside]
            if some:
                points = [_at(trial, x) for trial in some], [_at(trial, y) for trial in some]
                panel.scatter(*points, s=42, facecolor=fill, edgecolors=BLUE, linewidths=1.3, label=label, zorder=4)
        # The line comes from below and leaves to the right: above to the left there is room.
        for trial in best:
            number, spot = str(trial.number), (_at(trial, x), _at(trial, y))
            panel.annotate(
                number, spot, (-4, 4), textcoords="offset points", ha="right", fontsize=8, color=BLUE, zorder=5
            )
    if x in _NAMES and x != "accuracy":
        log_axis(panel, "" if x == "latency" else "short")
    for constraint in front.space.constraints:
        limit = constraint.limit * (100 if constraint.name == "accuracy" else 1)
        if constraint.name == x:
            panel.axvline(limit, color=INK, linestyle=":", linewidth=1, zorder=1)
        elif constraint.name == y:
            panel.axhline(limit, color=INK, linestyle=":", linewidth=1, zorder=1)
    panel.set_xlabel(_label(x), color=INK)
    panel.margins(0.07, 0.1)


def _staircase(front: Front, x: str, y: str) -> list[Trial]:
    """Of the front, what no other beats in this panel's two objectives: the others are there for the third."""
    sign = {each.name: -1 if each.better == "high" else 1 for each in front.space.objectives}
    found: list[Trial] = []
    for trial in sorted(
        front.best, key=lambda trial: (sign.get(x, 1) * trial.values.get(x, trial.epochs), trial.number)
    ):
        if not found or sign[y] * trial.values[y] < sign[y] * found[-1].values[y]:
            found.append(trial)
    return found


def event_line(event: WorkEvent, space: Space) -> str:
    """What a worker did, in a line."""
    if isinstance(event, WorkBegan):
        start = "starts" if event.epoch == 0 else f"goes on from epoch {event.epoch}"
        return f"trial {event.trial}: {start}, up to epoch {event.rung} of {space.epochs}"
    if isinstance(event, StepTaken):
        figures = ", ".join(f"{name} {figure(name, event.values[name])}" for name in space.names)
        return f"trial {event.trial}: epoch {event.rung}: {figures}"
    assert isinstance(event, TrialEnded)
    if event.failed is not None:
        return f"trial {event.trial}: failed ({event.failed})"
    return f"trial {event.trial}: finished at epoch {event.rung}"
