"""The front of a search: tables, sentences, CSV, JSON and a picture."""

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
from ramify.show.drawing import INK, axes, heading, log_axis, save_drawing
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
    """A value of an objective, for a table."""
    if name == "accuracy":
        return percent(value)
    if name in _NAMES and name != "latency":
        return short(value)
    return f"{value:.2f} ms" if name == "latency" else f"{value:.4g}"


def front_table(front: Front) -> Table:
    """The trials of the front, with figures and networks."""
    objectives = front.space.names
    columns = ["trial", *(_NAMES.get(name, name) for name in objectives), "epochs", "began as", "network"]
    rows = [
        [
            *(str(trial.number), *(figure(name, trial.values[name]) for name in objectives)),
            *(str(trial.epochs), _began_as(trial), _network_of(trial, front.space)),
        ]
        for trial in front.best
    ]
    return table(columns, rows, left=[len(columns) - 1])


def _began_as(trial: Trial) -> str:
    return "fresh" if trial.ancestor is None else f"{trial.ancestor.trial} at {trial.ancestor.rung}"


def _network_of(trial: Trial, space: Space) -> str:
    """Kind, structure, width and keep ratio of a trial, as far as the space varies them."""
    drawn = as_table(trial.overrides, space)
    structure = drawn.get("network.structure")
    if isinstance(structure, list):
        drawn["network.structure"] = tuple(structure)
    keys = ["network.kind", "network.structure", "network.channels"]
    keys += ["prune.keep_ratio"] if drawn.get("prune.enabled") else []
    return ", ".join(key_words(key, drawn) for key in keys if drawn.get(key))


def front_sentences(front: Front) -> list[str]:
    """Counts of trials and epochs, constraints that no trial meets, and failures."""
    lines: list[str] = []
    counted = len(front.best) + len(front.dominated) + len(front.infeasible)
    limits = ", ".join(constraint.text for constraint in front.space.constraints)
    if counted and len(front.infeasible) == counted:
        seen = []
        for name in sorted({constraint.name for constraint in front.space.constraints}):
            values = [trial.values[name] for trial in front.infeasible]
            seen.append(f"{name} from {figure(name, min(values))} to {figure(name, max(values))}")
        lines.append(f"no trial of {counted} meets the constraints ({limits}); seen: {', '.join(seen)}")
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


def importance_table(importances: Mapping[str, Mapping[str, float]]) -> Table:
    """For each objective, the six parameters that matter most."""
    keys = dict.fromkeys(key for shares in importances.values() for key in shares)
    ranked = sorted(keys, key=lambda key: -max(shares.get(key, 0.0) for shares in importances.values()))
    rows = [[key, *(percent(shares.get(key)) for shares in importances.values())] for key in ranked[:6]]
    return table(["what mattered for", *(_NAMES.get(name, name) for name in importances)], rows)


def front_csv(front: Front) -> str:
    """Every trial with a result: number, group, figures and draws."""
    rows: list[dict[str, object]] = []
    groups = (("front", front.best), ("dominated", front.dominated), ("infeasible", front.infeasible))
    for group, trials in groups:
        for trial in trials:
            drawn = {key: to_text(value) for key, value in as_table(trial.overrides, front.space).items()}
            known = {"trial": trial.number, "group": group, "epochs": trial.epochs, "began_as": _began_as(trial)}
            rows.append({**known, **trial.values, **drawn})
    names = list(dict.fromkeys(name for row in rows for name in row)) or ["trial", "group", "epochs", "began_as"]
    return csv_lines(names, [[row.get(name, "") for name in names] for row in rows])


def front_json(front: Front, importances: Mapping[str, Mapping[str, float]]) -> dict[str, object]:
    """The front and the importances for programs."""

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
        "importances": {name: dict(shares) for name, shares in importances.items()},
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
    entries = dict(pair[::-1] for panel in panels[0] for pair in zip(*panel.get_legend_handles_labels(), strict=True))
    handles, columns = list(entries.values()), max(1, len(entries))
    drawing.legend(handles, list(entries), loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
    save_drawing(drawing, path)


def _label(name: str) -> str:
    return _NAMES.get(name, name) + (" (%)" if name == "accuracy" else "")


def _at(trial: Trial, name: str) -> float:
    value = float(trial.epochs) if name == "epochs" else trial.values[name]
    return 100 * value if name == "accuracy" else value


def _panel(panel: "Axes", front: Front, x: str, y: str) -> None:
    def points(trials: Sequence[Trial]) -> tuple[list[float], list[float]]:
        return [_at(trial, x) for trial in trials], [_at(trial, y) for trial in trials]

    steps = _staircase(front, x, y)
    others = [trial for trial in front.best if trial not in steps]
    panel.plot(*points(steps), drawstyle="steps-post", color=BLUE, linewidth=1.2, alpha=0.45, zorder=3)
    for trials, label, marker, size, fill, edge, order in (
        (front.dominated, "dominated", "o", 26, GREY, None, 2),
        (front.infeasible, "beyond the constraints", "x", 26, GREY, None, 2),
        (steps, "front (number of the trial)", "o", 42, BLUE, BLUE, 4),
        (others, "front, for another size", "o", 42, "white", BLUE, 4),
    ):
        if trials:
            discs = panel.scatter(*points(trials), size, facecolor=fill, edgecolors=edge, marker=marker, label=label)
            discs.set(linewidths=1.3, zorder=order)
    # The line comes from below and leaves to the right: above to the left there is room.
    for trial in front.best:
        number, spot = str(trial.number), (_at(trial, x), _at(trial, y))
        panel.annotate(number, spot, (-4, 4), textcoords="offset points", ha="right", fontsize=8, color=BLUE, zorder=5)
    if x in _NAMES and x != "accuracy":
        log_axis(panel, units=x != "latency")
    for constraint in front.space.constraints:
        limit = constraint.limit * (100 if constraint.name == "accuracy" else 1)
        if constraint.name == x:
            panel.axvline(limit, color=INK, linestyle=":", linewidth=1, zorder=1)
        elif constraint.name == y:
            panel.axhline(limit, color=INK, linestyle=":", linewidth=1, zorder=1)
    panel.set_xlabel(_label(x), color=INK)
    panel.margins(0.07, 0.1)


def _staircase(front: Front, x: str, y: str) -> list[Trial]:
    """The trials of the front that no other beats in these two objectives: the rest is there for the third."""
    sign = {objective.name: -1 if objective.better == "high" else 1 for objective in front.space.objectives}
    ranked = sorted(front.best, key=lambda it: (sign.get(x, 1) * it.values.get(x, it.epochs), it.number))
    steps: list[Trial] = []
    for trial in ranked:
        if not steps or sign[y] * trial.values[y] < sign[y] * steps[-1].values[y]:
            steps.append(trial)
    return steps


def event_line(event: WorkEvent, space: Space) -> str:
    """An event of a search in a line."""
    match event:
        case WorkBegan(trial, epoch, rung):
            start = "starts" if epoch == 0 else f"goes on from epoch {epoch}"
            return f"trial {trial}: {start}, up to epoch {rung} of {space.epochs}"
        case StepTaken(trial, rung, values):
            figures = ", ".join(f"{name} {figure(name, values[name])}" for name in space.names)
            return f"trial {trial}: epoch {rung}: {figures}"
        case TrialEnded(trial, rung, failed):
            return f"trial {trial}: " + (f"finished at epoch {rung}" if failed is None else f"failed ({failed})")
