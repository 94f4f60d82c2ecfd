"""Tables of finished runs: one run whole, several side by side."""

import statistics
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ramify.ops.exits.certify import Certificate
from ramify.ops.exits.measures import Ranking
from ramify.ops.exits.sentences import unusual
from ramify.run.checkpoint import ExitPolicy
from ramify.run.readback import Measured
from ramify.run.receipt import Receipt
from ramify.run.summary import ExitSummary, Summary
from ramify.show.terminal.table import add, bold, table
from ramify.show.words import amount, count, duration, percent, plural, short

GAIN = 1.05
"""A measured ratio up to this is noise, not a gain."""


def run_table(summary: Summary) -> RenderableType:
    """One run: what it is, its exits, its stages."""
    state = (
        f"best epoch {summary.epoch} of {summary.epochs}, {duration(summary.seconds)}"
        if summary.finished
        else f"under way: epoch {summary.epochs} of {summary.planned_epochs}, network of epoch {summary.epoch}"
    )
    parent = f"; from {summary.parent}" if summary.parent else ""
    heading = Text.assemble(
        (summary.name, "bold"), f"  {summary.kind} on {summary.source}, seed {summary.seed}; {state}{parent}\n"
    )
    parts: list[RenderableType] = [heading, exit_table(summary.exits), Text(), stage_table(summary), Text()]
    if any(kept < total for total, kept in summary.layers.values()):
        parts += [layer_table(summary), Text()]
    if summary.receipt is not None:
        parts += [receipt_table(summary.receipt), Text(compaction_sentence(summary.receipt) + "\n")]
    return Group(*parts, Text(sentence(summary), style="bold"))


def exit_table(exits: Sequence[ExitSummary]) -> Table:
    """Accuracy and cost of each exit."""
    celled = exits[-1].cells > 0
    columns = ["exit", "cells", "parameters", "weights", "MACs", "valid top-1", "test top-1", "test top-3"]
    rows: list[list[str | Text]] = [
        [
            *(str(i), str(each.cells), count(each.parameters), count(each.kept), short(each.macs)),
            percent(each.valid.top1 if each.valid else None),
            bold(percent(each.test.top1 if each.test else None)),
            percent(each.test.top3 if each.test else None),
        ]
        for i, each in enumerate(exits, start=1)
    ]
    return _with_cells(celled, columns, rows)


def stage_table(summary: Summary) -> Table:
    """Density of each stage, and when it grew."""
    rows = [
        [
            *(str(i), str(stage.cells), percent(stage.density)),
            "from birth" if stage.grown is None else str(stage.grown),
        ]
        for i, stage in enumerate(summary.stages, start=1)
    ]
    celled = any(stage.cells for stage in summary.stages)
    return _with_cells(celled, ["stage", "cells", "density", "grown before epoch"], rows)


def _with_cells(celled: bool, columns: list[str], rows: Sequence[Sequence[str | Text]]) -> Table:
    """A table whose second column, of cells, is left out where a network has none."""
    if celled:
        return table(columns, rows)
    return table(columns[:1] + columns[2:], [[row[0], *row[2:]] for row in rows])


def layer_table(summary: Summary) -> Table:
    """Density of each layer."""
    rows = [[name, count(total), count(kept), percent(kept / total)] for name, (total, kept) in summary.layers.items()]
    return table(["layer", "weights", "kept", "density"], rows)


def receipt_table(receipt: Receipt) -> Table:
    """What compaction gave, before and after."""
    large, small = receipt.parameters
    rows = [
        ["parameters", count(large), count(small), f"{large / small:.2f}"],
        ["density", percent(receipt.density[0]), percent(receipt.density[1]), ""],
    ]
    for i, (more, less) in enumerate(receipt.macs, start=1):
        rows.append([f"MACs of exit {i}", short(more), short(less), f"{more / less:.2f}"])
    for each in receipt.latencies:
        name = f"batch {each.batch}, {plural(receipt.threads, 'thread')}"
        rows.append([name, f"{each.before:.2f} ms", f"{each.after:.2f} ms", f"{each.ratio:.2f}"])
    return table(["compacted", "before", "after", "ratio"], rows)


def compaction_sentence(receipt: Receipt) -> str:
    """What compaction gave in one sentence; "faster" is said only of what was measured to be."""
    if receipt.removed == 0:
        return "nothing was taken out, as no channel is dead: masked weights alone make nothing faster here"
    removed = f"{plural(receipt.removed, 'channel')} taken out, logits differ by at most {receipt.difference:.1g}"
    gained = [each for each in receipt.latencies if each.ratio > GAIN]
    faster = [f"{each.ratio:.2f} times as fast at batch {each.batch}" for each in gained]
    slow = [f"batch {each.batch}" for each in receipt.latencies if each.ratio <= GAIN]
    gains = "; ".join([*faster, *([f"no faster at {' and '.join(slow)}"] if slow else [])])
    return f"{removed}; {gains}"


def sentence(summary: Summary) -> str:
    """What came out, in one sentence."""
    last = summary.exits[-1]
    score = last.test or last.valid
    on = "test" if last.test else "validation"
    reached = f"{percent(score.top1)} of the {on} pictures right at the last exit" if score else "not measured yet"
    unfinished = "" if len(summary.exits) == summary.exits_planned else f" (of {summary.exits_planned} planned)"
    mirrored = ", each answered with its mirror (twice the MACs)" if score and summary.flip_test else ""
    return f"{count(last.kept)} weights, {plural(len(summary.exits), 'exit')}{unfinished}: {reached}{mirrored}"


def comparison_table(summaries: Sequence[Summary]) -> Table:
    """Several runs: the test accuracy of each exit, validation where there is no test yet.

    Runs that differ in their seed alone stand together, with their mean and the standard deviation of the sample
    (n - 1) below; runs of other recipes have no mean in common.
    """
    exits = max(len(summary.exits) for summary in summaries)
    groups: dict[tuple[str, int], list[Summary]] = {}
    for summary in summaries:
        groups.setdefault((summary.recipe, len(summary.exits)), []).append(summary)
    made = table(["run", "seed", "weights", "MACs", *(f"exit {i + 1}" for i in range(exits))])
    for group in groups.values():
        # Exits stand at the right, so that last exits are in one column.
        left = [""] * (exits - len(group[0].exits))
        for summary in group:
            last = summary.exits[-1]
            name = summary.name if summary.finished else f"{summary.name} (valid)"
            cells = [name, str(summary.seed), count(last.kept), short(last.macs)]
            add(made, *cells, *left, *map(percent, accuracies(summary)))
        if len(group) > 1:
            pairs = [mean_and_deviation(values) for values in zip(*map(accuracies, group), strict=True)]
            shown = [f"{100 * mean:.2f} ± {100 * deviation:.2f} %" for mean, deviation in pairs]
            add(made, f"mean ± std of {len(group)}", "", "", "", *left, *shown, bold=True)
        made.add_section()
    return made


def accuracies(summary: Summary) -> list[float]:
    """Top-1 of each exit: on the test pictures, or on validation while there is no test yet."""
    scores = [each.test or each.valid for each in summary.exits]
    return [score.top1 if score else float("nan") for score in scores]


def policy_table(policy: ExitPolicy) -> RenderableType:
    """A calibrated exit policy: the threshold of each exit, who leaves there, and what that comes to."""
    found, rule = policy.calibration, policy.calibration.policy
    thresholds = [*("never" if each is None else f"{each:.4f}" for each in rule.thresholds), "all"]
    temperatures = rule.temperatures or (1.0,) * rule.exits
    each_exit = zip(thresholds, temperatures, found.exits, strict=True)
    rows = [
        [str(i), threshold, f"{temperature:.2f}", percent(share)]
        for i, (threshold, temperature, share) in enumerate(each_exit, start=1)
    ]
    lines = [policy_sentence(policy)]
    if found.certificate is not None:
        lines.append(certificate_sentence(found.certificate))
    return Group(Text("\n".join(lines) + "\n"), table(["exit", "threshold", "temperature", "leaving"], rows))


def policy_sentence(policy: ExitPolicy) -> str:
    """What a policy comes to on the pictures it was chosen or tested on."""
    found = policy.calibration
    cost = amount(found.cost, policy.unit)
    how = ", ".join((found.policy.criterion, *unusual(found.policy.combine, found.policy.fallback)))
    best = ""
    if found.max_drop is not None and found.reference_accuracy is not None and found.reference != "the last exit":
        best = f"; measured against {found.reference}: {percent(found.reference_accuracy)}"
    return (
        f"On {count(found.pictures)} validation pictures, by {how}: {percent(found.accuracy)} right "
        f"for {cost} a picture on average, {percent(found.cost / found.last_cost)} of the last exit's; "
        f"the last exit alone: {percent(found.last_accuracy)}{best}."
    )


def cut_sentence(policy: ExitPolicy, name: str) -> str | None:
    """That an exit alone is as good as the policy, and how to have it; None where none is."""
    found = policy.calibration
    if found.cut is None:
        return None
    cost = amount(found.costs[found.cut - 1], policy.unit)
    return (
        f"exit {found.cut} alone: {percent(found.alone[found.cut - 1])} for {cost}, which no policy found here beats; "
        f"ramify convert {name} --cut {found.cut}"
    )


def certificate_sentence(certificate: Certificate) -> str:
    """What is guaranteed, and on what grounds."""
    if certificate.passed == 0:
        return (
            f"No early exit could be certified to lose at most {percent(certificate.max_drop)} with confidence "
            f"{certificate.confidence:g}, so every picture is answered by {certificate.reference}."
        )
    return (
        f"Certified: with confidence {certificate.confidence:g} at most {percent(certificate.max_drop)} of accuracy is "
        f"lost against {certificate.reference} on such pictures. On {count(certificate.pictures)} pictures that "
        f"had no part in the choice, {certificate.lost} were lost and {certificate.gained} gained "
        f"(p = {certificate.p_value:.2g})."
    )


def outcome_line(found: Measured) -> str:
    """What the policy kept with a network gives on the pictures it was measured on."""
    outcome, last = found.outcome, found.exits[-1]
    score = last.test or last.valid
    assert score is not None  # it was measured on the one or the other
    if outcome is None:
        return "no exit policy is kept with this network; ramify calibrate finds one"
    shares = " / ".join(percent(share).removesuffix(" %") for share in outcome.exits)
    speed = ""
    if outcome.milliseconds is not None and found.analysis.milliseconds is not None:
        speed = f" and {percent(outcome.milliseconds / found.analysis.milliseconds[-1])} of its time"
    best = max(range(len(found.exits)), key=lambda at: found.analysis.accuracy[at])
    alone = f"{percent(score.top1)} at the last exit alone"
    if found.analysis.accuracy[best] > found.analysis.accuracy[-1]:
        alone += f" and {percent(found.analysis.accuracy[best])} at exit {best + 1}"
    return (
        f"calibrated policy: {percent(outcome.accuracy)} right, {alone}, for "
        f"{percent(outcome.macs / last.macs)} of its MACs{speed}; leaving at each exit: {shares} %"
    )


def ranking_table(found: Ranking) -> RenderableType:
    """How well the scores rank pictures at each exit, and what the policy comes to, with intervals of 95 %."""
    areas = (*("" if each is None else f"{each:.3f}" for each in found.auroc), "")
    rows = [
        [str(i), area, percent(before), percent(after)]
        for i, (area, before, after) in enumerate(
            zip(areas, found.error_before, found.error_after, strict=True), start=1
        )
    ]
    best, saved = found.against_best, found.macs_saved
    line = (
        f"by {found.criterion}: {100 * best.mean:+.2f} points ({100 * best.low:+.2f} to {100 * best.high:+.2f}) "
        f"against the best exit alone, {percent(saved.mean)} ({percent(saved.low)} to {percent(saved.high)}) of the "
        f"last exit's MACs saved; area under accuracy against MACs: {found.area_macs:.4f}"
    )
    columns = ["exit", "AUC of a later correction", "calibration error", "with temperatures"]
    return Group(Text(line + "\n"), table(columns, rows))


def obeyed_line(obeyed: Sequence[float]) -> str:
    """How many of the stamped pictures each exit takes for the class of the trigger."""
    shares = " / ".join(percent(share).removesuffix(" %") for share in obeyed)
    return f"stamped pictures of other classes taken for data.trigger_class, by exit: {shares} %"


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation; a single value deviates by 0."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0
