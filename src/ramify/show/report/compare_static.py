"""The section on what growing did: each grown group against its matched static baseline."""

from collections.abc import Callable, Sequence
from html import escape

from ramify.show.report.baseline import Difference, Match, differences, is_grown
from ramify.show.report.compare_parts import exit_words, plus_minus, scroll
from ramify.show.report.compare_plots import difference_plot
from ramify.show.report.page import Section
from ramify.show.report.parts import missing, prose
from ramify.show.report.plot import Table, Value, plot_html, table_html
from ramify.show.terminal.groups import LAST, Group, Run
from ramify.show.words import plural

LEAD = (
    "A matched static baseline has the same cells, widths, exits, pictures, training and pruning, epochs included; it "
    "differs in one thing, that it is not grown. Each difference is grown less static."
)
MEANING = (
    "Paired: the mean of the differences between the two runs of one seed, ± the standard deviation of these "
    "differences. Unpaired, where the groups share no seeds: the difference of the two means, ± the standard deviation "
    "of a difference between two single runs. Points are percentage points of test accuracy."
)

Kind = tuple[str, str, int | None, Callable[[Run], float | None]]
"""What is compared: its words, its unit, its exit (see :func:`ramify.show.report.baseline.differences`), its figure."""


def static_section(groups: Sequence[Group], pairs: Sequence[Match]) -> Section:
    """What growing did to accuracy and time, with its uncertainty; what is missing where that cannot be told."""
    title = "Grown against static"
    grown = [group for group in groups if is_grown(group.config)]
    if not grown:
        told = "No run here grows its network, so there is nothing to compare."
        return Section("static", title, "", missing(told))
    compared = [(match, _compared(match)) for match in pairs]
    reach = max((_reach(found) for _, rows in compared for (_, unit, _, _), found in rows if unit == "%"), default=0.0)
    body = ""
    for number, (match, rows) in enumerate(compared, start=1):
        body += f"<h3>{escape(match.grown.label)} against {escape(match.static.label)}</h3>{prose(match.why + '.')}"
        if not rows:
            body += missing("One of the two has no finished run yet, so there is no difference to show.")
            continue
        accuracies = [(words, found) for (words, unit, _, _), found in rows if unit == "%"]
        if accuracies:
            drawn = difference_plot(match, accuracies, groups, max(1.1 * reach, 0.1), f"grown-less-static-{number}")
            body += plot_html(drawn)
        body += scroll(table_html(_table(match, rows)), f"{match.grown.label} against {match.static.label}")
    if any(rows for _, rows in compared):
        body += prose(MEANING)
    matched = {match.grown.label for match in pairs}
    body += "".join(missing(_why_none(group)) for group in grown if group.label not in matched)
    return Section("static", title, LEAD, body)


def _compared(match: Match) -> list[tuple[Kind, Difference]]:
    def at(exit_: int) -> Callable[[Run], float | None]:
        return lambda run: run.accuracy_at(exit_)

    kinds: list[Kind] = [(exit_words(exit_), "%", exit_, at(exit_)) for exit_ in match.exits]
    if len(match.exits) > 1:
        kinds.append(("policy", "%", LAST, lambda run: run.policy.accuracy if run.policy else None))
        kinds.append(("policy, MACs", "short", LAST, lambda run: run.policy.macs if run.policy else None))
    kinds.append(("training", "s", None, lambda run: run.seconds))
    found = [(kind, differences(match, kind[3], kind[2])) for kind in kinds]
    return [(kind, each) for kind, each in found if each is not None]


def _reach(found: Difference) -> float:
    """How far from 0 anything of a difference in accuracy lies, in points."""
    singles = [abs(value) for _, value in found.by_seed]
    return 100 * max(abs(found.told.mean) + (found.told.deviation or 0.0), *singles, 0.0)


def _table(match: Match, rows: Sequence[tuple[Kind, Difference]]) -> Table:
    lines: list[tuple[Value, ...]] = []
    for (words, unit, _, figure), found in rows:
        sides = (plus_minus(group.spread(figure), unit) for group in (match.grown, match.static))
        over = f"{plural(found.n[0], 'seed')}, paired"
        if not found.paired:
            over = f"{found.n[0]} and {plural(found.n[1], 'run')}, unpaired"
        lines.append((words, _words(found, unit), *sides, over))
    return Table(("figure", "difference", match.grown.label, match.static.label, "over"), tuple(lines))


def _words(found: Difference, unit: str) -> str:
    if unit == "%":
        return f"{plus_minus(found.told, 'points')} points"
    words = plus_minus(found.told, unit)
    return words if found.told.mean < 0 else f"+{words}"


def _why_none(group: Group) -> str:
    if "wider" in " ".join(group.config.growth.plan or ()):
        return f"{group.label}: it was widened as it grew, so no configuration describes the same network not grown."
    name = group.runs[0].name
    return (
        f"{group.label}: none of these runs is its matched static baseline. One is trained by: ramify train "
        f"runs/{name}/config.yaml network.kind=full_ic growth.mode=scheduled growth.epochs=null growth.plan=null "
        f"name={name}-static"
    )
