"""Several runs on one page: groups of seeds, their means and deviations, and grown against static networks."""

from collections.abc import Callable, Sequence
from pathlib import Path

from markupsafe import Markup

from ramify.config.yamltext import to_text
from ramify.data.fetch import Progress
from ramify.errors import InputError
from ramify.run.saved import checkpoint_of
from ramify.show.groups import LAST, Group, Run, Spread, accuracy_of, grouped, plus_minus, read_run, varied_keys
from ramify.show.labels import differing, flat
from ramify.show.report.baseline import Compared, PairedRuns, compared, is_grown, matches, widens
from ramify.show.report.compare_plots import (
    Mark,
    amount_plot,
    difference_plot,
    epochs_plot,
    exits_plot,
    mark,
    reach,
    tradeoff_plot,
)
from ramify.show.report.page import ReportPart, html, page
from ramify.show.report.plot import Table, Value, downloads
from ramify.show.words import count, duration, percent, plural

_NAMED = 4
"""Groups that the first sentence names one by one."""

Groups = Sequence[Group]


def comparison_page(runs: Sequence[Path], progress: Progress | None = None) -> str:
    """One self-contained HTML page on several runs, finished or not.

    Runs that differ in their seed, name and place alone are one group; see :func:`ramify.run.summary.recipe`. The test
    pictures are answered again only for runs with a calibrated policy.

    Args:
        progress: called with how far a download is, where pictures must be fetched.

    Raises:
        InputError: no run has a checkpoint yet, or a file of a run is damaged.
    """
    read: list[Run] = []
    absent: dict[str, str] = {}
    for folder in dict.fromkeys(Path(run).resolve() for run in runs):
        try:
            checkpoint_of(folder)
        except InputError as error:
            absent[folder.name] = error.problems[0]
        else:
            read.append(read_run(folder, progress))
    if not read:
        raise InputError(*(absent.values() or ["report: got no run; accepted: one or more"]))
    return comparison_html(grouped(read, varied_keys(list(map(Path, runs)))), tuple(absent))


def comparison_html(groups: Groups, absent: Sequence[str] = ()) -> str:
    """The page of ``groups``; ``absent`` are names of runs that have not trained for an epoch."""
    title = f"{plural(len(_runs(groups)), 'run')} in {plural(len(groups), 'group')}"
    first: ReportPart[Groups] = ReportPart("groups", "Groups", lambda groups: _groups(groups, absent))
    return page(title, lead_sentence(groups), (first, *_PARTS), groups)


def lead_sentence(groups: Groups) -> str:
    """The accuracies at the last exit, in order, with their deviations, in one sentence."""
    known = [(group.label, accuracy) for group in groups if (accuracy := group.accuracy(LAST)) is not None]
    if not known:
        return f"None of the {plural(len(_runs(groups)), 'run')} has finished yet."
    if len(_pictures(groups)) > 1:
        return f"{plural(len(groups), 'group')} of runs on different pictures: their accuracies cannot be compared."
    known.sort(key=lambda pair: -pair[1].mean)
    # A line does not break inside a figure.
    figures = [(label, plus_minus(mean, "%", digits=1).replace(" ", "\N{NO-BREAK SPACE}")) for label, mean in known]
    deviations = any(mean.deviation is not None for _, mean in known)
    meaning = " (mean ± one standard deviation over the seeds)" if deviations else ""
    if len(known) <= _NAMED:
        *most, last = [f"{label} {figure}" for label, figure in figures]
        listed = f"{', '.join(most)} and {last}" if most else last
        return f"Test pictures right at the last exit: {listed}{meaning}."
    (best, high), (worst, low) = figures[0], figures[-1]
    return (
        f"Of {len(known)} groups, {best} has the highest mean accuracy at the last exit, {high}, and {worst} the "
        f"lowest, {low}{meaning}."
    )


def _runs(groups: Groups) -> list[Run]:
    return [run for group in groups for run in group.runs]


def _pictures(groups: Groups) -> set[tuple[object, ...]]:
    """The keys that decide on the test pictures, for all groups."""
    names = ("source", "labels", "group", "fold", "limit", "test_fraction", "size")
    return {tuple(getattr(group.config.data, name) for name in names) for group in groups}


def notes(groups: Groups, absent: Sequence[str] = ()) -> list[str]:
    """Sentences on missing results and on runs that cannot be compared."""
    runs = _runs(groups)
    lines: list[str] = []
    if len(_pictures(groups)) > 1:
        lines.append("The groups were tested on different pictures: their accuracies cannot be compared.")
    if absent:
        lines.append(f"Left out, as they have not trained for an epoch yet: {', '.join(absent)}.")
    lines += [
        f"{run.name} has not finished (epoch {run.summary.epochs} of {run.summary.planned_epochs}): only its accuracy "
        "by epoch is shown."
        for run in runs
        if not run.finished
    ]
    alone = [group.label for group in groups if len(group.finished) == 1]
    if alone:
        lines.append(f"One finished run, and so no deviation and no error bars: {', '.join(alone)}.")
    for group in groups:
        depths = sorted({len(run.macs) for run in group.finished})
        if len(depths) > 1:
            lines.append(
                f"{group.label}: its runs ended with {' or '.join(map(str, depths))} exits; the mean of each exit is "
                "over the runs that have it, and the last exit is the last of each run."
            )
        if len({run.seed for run in group.runs}) < len(group.runs):
            lines.append(f"{group.label}: some runs share a seed; each counts by itself.")
    early = [run for run in runs if run.finished and len(run.macs) > 1]
    without = [run.name for run in early if run.policy is None and run.unmeasured is None]
    if without:
        which = f"Without a calibrated exit policy: {', '.join(without)}"
        which = "No run has a calibrated exit policy" if len(without) == len(early) else which
        lines.append(f"{which} (ramify calibrate NAME finds one).")
    lines += [f"{run.name}: its policy was not measured ({run.unmeasured})." for run in runs if run.unmeasured]
    goals = sorted({run.policy.goal for run in runs if run.policy})
    if len(goals) > 1:
        lines.append(f"The policies were calibrated for different goals: {'; '.join(goals)}.")
    return lines


_FIGURES: tuple[tuple[str, str, Callable[[Group], Spread | None]], ...] = (
    ("last exit", "%", lambda group: group.accuracy(LAST)),
    ("policy", "%", lambda group: (group.policy() or (None, None))[0]),
    ("policy, MACs", "short", lambda group: (group.policy() or (None, None))[1]),
    ("last exit, MACs", "short", lambda group: group.macs(LAST)),
    ("weights kept", "short", lambda group: group.spread(lambda run: run.last.kept)),
    ("parameters", "short", lambda group: group.spread(lambda run: run.last.parameters)),
    ("training", "s", lambda group: group.spread(lambda run: run.seconds)),
)
"""Columns of the table of groups: heading, unit, figure."""


def _groups(groups: Groups, absent: Sequence[str]) -> Markup:
    """The means of every group, notes, and every run."""
    runs = _runs(groups)
    goals = {run.policy.goal for run in runs if run.policy}
    goal = goals.pop() if len(goals) == 1 else ""
    return html("compare.groups", len(runs), goal, _groups_table(groups), notes(groups, absent), _runs_table(groups))


def _groups_table(groups: Groups) -> Markup:
    columns = [column for column in _FIGURES if any(column[2](group) is not None for group in groups)]
    rows: list[list[tuple[str, Value]]] = []
    data: list[tuple[Value, ...]] = []
    for i, group in enumerate(groups):
        spreads = [(figure(group), unit) for _, unit, figure in columns]
        figures = [(plus_minus(spread, unit), spread.mean if spread else None) for spread, unit in spreads]
        many = len(group.runs)
        rows.append([(html("compare.named", mark(i), group.label), group.label), (str(many), many), *figures])
        values = [
            value for spread, _ in spreads for value in ((spread.mean, spread.deviation) if spread else (None,) * 2)
        ]
        data.append((group.label, many, " ".join(str(run.seed) for run in group.runs), *values))
    names = [name for name, _, _ in columns]
    every = ("group", "runs", "seeds", *(column for name in names for column in (name, f"{name}, deviation")))
    table = html("compare.sortable", "Groups", ("group", "runs", *names), 1, rows)
    return table + downloads("groups", Table(every, data))


def _runs_table(groups: Groups) -> Markup:
    names = [run.name for run in _runs(groups)]
    rows: list[list[tuple[str, Value]]] = []
    for i, group in enumerate(groups):
        for run in group.runs:
            name = run.name if names.count(run.name) == 1 else run.summary.folder
            exits, planned = len(run.macs), run.summary.exits_planned
            done, epochs = run.summary.epochs, run.summary.planned_epochs
            policy, last = run.policy.accuracy if run.policy else None, accuracy_of(LAST)(run)
            rows.append(
                [
                    (html("compare.named", mark(i), name), name),
                    (group.label, group.label),
                    (str(run.seed), run.seed),
                    (str(exits) if exits == planned else f"{exits} of {planned}", exits),
                    (str(done) if run.finished else f"{done} of {epochs}", done),
                    (percent(last), last),
                    (percent(policy), policy),
                    (count(run.last.kept), run.last.kept),
                    ("-" if run.seconds is None else duration(run.seconds), run.seconds),
                ]
            )
    columns = ("run", "group", "seed", "exits", "epochs", "last exit", "policy", "weights kept", "time")
    return html("compare.sortable", "Every run", columns, 2, rows)


def _marked(groups: Groups) -> list[tuple[Mark, str]]:
    return [(mark(i), group.label) for i, group in enumerate(groups)]


def _weights(groups: Groups) -> Markup:
    drawn = amount_plot(groups, lambda run: run.last.kept, "weights-kept", "weights kept", "short")
    rows = []
    if any(run.last.kept < run.last.weights for group in groups for run in group.finished):
        for group in groups:
            density = group.spread(lambda run: run.last.kept / run.last.weights)
            # Densities of one recipe are mostly the same to the weight: "± 0.0" would be noise.
            same = density is not None and not density.deviation
            share = percent(density.mean) if density and same else plus_minus(density, "%", digits=1)
            rows.append((group.label, share, plus_minus(group.spread(lambda run: run.last.weights), "short")))
    return html("compare.weights", drawn, rows)


def _time(groups: Groups) -> Markup:
    known = [run.summary.machine for group in groups for run in group.finished if run.summary.machine]
    machines = sorted({f"{it['device']}, {it['precision']}, {plural(int(it['threads']), 'thread')}" for it in known})
    return html("compare.time", amount_plot(groups, lambda run: run.seconds, "seconds", "seconds", "s"), machines)


def _static(groups: Groups) -> Markup:
    """Accuracy and time of grown networks against their baselines, with the uncertainty."""
    pairs = [(match, compared(match)) for match in matches(groups)]
    accuracies = [[row for row in rows if row.unit == "%"] for _, rows in pairs]
    limit = max([1.1 * reach(rows) for rows in accuracies] + [0.1])
    shown = []
    for number, ((match, rows), right) in enumerate(zip(pairs, accuracies, strict=True), start=1):
        name, grown = f"grown-less-static-{number}", groups.index(match.grown)
        drawn = difference_plot(right, grown, limit, name) if right else None
        singles = any(row.difference.mean.n > 1 and row.difference.paired for row in right)
        shown.append({"match": match, "drawn": drawn, "singles": singles, "table": _differences(match, rows)})
    matched = [match.grown.label for match, _ in pairs]
    without = [
        (group.label, group.runs[0].name, widens(group.config))
        for group in groups
        if is_grown(group.config) and group.label not in matched
    ]
    return html("compare.static", shown, without)


def _differences(match: PairedRuns, rows: Sequence[Compared]) -> Table:
    lines: list[tuple[Value, ...]] = []
    for row in rows:
        gap, mean = row.difference, row.difference.mean
        if row.unit == "%":
            words = f"{plus_minus(mean, 'points')} points"
        else:
            words = ("" if mean.mean < 0 else "+") + plus_minus(mean, row.unit)
        sides = (plus_minus(group.spread(row.figure), row.unit) for group in (match.grown, match.static))
        unpaired = f"{gap.n[0]} and {plural(gap.n[1], 'run')}, unpaired"
        lines.append((row.words, words, *sides, f"{plural(gap.n[0], 'seed')}, paired" if gap.paired else unpaired))
    return Table(("figure", "difference", match.grown.label, match.static.label, "over"), lines)


def _configurations(groups: Groups) -> Markup:
    """The keys in which the groups differ, and those that they share."""
    tables = [
        {key: value if isinstance(value, str) else to_text(value) for key, value in flat(group.config).items()}
        for group in groups
    ]
    keys = differing([group.config for group in groups])
    rows = [(key, *(table[key] for table in tables)) for key in keys]
    shared = Table(("key", "value"), [item for item in tables[0].items() if item[0] not in keys])
    versions = sorted({", ".join(map(" ".join, run.summary.versions.items())) for run in _runs(groups)})
    return html("compare.configurations", _marked(groups), rows, shared, versions)


def _unless(condition: Callable[[Group], object], why: str) -> Callable[[Groups], str]:
    """``why`` where no group meets the condition."""
    return lambda groups: "" if any(map(condition, groups)) else why


def _unfinished(why: str) -> Callable[[Groups], str]:
    return _unless(lambda group: group.finished, f"No run has finished{why}")


_NO_TEST = _unfinished("; the test pictures are read once, at the end of a run.")
_NO_EPOCHS = "No run has held pictures out for validation in an epoch of training, so there is nothing to show."
_NO_GROWTH = "No run here grows its network, so there is nothing to compare."
_PARTS: tuple[ReportPart[Groups], ...] = (
    ReportPart(
        "exits", "Accuracy of each exit", lambda it: html("compare.exits", _marked(it), exits_plot(it)), _NO_TEST
    ),
    ReportPart(
        "work", "Accuracy against work", lambda it: html("compare.work", _marked(it), tradeoff_plot(it)), _NO_TEST
    ),
    ReportPart(
        "epochs",
        "Accuracy by epoch",
        lambda it: html("compare.epochs", _marked(it), epochs_plot(it)),
        _unless(lambda group: any(run.epochs for run in group.runs), _NO_EPOCHS),
    ),
    ReportPart("weights", "Weights", _weights, _unfinished(", so no network has its final size.")),
    ReportPart("time", "Time", _time, _unfinished(", so there is no time to show.")),
    ReportPart("static", "Grown against static", _static, _unless(lambda group: is_grown(group.config), _NO_GROWTH)),
    ReportPart("configurations", "Configurations", _configurations),
)
"""After the groups, in the order of the page."""
