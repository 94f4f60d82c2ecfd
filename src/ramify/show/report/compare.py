"""Several runs on one page: groups of seeds, their means and deviations, and what growing did."""

from collections.abc import Callable, Sequence
from pathlib import Path

from markupsafe import Markup

from ramify.config.yamltext import to_text
from ramify.data.fetch import Progress
from ramify.errors import InputError
from ramify.run.saved import checkpoint_of
from ramify.show.groups import LAST, Group, Run, Spread, grouped, read_run, varied_keys
from ramify.show.labels import differing, flat
from ramify.show.report.baseline import Compared, PairedRuns, compared, is_grown, matches, widens
from ramify.show.report.compare_plots import (
    amount_plot,
    difference_plot,
    epochs_plot,
    exits_plot,
    mark,
    plus_minus,
    reach,
    tradeoff_plot,
)
from ramify.show.report.page import ReportPart, html, page
from ramify.show.report.plot import Table, Value, downloads
from ramify.show.words import count, duration, percent, plural

_NAMED = 4
"""Groups that the first sentence names one by one."""

GREY_BARS = "Grey lines: one standard deviation, where there is any."

Groups = Sequence[Group]


def comparison_page(runs: Sequence[Path], progress: Progress | None = None) -> str:
    """One self-contained HTML page on several runs, finished or not.

    Runs that differ in their seed, name and place alone are one group and share a mean; see
    :func:`ramify.run.summary.recipe`. The test pictures are answered again only for runs with a calibrated policy.

    Args:
        runs: folders of runs, in any order.
        progress: called with how far a download is, where pictures must be fetched.

    Raises:
        InputError: no run has a checkpoint yet, or a file of a run is damaged.
    """
    found: list[Run] = []
    absent: dict[str, str] = {}
    for folder in dict.fromkeys(Path(run).resolve() for run in runs):
        try:
            checkpoint_of(folder)
        except InputError as error:
            absent[folder.name] = error.problems[0]
        else:
            found.append(read_run(folder, progress))
    if not found:
        raise InputError(*(absent.values() or ["report: got no run; accepted: one or more"]))
    return comparison_html(grouped(found, varied_keys(list(map(Path, runs)))), tuple(absent))


def comparison_html(groups: Groups, absent: Sequence[str] = ()) -> str:
    """The page of ``groups``; ``absent`` are names of runs that have not trained for an epoch."""
    title = f"{plural(len(_runs(groups)), 'run')} in {plural(len(groups), 'group')}"
    first: ReportPart[Groups] = ReportPart("groups", "Groups", lambda groups: _groups(groups, absent))
    return page(title, lead_sentence(groups), [part.section(groups) for part in (first, *_PARTS)])


def lead_sentence(groups: Groups) -> str:
    """What came out, in one sentence: accuracies at the last exit, in order, with their deviations."""
    known = [(group, found) for group in groups if (found := group.accuracy(LAST)) is not None]
    if not known:
        return f"None of the {plural(len(_runs(groups)), 'run')} has finished yet."
    if len(_pictures(groups)) > 1:
        return f"{plural(len(groups), 'group')} of runs on different pictures: their accuracies cannot be compared."
    known.sort(key=lambda pair: -pair[1].mean)
    # A line does not break inside a figure.
    figures = [
        (group.label, plus_minus(each, "%", digits=1).replace(" ", "\N{NO-BREAK SPACE}")) for group, each in known
    ]
    deviations = any(each.deviation is not None for _, each in known)
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
    """What decides on the test pictures, for all groups."""
    sections = [group.config.data for group in groups]
    return {(data.source, data.limit, data.test_fraction, data.size) for data in sections}


def notes(groups: Groups, absent: Sequence[str] = ()) -> list[str]:
    """What a reader must know of these runs before comparing them: what is missing, and what is not alike."""
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
    without = [run for run in early if run.policy is None and run.unmeasured is None]
    if without:
        names = f"Without a calibrated exit policy: {', '.join(run.name for run in without)}"
        names = "No run has a calibrated exit policy" if len(without) == len(early) else names
        lines.append(f"{names} (ramify calibrate NAME finds one).")
    lines += [f"{run.name}: its policy was not measured ({run.unmeasured})." for run in runs if run.unmeasured]
    goals = sorted({run.policy.goal for run in runs if run.policy})
    if len(goals) > 1:
        lines.append(f"The policies were calibrated for different goals: {'; '.join(goals)}.")
    return lines


FIGURES: tuple[tuple[str, str, Callable[[Group], Spread | None]], ...] = (
    ("last exit", "%", lambda group: group.accuracy(LAST)),
    ("policy", "%", lambda group: (group.policy() or (None, None))[0]),
    ("policy, MACs", "short", lambda group: (group.policy() or (None, None))[1]),
    ("last exit, MACs", "short", lambda group: group.macs(LAST)),
    ("weights kept", "short", lambda group: group.spread(lambda run: run.last.kept)),
    ("parameters", "short", lambda group: group.spread(lambda run: run.last.parameters)),
    ("training", "s", lambda group: group.spread(lambda run: run.seconds)),
)
"""Columns of the table of groups: heading, unit, figure."""


def _groups(groups: Groups, absent: Sequence[str]) -> tuple[str, Markup]:
    """The means of every group, what a reader must know of them, and every run."""
    runs = _runs(groups)
    goals = {run.policy.goal for run in runs if run.policy}
    goal = f" Policies were calibrated {goals.pop()}." if len(goals) == 1 else ""
    lead = (
        f"{plural(len(runs), 'run')}; those that differ in their seed alone are one group. Figures are means over its "
        f"seeds ± one standard deviation (n - 1), accuracies on the test pictures.{goal} A click on a heading sorts."
    )
    return lead, html("groups", _groups_table(groups), notes(groups, absent), _runs_table(groups))


def _groups_table(groups: Groups) -> Markup:
    shown = [column for column in FIGURES if any(column[2](group) is not None for group in groups)]
    rows: list[list[tuple[str, Value]]] = []
    data: list[tuple[Value, ...]] = []
    for i, group in enumerate(groups):
        found = [(figure(group), unit) for _, unit, figure in shown]
        many, seeds = len(group.runs), " ".join(str(run.seed) for run in group.runs)
        figures = [(plus_minus(each, unit), each.mean if each else None) for each, unit in found]
        rows.append([(html("named", mark(i), group.label), group.label), (str(many), many), *figures])
        values = [value for each, _ in found for value in ((each.mean, each.deviation) if each else (None, None))]
        data.append((group.label, many, seeds, *values))
    names = [name for name, _, _ in shown]
    columns = ("group", "runs", "seeds", *(column for name in names for column in (name, f"{name}, deviation")))
    table = html("sortable", "Groups", ("group", "runs", *names), 1, rows)
    return table + downloads("groups", Table(columns, data))


def _runs_table(groups: Groups) -> Markup:
    names = [run.name for run in _runs(groups)]
    rows: list[list[tuple[str, Value]]] = []
    for i, group in enumerate(groups):
        for run in group.runs:
            name = run.name if names.count(run.name) == 1 else run.summary.folder
            exits, planned = len(run.macs), run.summary.exits_planned
            done, epochs = run.summary.epochs, run.summary.planned_epochs
            policy = run.policy.accuracy if run.policy else None
            rows.append(
                [
                    (html("named", mark(i), name), name),
                    (group.label, group.label),
                    (str(run.seed), run.seed),
                    (str(exits) if exits == planned else f"{exits} of {planned}", exits),
                    (str(done) if run.finished else f"{done} of {epochs}", done),
                    (percent(run.accuracy_at(LAST)), run.accuracy_at(LAST)),
                    (percent(policy), policy),
                    (count(run.last.kept), run.last.kept),
                    ("-" if run.seconds is None else duration(run.seconds), run.seconds),
                ]
            )
    columns = ("run", "group", "seed", "exits", "epochs", "last exit", "policy", "weights kept", "time")
    return html("sortable", "Every run", columns, 2, rows)


def _legend(groups: Groups) -> Markup:
    return html("legend", [(mark(i), group.label) for i, group in enumerate(groups)])


def _exits(groups: Groups) -> tuple[str, Markup]:
    lead = "Every exit answers all test pictures by itself. The last exits stand above each other, at the right."
    return lead, _legend(groups) + exits_plot(groups)


def _tradeoff(groups: Groups) -> tuple[str, Markup]:
    lead = "Further up is more accurate, further left is cheaper. MACs are multiply-accumulates, exit heads counted."
    return lead, _legend(groups) + tradeoff_plot(groups)


def _epochs(groups: Groups) -> tuple[str, Markup]:
    lead = "How fast each group gets there, on the validation pictures, and how far its seeds are apart on the way."
    return lead, _legend(groups) + epochs_plot(groups)


def _weights(groups: Groups) -> tuple[str, Markup]:
    """Weights and density."""
    lead = "Convolution and linear weights that no mask removes; biases and batch norm are not counted."
    caption = f"Weights kept in the whole network, exit heads counted: means over the seeds. {GREY_BARS}"
    body = amount_plot(groups, lambda run: run.last.kept, "weights-kept", "weights kept", "short", caption)
    if all(run.last.kept == run.last.weights for group in groups for run in group.finished):
        return f"{lead} No weight is masked in these runs.", body
    rows = []
    for group in groups:
        density = group.spread(lambda run: run.last.kept / run.last.weights)
        # Densities of one recipe are mostly the same to the weight: "± 0.0" would be noise.
        same = density is not None and not density.deviation
        share = percent(density.mean) if density and same else plus_minus(density, "%", digits=1)
        rows.append((group.label, share, plus_minus(group.spread(lambda run: run.last.weights), "short")))
    table = html("table", Table(("group", "density", "weights without masks"), rows))
    return lead, body + _scroll("Density", table)


def _time(groups: Groups) -> tuple[str, Markup]:
    """Seconds of training."""
    machines = sorted({run.machine for group in groups for run in group.finished if run.machine})
    lead = "Seconds of training and validation over all epochs; loading and the final test are left out."
    if len(machines) > 1:
        lead += f" These are times of different machines and cannot be compared: {'; '.join(machines)}."
    elif machines:
        lead += f" All on {machines[0]}; other work on the machine counts as well."
    caption = f"Seconds of training: means over the seeds. {GREY_BARS}"
    return lead, amount_plot(groups, lambda run: run.seconds, "seconds", "seconds", "s", caption)


def _static(groups: Groups) -> tuple[str, Markup]:
    """What growing did to accuracy and time, with its uncertainty; what is missing where that is not known."""
    found = [(match, compared(match)) for match in matches(groups)]
    accuracies = [[row for row in rows if row.unit == "%"] for _, rows in found]
    limit = max([1.1 * reach(rows) for rows in accuracies] + [0.1])
    body = Markup("")
    for number, ((match, rows), right) in enumerate(zip(found, accuracies, strict=True), start=1):
        label = f"{match.grown.label} against {match.static.label}"
        body += html("heading", label) + html("prose", f"{match.why}.")
        if not rows:
            body += html("missing", "One of the two has no finished run yet, so there is no difference to show.")
            continue
        if right:
            body += difference_plot(match, right, groups.index(match.grown), limit, f"grown-less-static-{number}")
        body += _scroll(label, html("table", _differences(match, rows)))
    if any(rows for _, rows in found):
        body += html(
            "prose",
            "Paired: the mean of the differences between the two runs of one seed, ± the standard deviation of these "
            "differences. Unpaired, where the groups share no seeds: the difference of the two means, ± the standard "
            "deviation of a difference between two single runs. Points are percentage points of test accuracy.",
        )
    matched = [match.grown.label for match, _ in found]
    alone = [group for group in groups if is_grown(group.config) and group.label not in matched]
    lead = (
        "A matched static baseline has the same cells, widths, exits, pictures, training and pruning, epochs included; "
        "it differs in one thing, that it is not grown. Each difference is grown less static."
    )
    return lead, body + Markup("").join(html("missing", _why_none(group)) for group in alone)


def _differences(match: PairedRuns, rows: Sequence[Compared]) -> Table:
    lines: list[tuple[Value, ...]] = []
    for row in rows:
        found, mean = row.difference, row.difference.mean
        if row.unit == "%":
            words = f"{plus_minus(mean, 'points')} points"
        else:
            words = ("" if mean.mean < 0 else "+") + plus_minus(mean, row.unit)
        sides = (plus_minus(group.spread(row.figure), row.unit) for group in (match.grown, match.static))
        over = f"{plural(found.n[0], 'seed')}, paired"
        if not found.paired:
            over = f"{found.n[0]} and {plural(found.n[1], 'run')}, unpaired"
        lines.append((row.words, words, *sides, over))
    return Table(("figure", "difference", match.grown.label, match.static.label, "over"), lines)


def _why_none(group: Group) -> str:
    if widens(group.config):
        return f"{group.label}: it was widened as it grew, so no configuration describes the same network not grown."
    name = group.runs[0].name
    return (
        f"{group.label}: none of these runs is its matched static baseline. One is trained by: ramify train "
        f"runs/{name}/config.yaml network.kind=full_ic growth.mode=scheduled growth.epochs=null growth.plan=null "
        f"name={name}-static"
    )


def _configurations(groups: Groups) -> tuple[str, Markup]:
    """In which keys the groups differ, and what they share."""
    tables = [flat(group.config) for group in groups]
    keys = differing([group.config for group in groups])
    if keys:
        columns = ("key", *(html("named", mark(i), group.label) for i, group in enumerate(groups)))
        rows = [(key, *(_value(table[key]) for table in tables)) for key in keys]
        body = _scroll("Keys in which the groups differ", html("figures", columns, rows, False))
    elif len(groups) == 1:
        body = html("prose", "All runs have the same configuration but for their seeds and names.")
    else:
        why = "The groups differ in no key: their runs were written by versions of ramify with other keys."
        body = html("prose", why)
    shared = Table(("key", "value"), [(key, _value(value)) for key, value in tables[0].items() if key not in keys])
    table = _scroll("Keys that all share", html("table", shared))
    body += html("details", f"The {plural(len(shared.rows), 'key')} that all share", table)
    versions = sorted(
        {", ".join(f"{name} {version}" for name, version in run.summary.versions.items()) for run in _runs(groups)}
    )
    with_what = versions[0] if len(versions) == 1 else f"different versions: {'; '.join(versions)}"
    lead = "What differs between the groups, and what does not."
    return lead, body + html("prose", f"Computed with {with_what}.")


def _value(value: object) -> str:
    return value if isinstance(value, str) else to_text(value)


def _scroll(label: str, table: Markup) -> Markup:
    return html("frame", "scroll tight", label, table)


def _unfinished(why: str) -> Callable[[Groups], str]:
    """``why``, where no run has finished."""
    return lambda groups: "" if any(group.finished for group in groups) else why


def _no_epochs(groups: Groups) -> str:
    why = "No run has held pictures out for validation in an epoch of training, so there is nothing to show."
    return "" if any(run.epochs for run in _runs(groups)) else why


def _none_grown(groups: Groups) -> str:
    why = "No run here grows its network, so there is nothing to compare."
    return "" if any(is_grown(group.config) for group in groups) else why


UNTESTED = "No run has finished; the test pictures are read once, at the end of a run."
_PARTS: tuple[ReportPart[Groups], ...] = (
    ReportPart("exits", "Accuracy of each exit", _exits, _unfinished(UNTESTED)),
    ReportPart("work", "Accuracy against work", _tradeoff, _unfinished(UNTESTED)),
    ReportPart("epochs", "Accuracy by epoch", _epochs, _no_epochs),
    ReportPart("weights", "Weights", _weights, _unfinished("No run has finished, so no network has its final size.")),
    ReportPart("time", "Time", _time, _unfinished("No run has finished, so there is no time to show.")),
    ReportPart("static", "Grown against static", _static, _none_grown),
    ReportPart("configurations", "Configurations", _configurations),
)
"""After the groups, in the order of the page."""
