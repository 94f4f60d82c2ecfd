"""The sections of a comparison, but for the one on growing: groups, exits, work, epochs, weights, time, settings."""

from collections.abc import Callable, Sequence
from html import escape
from importlib import resources

from ramify.config.yamltext import to_text
from ramify.show.report.compare_parts import Cell, legend, pictures, plus_minus, scroll, sortable, swatch
from ramify.show.report.compare_plots import amount_plot, epochs_plot, exits_plot, tradeoff_plot
from ramify.show.report.page import Section
from ramify.show.report.parts import missing, prose
from ramify.show.report.plot import Table, Value, downloads_html, plot_html, table_html
from ramify.show.terminal.groups import LAST, Group, Spread, differing, flat
from ramify.show.words import count, duration, percent, plural

BARS = "Grey lines: one standard deviation, where there is any."
UNFINISHED = "No run has finished; the test pictures are read once, at the end of a run."


def notes(groups: Sequence[Group], absent: Sequence[str] = ()) -> list[str]:
    """What a reader must know of these runs before comparing them: what is missing, and what is not alike."""
    runs = [run for group in groups for run in group.runs]
    told: list[str] = []
    if len(pictures(groups)) > 1:
        told.append("The groups were tested on different pictures: their accuracies cannot be compared.")
    if absent:
        told.append(f"Left out, as they have not trained for an epoch yet: {', '.join(absent)}.")
    told += [
        f"{run.name} has not finished (epoch {run.trained} of {run.planned}): only its accuracy by epoch is shown."
        for run in runs
        if not run.finished
    ]
    alone = [group.label for group in groups if len(group.finished) == 1]
    if alone:
        told.append(f"One finished run, and so no deviation and no error bars: {', '.join(alone)}.")
    for group in groups:
        depths = sorted({len(run.macs) for run in group.finished})
        if len(depths) > 1:
            told.append(
                f"{group.label}: its runs ended with {' or '.join(map(str, depths))} exits; the mean of each exit is "
                "over the runs that have it, and the last exit is the last of each run."
            )
        seeds = [run.seed for run in group.runs]
        if len(set(seeds)) < len(seeds):
            told.append(f"{group.label}: some runs share a seed; each counts by itself.")
    finished = [run for run in runs if run.finished]
    without = [run for run in finished if run.policy is None and run.unmeasured is None and len(run.macs) > 1]
    if without:
        if len(without) == len([run for run in finished if len(run.macs) > 1]):
            names = "No run has a calibrated exit policy"
        else:
            names = f"Without a calibrated exit policy: {', '.join(run.name for run in without)}"
        told.append(f"{names} (ramify calibrate NAME finds one).")
    told += [f"{run.name}: its policy was not measured ({run.unmeasured})." for run in runs if run.unmeasured]
    goals = sorted({run.policy.goal for run in runs if run.policy})
    if len(goals) > 1:
        told.append(f"The policies were calibrated for different goals: {'; '.join(goals)}.")
    return told


def groups_section(groups: Sequence[Group], absent: Sequence[str]) -> Section:
    """The means of every group, what a reader must know of them, and every run."""
    runs = sum(len(group.runs) for group in groups)
    goals = {run.policy.goal for group in groups for run in group.runs if run.policy}
    goal = f" Policies were calibrated {goals.pop()}." if len(goals) == 1 else ""
    lead = (
        f"{plural(runs, 'run')}; those that differ in their seed alone are one group. Figures are means over its seeds "
        f"± one standard deviation (n - 1), accuracies on the test pictures.{goal} A click on a heading sorts."
    )
    told = "".join(f"<li>{escape(note)}</li>" for note in notes(groups, absent))
    body = (
        f"<style>{_part('compare.css')}</style>{_groups_table(groups)}"
        + (f'<ul class="notes">{told}</ul>' if told else "")
        + f"<details><summary>Every run</summary>{_runs_table(groups)}</details><script>{_part('compare.js')}</script>"
    )
    return Section("groups", "Groups", lead, body)


def _part(name: str) -> str:
    return resources.files("ramify.show.report").joinpath(name).read_text(encoding="utf-8")


FIGURES: tuple[tuple[str, str, Callable[[Group], Spread | None]], ...] = (
    ("last exit", "%", lambda group: group.accuracy(LAST)),
    ("policy", "%", lambda group: (group.policy() or (None, None))[0]),
    ("policy, MACs", "short", lambda group: (group.policy() or (None, None))[1]),
    ("last exit, MACs", "short", lambda group: group.macs(LAST)),
    ("weights kept", "short", lambda group: group.spread(lambda run: run.kept)),
    ("parameters", "short", lambda group: group.spread(lambda run: run.parameters)),
    ("training", "s", lambda group: group.spread(lambda run: run.seconds)),
)
"""Columns of the table of groups: heading, unit, figure."""


def _groups_table(groups: Sequence[Group]) -> str:
    shown = [column for column in FIGURES if any(column[2](group) is not None for group in groups)]
    rows: list[list[Cell]] = []
    data: list[tuple[Value, ...]] = []
    for i, group in enumerate(groups):
        found = [(figure(group), unit) for _, unit, figure in shown]
        rows.append([(f"{swatch(i)}{escape(group.label)}", group.label), (str(len(group.runs)), len(group.runs))])
        rows[-1] += [(escape(plus_minus(each, unit)), each.mean if each else None) for each, unit in found]
        seeds = " ".join(str(run.seed) for run in group.runs)
        values = [value for each, _ in found for value in ((each.mean, each.deviation) if each else (None, None))]
        data.append((group.label, len(group.runs), seeds, *values))
    names = [name for name, _, _ in shown]
    columns = ("group", "runs", "seeds", *(column for name in names for column in (name, f"{name}, deviation")))
    table = sortable(["group", "runs", *names], 1, rows, "Groups")
    return table + downloads_html("groups", Table(columns, tuple(data)))


def _runs_table(groups: Sequence[Group]) -> str:
    names = [run.name for group in groups for run in group.runs]
    headings = ["run", "group", "seed", "exits", "epochs", "last exit", "policy", "weights kept", "time"]
    rows: list[list[Cell]] = []
    for i, group in enumerate(groups):
        for run in group.runs:
            name = run.name if names.count(run.name) == 1 else run.folder
            exits, last = len(run.macs), run.accuracy_at(LAST)
            policy = run.policy.accuracy if run.policy else None
            rows.append(
                [
                    (f"{swatch(i)}{escape(name)}", name),
                    (escape(group.label), group.label),
                    (str(run.seed), run.seed),
                    (str(exits) if exits == run.exits_planned else f"{exits} of {run.exits_planned}", exits),
                    (str(run.trained) if run.finished else f"{run.trained} of {run.planned}", run.trained),
                    (percent(last), last),
                    (percent(policy), policy),
                    (count(run.kept), run.kept),
                    ("-" if run.seconds is None else duration(run.seconds), run.seconds),
                ]
            )
    return sortable(headings, 2, rows, "Every run")


def _finished(groups: Sequence[Group]) -> bool:
    return any(group.finished for group in groups)


def exits_section(groups: Sequence[Group]) -> Section:
    """Accuracy of each exit."""
    title = "Accuracy of each exit"
    if not _finished(groups):
        return Section("exits", title, "", missing(UNFINISHED))
    lead = "Every exit answers all test pictures by itself. The last exits stand above each other, at the right."
    return Section("exits", title, lead, legend(groups) + plot_html(exits_plot(groups)))


def tradeoff_section(groups: Sequence[Group]) -> Section:
    """Accuracy against average MACs."""
    title = "Accuracy against work"
    if not _finished(groups):
        return Section("work", title, "", missing(UNFINISHED))
    lead = "Further up is more accurate, further left is cheaper. MACs are multiply-accumulates, exit heads counted."
    return Section("work", title, lead, legend(groups) + plot_html(tradeoff_plot(groups)))


def epochs_section(groups: Sequence[Group]) -> Section:
    """Accuracy of the deepest exit by epoch."""
    title = "Accuracy by epoch"
    if not any(run.epochs for group in groups for run in group.runs):
        told = "No run has held pictures out for validation in an epoch of training, so there is nothing to show."
        return Section("epochs", title, "", missing(told))
    lead = "How fast each group gets there, on the validation pictures, and how far its seeds are apart on the way."
    return Section("epochs", title, lead, legend(groups) + plot_html(epochs_plot(groups)))


def size_section(groups: Sequence[Group]) -> Section:
    """Weights and density."""
    title = "Weights"
    if not _finished(groups):
        return Section("weights", title, "", missing("No run has finished, so no network has its final size."))
    kept = [group.spread(lambda run: run.kept) for group in groups]
    pruned = any(run.kept < run.weights for group in groups for run in group.finished)
    lead = "Convolution and linear weights that no mask removes; biases and batch norm are not counted."
    if not pruned:
        lead += " No weight is masked in these runs."
    caption = f"Weights kept in the whole network, exit heads counted: means over the seeds. {BARS}"
    body = plot_html(amount_plot(groups, kept, "weights-kept", "weights kept", "short", caption))
    if pruned:
        density = [group.spread(lambda run: run.kept / run.weights) for group in groups]
        rows = tuple(
            (group.label, _share(each), plus_minus(group.spread(lambda run: run.weights), "short"))
            for group, each in zip(groups, density, strict=True)
        )
        body += scroll(table_html(Table(("group", "density", "weights without masks"), rows)), "Density")
    return Section("weights", title, lead, body)


def _share(told: Spread | None) -> str:
    # Densities of one recipe are mostly the same to the weight: "± 0.0" would be noise.
    return percent(told.mean) if told is not None and not told.deviation else plus_minus(told, "%", digits=1)


def time_section(groups: Sequence[Group]) -> Section:
    """Seconds of training."""
    title = "Time"
    told = [group.spread(lambda run: run.seconds) for group in groups]
    if not any(told):
        return Section("time", title, "", missing("No run has finished, so there is no time to tell."))
    machines = sorted({run.machine for group in groups for run in group.finished if run.machine})
    lead = "Seconds of training and validation over all epochs; loading and the final test are left out."
    if len(machines) > 1:
        lead += f" These are times of different machines and cannot be compared: {'; '.join(machines)}."
    elif machines:
        lead += f" All on {machines[0]}; other work on the machine counts as well."
    caption = f"Seconds of training: means over the seeds. {BARS}"
    return Section("time", title, lead, plot_html(amount_plot(groups, told, "seconds", "seconds", "s", caption)))


def configuration_section(groups: Sequence[Group]) -> Section:
    """In which keys the groups differ, and what they share."""
    tables = [flat(group.config) for group in groups]
    keys = differing([group.config for group in groups])
    if keys:
        head = "".join(f'<th scope="col">{swatch(i)}{escape(group.label)}</th>' for i, group in enumerate(groups))
        rows = "".join(
            f'<tr><th scope="row">{escape(key)}</th>'
            + "".join(f"<td>{escape(_value(table[key]))}</td>" for table in tables)
            + "</tr>"
            for key in keys
        )
        table = f'<table><thead><tr><th scope="col">key</th>{head}</tr></thead><tbody>{rows}</tbody></table>'
        body = scroll(table, "Keys in which the groups differ")
    elif len(groups) == 1:
        body = prose("All runs have the same configuration but for their seeds and names.")
    else:
        body = prose("The groups differ in no key: their runs were written by versions of ramify with other keys.")
    shared = tuple((key, _value(value)) for key, value in tables[0].items() if key not in keys)
    body += (
        f"<details><summary>The {plural(len(shared), 'key')} that all share</summary>"
        f"{scroll(table_html(Table(('key', 'value'), shared)), 'Keys that all share')}</details>"
    )
    versions = sorted({run.versions for group in groups for run in group.runs})
    with_what = versions[0] if len(versions) == 1 else f"different versions: {'; '.join(versions)}"
    lead = "What differs between the groups, and what does not."
    return Section("configurations", "Configurations", lead, body + prose(f"Computed with {with_what}."))


def _value(value: object) -> str:
    return value if isinstance(value, str) else to_text(value)
