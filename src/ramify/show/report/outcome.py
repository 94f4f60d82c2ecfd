"""The result of a run in one sentence."""

import itertools

from ramify.ops.exits.analysis import Outcome
from ramify.run.readback import Measured
from ramify.run.summary import Summary
from ramify.show.words import count, percent, plural

_NEAR = 0.01
"""Accuracy within which an early exit is said to come near the last one."""


def outcome_sentence(summary: Summary, measured: Measured | None) -> str:
    """The first sentence of a report: size, accuracy of the last exit, and cost and accuracy of early answers."""
    kept, weights = summary.exits[-1].kept, summary.exits[-1].weights
    size = f"{count(kept)} weights" if kept == weights else f"{count(kept)} of {count(weights)} weights kept"
    if not summary.finished:
        grown = f"{len(summary.exits)} of {plural(summary.exits_planned, 'exit')} there"
        score = summary.exits[-1].valid
        so_far = f", {percent(score.top1)} of the validation pictures right at the deepest" if score else ""
        return f"Under way, epoch {summary.epochs} of {summary.planned_epochs}: {size}, {grown}{so_far}."
    last = summary.exits[-1].test
    if last is None:
        return f"{size}."
    if len(summary.exits) == 1:
        return f"{size}, {percent(last.top1)} of the test pictures right at its only exit."
    if measured is not None and measured.outcome is not None:
        return f"{size}, {_policy(measured.outcome, measured)}; {percent(last.top1)} at the last exit alone."
    return f"{size}, {percent(last.top1)} at the last exit; {_nearest(summary)}."


def _policy(outcome: Outcome, measured: Measured) -> str:
    """Where most pictures are answered, with accuracy and cost."""
    work = percent(outcome.macs / measured.analysis.macs[-1])
    right = f"{percent(outcome.accuracy)} right"
    exits = len(outcome.exits)
    left = list(itertools.accumulate(outcome.exits))
    exit_, so_far = next(((i, share) for i, share in enumerate(left, start=1) if share >= 0.495), (exits, left[-1]))
    if exit_ == exits:
        at_last = percent(outcome.exits[-1])
        return f"{at_last} of the pictures answered only at the last exit: {work} of the work, {right}"
    where = f"at exit {exit_}" if exit_ == 1 else f"by exit {exit_}"
    if so_far > 0.9999:
        return f"every picture answered {where} for {work} of the work, {right}"
    who = "half the pictures" if so_far < 0.505 else f"{percent(so_far)} of the pictures"
    return f"{who} answered {where}, all of them for {work} of the work and {right}"


def _nearest(summary: Summary) -> str:
    """The first exit that comes near the last one."""
    tops = [row.test.top1 for row in summary.exits if row.test is not None]
    for exit_, (top, row) in enumerate(zip(tops[:-1], summary.exits, strict=False), start=1):
        if top >= tops[-1] - _NEAR:
            work = percent(row.macs / summary.exits[-1].macs)
            return f"exit {exit_} alone gets {percent(top)} for {work} of the work"
    return f"no earlier exit comes within {100 * _NEAR:g} point of it"
