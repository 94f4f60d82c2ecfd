"""Tables and sentences on runs: one run whole, several side by side, exit policies."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ramify.ops.exits.certify import Certificate
from ramify.ops.exits.measures import Ranking
from ramify.ops.exits.policy import Policy
from ramify.ops.exits.sentences import unusual
from ramify.run.checkpoint import ExitPolicy
from ramify.run.readback import Measured
from ramify.run.summary import ExitSummary, Receipt, Summary
from ramify.show.groups import plus_minus, spread
from ramify.show.terminal.table import add, bold, table
from ramify.show.words import amount, count, duration, percent, plural, short

GAIN = 1.05
"""A measured ratio up to this is noise, not a gain."""


def run_table(summary: Summary) -> RenderableType:
    """One run: name, state, exits, stages, layers where some are masked, compaction."""
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
    columns = ["exit", "cells", "parameters", "weights", "MACs", "valid top-1", "test top-1", "test top-3"]
    rows: list[list[str | Text]] = []
    for i, row in enumerate(exits, start=1):
        figures = (str(i), str(row.cells), count(row.parameters), count(row.kept), short(row.macs))
        valid, test = (percent(score.top1 if score else None) for score in (row.valid, row.test))
        rows.append([*figures, valid, bold(test), percent(row.test.top3 if row.test else None)])
    return _with_cells(exits[-1].cells > 0, columns, rows)


def stage_table(summary: Summary) -> Table:
    """Density of each stage, and when it grew."""
    rows = [
        [str(i), str(stage.cells), percent(stage.density), "from birth" if stage.grown is None else str(stage.grown)]
        for i, stage in enumerate(summary.stages, start=1)
    ]
    cells = any(stage.cells for stage in summary.stages)
    return _with_cells(cells, ["stage", "cells", "density", "grown before epoch"], rows)


def _with_cells(cells: bool, columns: list[str], rows: Sequence[Sequence[str | Text]]) -> Table:
    """A table whose second column, of cells, is left out where a network has none."""
    return table(columns, rows) if cells else table(columns[:1] + columns[2:], [[row[0], *row[2:]] for row in rows])


def layer_table(summary: Summary) -> Table:
    """Density of each layer."""
    rows = [[name, count(total), count(kept), percent(kept / total)] for name, (total, kept) in summary.layers.items()]
    return table(["layer", "weights", "kept", "density"], rows)


def receipt_table(receipt: Receipt) -> Table:
    """Sizes, MACs and latency before and after compaction."""
    large, small = receipt.parameters
    rows = [
        ["parameters", count(large), count(small), f"{large / small:.2f}"],
        ["density", percent(receipt.density[0]), percent(receipt.density[1]), ""],
    ]
    for i, (more, less) in enumerate(receipt.macs, start=1):
        rows.append([f"MACs of exit {i}", short(more), short(less), f"{more / less:.2f}"])
    for row in receipt.latencies:
        name = f"batch {row.batch}, {plural(receipt.threads, 'thread')}"
        rows.append([name, f"{row.before:.2f} ms", f"{row.after:.2f} ms", f"{row.ratio:.2f}"])
    return table(["compacted", "before", "after", "ratio"], rows)


def compaction_sentence(receipt: Receipt) -> str:
    """The result of compaction in one sentence; "faster" stands only where a latency was measured to be shorter."""
    if receipt.removed == 0:
        return "nothing was taken out, as no channel is dead: masked weights alone make nothing faster here"
    removed = f"{plural(receipt.removed, 'channel')} taken out, logits differ by at most {receipt.difference:.1g}"
    latencies = receipt.latencies
    faster = [f"{row.ratio:.2f} times as fast at batch {row.batch}" for row in latencies if row.ratio > GAIN]
    slow = [f"batch {row.batch}" for row in latencies if row.ratio <= GAIN]
    gains = "; ".join([*faster, *([f"no faster at {' and '.join(slow)}"] if slow else [])])
    return f"{removed}; {gains}"


def sentence(summary: Summary) -> str:
    """Size and accuracy of a run in one sentence."""
    last = summary.exits[-1]
    score = last.test or last.valid
    part = "test" if last.test else "validation"
    reached = f"{percent(score.top1)} of the {part} pictures right at the last exit" if score else "not measured yet"
    unfinished = "" if len(summary.exits) == summary.exits_planned else f" (of {summary.exits_planned} planned)"
    mirrored = ", each answered with its mirror (twice the MACs)" if score and summary.flip_test else ""
    return f"{count(last.kept)} weights, {plural(len(summary.exits), 'exit')}{unfinished}: {reached}{mirrored}"


def comparison_table(summaries: Sequence[Summary]) -> Table:
    """Several runs: the test accuracy of each exit, validation where there is no test yet.

    Below runs that differ in their seed alone stand their mean and the standard deviation of the sample (n - 1).
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
            add(made, *cells, *left, *map(percent, exit_accuracies(summary)))
        if len(group) > 1:
            shown = [plus_minus(spread(values), "%") for values in zip(*map(exit_accuracies, group), strict=True)]
            add(made, f"mean ± std of {len(group)}", "", "", "", *left, *shown, bold=True)
        made.add_section()
    return made


def exit_accuracies(summary: Summary) -> list[float]:
    """Top-1 of each exit: on the test pictures, or on validation while there is no test yet."""
    scores = [row.test or row.valid for row in summary.exits]
    return [score.top1 if score else float("nan") for score in scores]


def policy_table(policy: ExitPolicy) -> RenderableType:
    """A calibrated exit policy: its accuracy and cost, and threshold and share of each exit."""
    calibration = policy.calibration
    lines = [policy_sentence(policy)]
    if calibration.certificate is not None:
        lines.append(certificate_sentence(calibration.certificate))
    columns = ["exit", "threshold", "temperature", "leaving"]
    return Group(Text("\n".join(lines) + "\n"), table(columns, threshold_rows(calibration.policy, calibration.exits)))


def threshold_rows(policy: Policy, shares: Sequence[float]) -> list[list[str]]:
    """Number, threshold and temperature of each exit, and the share of the pictures that leave there."""
    thresholds = [*("never" if value is None else f"{value:.4f}" for value in policy.thresholds), "all"]
    temperatures = [f"{value:.2f}" for value in policy.temperatures or (1.0,) * policy.exits]
    exits = zip(thresholds, temperatures, map(percent, shares), strict=True)
    return [[str(i), *cells] for i, cells in enumerate(exits, start=1)]


def policy_sentence(policy: ExitPolicy) -> str:
    """Accuracy and cost of a policy on the pictures it was chosen or tested on."""
    calibration = policy.calibration
    cost, share = amount(calibration.cost, policy.unit), percent(calibration.cost / calibration.last_cost)
    rule = ", ".join((calibration.policy.criterion, *unusual(calibration.policy.combine, calibration.policy.fallback)))
    best, reference = "", calibration.reference_accuracy
    if calibration.max_drop is not None and reference is not None and calibration.reference != "the last exit":
        best = f"; measured against {calibration.reference}: {percent(reference)}"
    return (
        f"On {count(calibration.pictures)} validation pictures, by {rule}: {percent(calibration.accuracy)} right "
        f"for {cost} a picture on average, {share} of the last exit's; "
        f"the last exit alone: {percent(calibration.last_accuracy)}{best}."
    )


def cut_sentence(policy: ExitPolicy, name: str) -> str | None:
    """The exit that alone is as good as the policy, and the command to keep it; None where there is none."""
    cut = policy.calibration.cut
    if cut is None:
        return None
    accuracy, cost = policy.calibration.alone[cut - 1], amount(policy.calibration.costs[cut - 1], policy.unit)
    return (
        f"exit {cut} alone: {percent(accuracy)} for {cost}, which no policy found here beats; "
        f"ramify convert {name} --cut {cut}"
    )


def certificate_sentence(certificate: Certificate) -> str:
    """The guarantee of a certificate, and the test it rests on."""
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


def outcome_line(measured: Measured) -> str:
    """Accuracy and cost of the policy kept with a network, on the pictures it was measured on."""
    outcome, last = measured.outcome, measured.exits[-1]
    score = last.test or last.valid
    assert score is not None  # it was measured on the one or the other
    if outcome is None:
        return "no exit policy is kept with this network; ramify calibrate finds one"
    speed, accuracy = "", measured.analysis.accuracy
    if outcome.milliseconds is not None and measured.analysis.milliseconds is not None:
        speed = f" and {percent(outcome.milliseconds / measured.analysis.milliseconds[-1])} of its time"
    best = accuracy.index(max(accuracy))
    alone = f"{percent(score.top1)} at the last exit alone"
    if accuracy[best] > accuracy[-1]:
        alone += f" and {percent(accuracy[best])} at exit {best + 1}"
    return (
        f"calibrated policy: {percent(outcome.accuracy)} right, {alone}, for "
        f"{percent(outcome.macs / last.macs)} of its MACs{speed}; leaving at each exit: {_by_exit(outcome.exits)}"
    )


def ranking_table(ranking: Ranking) -> RenderableType:
    """How well the scores rank pictures at each exit, and the gain of the policy with intervals of 95 %."""
    areas = (*("" if area is None else f"{area:.3f}" for area in ranking.auroc), "")
    rows = [
        [str(i), area, percent(before), percent(after)]
        for i, (area, before, after) in enumerate(
            zip(areas, ranking.error_before, ranking.error_after, strict=True), start=1
        )
    ]
    best, saved = ranking.against_best, ranking.macs_saved
    line = (
        f"by {ranking.criterion}: {100 * best.mean:+.2f} points ({100 * best.low:+.2f} to {100 * best.high:+.2f}) "
        f"against the best exit alone, {percent(saved.mean)} ({percent(saved.low)} to {percent(saved.high)}) of the "
        f"last exit's MACs saved; area under accuracy against MACs: {ranking.area_macs:.4f}"
    )
    columns = ["exit", "AUC of a later correction", "calibration error", "with temperatures"]
    return Group(Text(line + "\n"), table(columns, rows))


def obeyed_line(obeyed: Sequence[float]) -> str:
    """The share of the stamped pictures that each exit takes for the class of the trigger."""
    return f"stamped pictures of other classes taken for data.trigger_class, by exit: {_by_exit(obeyed)}"


def _by_exit(shares: Sequence[float]) -> str:
    """``'20.0 / 80.0 %'``."""
    return f"{' / '.join(f'{100 * share:.1f}' for share in shares)} %"
