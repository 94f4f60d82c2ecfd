"""Tables of finished runs: one run whole, several side by side."""

import statistics
from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ramify.ops.exits.certify import Certificate
from ramify.ops.exits.measures import Ranking
from ramify.ops.exits.sentences import unusual
from ramify.run.checkpoint import ExitPolicy, Unit
from ramify.run.readback import Measured
from ramify.run.receipt import Receipt
from ramify.run.summary import ExitSummary, Summary
from ramify.show.words import count, duration, percent, plural, short

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


def plain_table(*columns: str) -> Table:
    """Names at the left, figures at the right; where a terminal is narrow, cells are wrapped and never cut."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1), header_style="dim", border_style="dim")
    for i, name in enumerate(columns):
        table.add_column(name, justify="left" if i == 0 else "right", overflow="fold")
    return table


def exit_table(exits: Sequence[ExitSummary]) -> Table:
    """Accuracy and cost of each exit."""
    celled = exits[-1].cells > 0
    cells = ["cells"] if celled else []
    table = plain_table("exit", *cells, "parameters", "weights", "MACs", "valid top-1", "test top-1", "test top-3")
    for i, each in enumerate(exits, start=1):
        table.add_row(
            str(i),
            *([str(each.cells)] if celled else []),
            count(each.parameters),
            count(each.kept),
            short(each.macs),
            percent(each.valid.top1 if each.valid else None),
            Text(percent(each.test.top1 if each.test else None), style="bold"),
            percent(each.test.top3 if each.test else None),
        )
    return table


def stage_table(summary: Summary) -> Table:
    """Density of each stage, and when it grew."""
    celled = any(stage.cells for stage in summary.stages)
    table = plain_table("stage", *(["cells"] if celled else []), "density", "grown before epoch")
    for i, stage in enumerate(summary.stages, start=1):
        grown = "from birth" if stage.grown is None else str(stage.grown)
        table.add_row(str(i), *([str(stage.cells)] if celled else []), percent(stage.density), grown)
    return table


def layer_table(summary: Summary) -> Table:
    """Density of each layer."""
    table = plain_table("layer", "weights", "kept", "density")
    for name, (total, kept) in summary.layers.items():
        table.add_row(name, count(total), count(kept), percent(kept / total))
    return table


def receipt_table(receipt: Receipt) -> Table:
    """What compaction gave, before and after."""
    table = plain_table("compacted", "before", "after", "ratio")
    large, small = receipt.parameters
    table.add_row("parameters", count(large), count(small), f"{large / small:.2f}")
    table.add_row("density", percent(receipt.density[0]), percent(receipt.density[1]), "")
    for i, (more, less) in enumerate(receipt.macs, start=1):
        table.add_row(f"MACs of exit {i}", short(more), short(less), f"{more / less:.2f}")
    threads = plural(receipt.threads, "thread")
    for each in receipt.latencies:
        row = f"batch {each.batch}, {threads}"
        table.add_row(row, f"{each.before:.2f} ms", f"{each.after:.2f} ms", f"{each.ratio:.2f}")
    return table


def compaction_sentence(receipt: Receipt) -> str:
    """What compaction gave in one sentence; "faster" is said only of what was measured to be."""
    if receipt.removed == 0:
        return "nothing was taken out, as no channel is dead: masked weights alone make nothing faster here"
    told = f"{plural(receipt.removed, 'channel')} taken out, logits differ by at most {receipt.difference:.1g}"
    gained = [each for each in receipt.latencies if each.ratio > GAIN]
    faster = [f"{each.ratio:.2f} times as fast at batch {each.batch}" for each in gained]
    slow = [f"batch {each.batch}" for each in receipt.latencies if each.ratio <= GAIN]
    gains = "; ".join([*faster, *([f"no faster at {' and '.join(slow)}"] if slow else [])])
    return f"{told}; {gains}"


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
    table = plain_table("run", "seed", "weights", "MACs", *(f"exit {i + 1}" for i in range(exits)))
    for group in groups.values():
        for summary in group:
            last = summary.exits[-1]
            shown = [percent(value) for value in accuracies(summary)]
            name = summary.name if summary.finished else f"{summary.name} (valid)"
            table.add_row(name, str(summary.seed), count(last.kept), short(last.macs), *_right(shown, exits))
        if len(group) > 1:
            pairs = [mean_and_deviation(values) for values in zip(*map(accuracies, group), strict=True)]
            shown = [f"{100 * mean:.2f} ± {100 * deviation:.2f} %" for mean, deviation in pairs]
            table.add_row(f"mean ± std of {len(group)}", "", "", "", *_right(shown, exits), style="bold")
        table.add_section()
    return table


def accuracies(summary: Summary) -> list[float]:
    """Top-1 of each exit: on the test pictures, or on validation while there is no test yet."""
    scores = [each.test or each.valid for each in summary.exits]
    return [score.top1 if score else float("nan") for score in scores]


def _right(cells: list[str], width: int) -> list[str]:
    """Align exits at the right, so that last exits stand in one column."""
    return [""] * (width - len(cells)) + cells


def policy_table(policy: ExitPolicy) -> RenderableType:
    """A calibrated exit policy: the threshold of each exit, who leaves there, and what that comes to."""
    found, rule = policy.calibration, policy.calibration.policy
    table = plain_table("exit", "threshold", "temperature", "leaving")
    thresholds = [*("never" if each is None else f"{each:.4f}" for each in rule.thresholds), "all"]
    temperatures = rule.temperatures or (1.0,) * rule.exits
    for i, (threshold, heat, share) in enumerate(zip(thresholds, temperatures, found.exits, strict=True), start=1):
        table.add_row(str(i), threshold, f"{heat:.2f}", percent(share))
    lines = [policy_sentence(policy)]
    if found.certificate is not None:
        lines.append(certificate_sentence(found.certificate))
    return Group(Text("\n".join(lines) + "\n"), table)


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


def amount(cost: float, unit: Unit) -> str:
    """A cost with its unit."""
    return f"{short(cost)} MACs" if unit == "MACs" else f"{cost:.2f} ms"


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
    table = plain_table("exit", "AUC of a later correction", "calibration error", "with temperatures")
    aurocs = (*("" if each is None else f"{each:.3f}" for each in found.auroc), "")
    for at, auroc in enumerate(aurocs):
        table.add_row(str(at + 1), auroc, percent(found.error_before[at]), percent(found.error_after[at]))
    best, saved = found.against_best, found.macs_saved
    line = (
        f"by {found.criterion}: {100 * best.mean:+.2f} points ({100 * best.low:+.2f} to {100 * best.high:+.2f}) "
        f"against the best exit alone, {percent(saved.mean)} ({percent(saved.low)} to {percent(saved.high)}) of the "
        f"last exit's MACs saved; area under accuracy against MACs: {found.area_macs:.4f}"
    )
    return Group(Text(line + "\n"), table)


def obeyed_line(obeyed: Sequence[float]) -> str:
    """How many of the stamped pictures each exit takes for the class of the trigger."""
    shares = " / ".join(percent(share).removesuffix(" %") for share in obeyed)
    return f"stamped pictures of other classes taken for data.trigger_class, by exit: {shares} %"


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation; a single value deviates by 0."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0
