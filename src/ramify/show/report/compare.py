"""Several runs on one page: groups of seeds, their means and deviations, and what growing did."""

from collections.abc import Sequence
from pathlib import Path

from ramify.data.fetch import Progress
from ramify.errors import InputError
from ramify.run.saved import checkpoint_of
from ramify.show.report.baseline import matches
from ramify.show.report.compare_parts import pictures, plus_minus
from ramify.show.report.compare_sections import (
    configuration_section,
    epochs_section,
    exits_section,
    groups_section,
    size_section,
    time_section,
    tradeoff_section,
)
from ramify.show.report.compare_static import static_section
from ramify.show.report.page import page
from ramify.show.terminal.groups import LAST, Group, Run, grouped, read_run, varied_keys
from ramify.show.words import plural

NAMED = 4
"""Groups that the first sentence names one by one."""


def comparison_page(runs: Sequence[Path], progress: Progress | None = None) -> str:
    """One self-contained HTML page on several runs, finished or not.

    Runs that differ in their seed, name and place alone are one group and share a mean; see
    :func:`ramify.run.summary.recipe`. The test pictures are answered again only for runs with a calibrated policy.

    Args:
        runs: folders of runs, in any order.
        progress: told how far a download is, where pictures must be fetched.

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


def comparison_html(groups: Sequence[Group], absent: Sequence[str] = ()) -> str:
    """The page of ``groups``; ``absent`` are names of runs that have not trained for an epoch."""
    runs = [run for group in groups for run in group.runs]
    title = f"{plural(len(runs), 'run')} in {plural(len(groups), 'group')}"
    sections = [
        groups_section(groups, absent),
        exits_section(groups),
        tradeoff_section(groups),
        epochs_section(groups),
        size_section(groups),
        time_section(groups),
        static_section(groups, matches(groups)),
        configuration_section(groups),
    ]
    return page(title, lead_sentence(groups), sections)


def lead_sentence(groups: Sequence[Group]) -> str:
    """What came out, in one sentence: accuracies at the last exit, in order, with their deviations."""
    told = [(group, found) for group in groups if (found := group.accuracy(LAST)) is not None]
    runs = sum(len(group.runs) for group in groups)
    if not told:
        return f"None of the {plural(runs, 'run')} has finished yet."
    if len(pictures(groups)) > 1:
        return f"{plural(len(groups), 'group')} of runs on different pictures: their accuracies cannot be compared."
    told.sort(key=lambda pair: -pair[1].mean)
    # A line does not break inside a figure.
    figures = [
        (group.label, plus_minus(found, "%", digits=1).replace(" ", "\N{NO-BREAK SPACE}")) for group, found in told
    ]
    deviations = any(found.deviation is not None for _, found in told)
    meaning = " (mean ± one standard deviation over the seeds)" if deviations else ""
    if len(told) <= NAMED:
        each = [f"{label} {figure}" for label, figure in figures]
        listed = " and ".join([", ".join(each[:-1]), each[-1]] if len(each) > 1 else each)
        return f"Test pictures right at the last exit: {listed}{meaning}."
    (best, high), (worst, low) = figures[0], figures[-1]
    return (
        f"Of {len(told)} groups, {best} has the highest mean accuracy at the last exit, {high}, and {worst} the "
        f"lowest, {low}{meaning}."
    )
