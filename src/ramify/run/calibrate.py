"""Calibration of a run: thresholds chosen on its validation pictures, and saved with its network."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from ramify.config.read import read_config
from ramify.config.rules import Config
from ramify.data.fetch import Progress
from ramify.errors import InputError
from ramify.files import replace_folder
from ramify.ops.cost import cost
from ramify.ops.exits.calibrate import calibrate
from ramify.ops.exits.policy import Combine, Fallback
from ramify.run.checkpoint import ExitPolicy, pack_model, read_model
from ramify.run.derive import fit_to
from ramify.run.device import computing_with, place_of
from ramify.run.evaluate import all_logits
from ramify.run.folder import CONFIG, EVENTS, append_line, locked
from ramify.run.latency import exit_latencies
from ramify.run.pictures import Parts, parts_of_run
from ramify.run.saved import checkpoint_of


def calibrate_run(
    run: Path,
    *,
    max_drop: float | None = None,
    max_macs: float | None = None,
    max_latency_ms: float | None = None,
    criterion: str = "max_probability",
    confidence: float | None = None,
    against: str = "best",
    combine: Combine | None = None,
    fallback: Fallback = "last",
    survivors: bool = False,
    progress: Progress | None = None,
    notice: Callable[[str], None] | None = None,
) -> ExitPolicy:
    """Choose the thresholds of the network of ``run`` on its validation pictures, and save them with it.

    Exactly one of the three goals is given.

    Args:
        run: the folder of the run, whose network is that of :func:`ramify.run.saved.checkpoint_of`.
        max_drop: accuracy, in [0, 1), that may be lost.
        max_macs: average MACs: up to 1 as a fraction of the last exit's, above 1 as a number.
        max_latency_ms: average milliseconds for one picture, measured on this machine.
        criterion: how confidence is computed, a name in :data:`ramify.ops.exits.policy.CRITERIA`.
        confidence: with ``max_drop``, certify the drop with this probability, see
            :func:`ramify.ops.exits.calibrate.calibrate`.
        against, combine, fallback, survivors: see there.
        progress: of a download or the decoding of pictures.
        notice: called with a sentence where pictures have come, gone or changed since the run was trained.

    Raises:
        InputError: not one goal, a goal that cannot be reached, no validation pictures, or too few of them for a
            certificate.
        CheckpointError: the checkpoint cannot be read.
    """
    goals = {"max_drop": max_drop, "max_macs": max_macs, "max_latency_ms": max_latency_ms}
    asked = [name for name, value in goals.items() if value is not None]
    if len(asked) != 1:
        raise InputError(f"calibrate: got {' and '.join(asked) or 'no goal'}; accepted: one of {', '.join(goals)}")
    with locked(run):
        folder = checkpoint_of(run)
        network, card = read_model(folder)
        config, parts = _pictures(run, card.classes, progress, notice)
        where = place_of(config)
        network.to(where.device)
        with computing_with(config):
            logits = all_logits(network, parts.valid, where.precision)
            if max_latency_ms is None:
                unit, costs, limit = "MACs", [float(exit_.macs) for exit_ in cost(network)], max_macs
                if max_macs is not None and max_macs <= 1:
                    limit = max_macs * costs[-1]
            else:
                unit, costs, limit = "milliseconds", exit_latencies(network), max_latency_ms
            if limit is not None and limit < costs[0]:
                best = f"{costs[0]:.3g} {unit}" + (f" ({costs[0] / costs[-1]:.3g})" if unit == "MACs" else "")
                raise InputError(
                    f"{asked[0]}: got {goals[asked[0]]:g}; accepted: from {best} on, where every picture leaves at the "
                    "first exit"
                )
        calibration = calibrate(
            logits,
            parts.valid.labels.cpu(),
            costs,
            max_drop=max_drop,
            max_cost=limit,
            criterion=criterion,
            confidence=confidence,
            seed=config.seed,
            against=against,
            combine=combine,
            fallback=fallback,
            survivors=survivors,
        )
        policy = ExitPolicy(calibration, "MACs" if unit == "MACs" else "milliseconds")
        # Beside the network of an unfinished run is what --resume needs.
        kept = {file.name: file.read_bytes() for file in folder.glob("trainer.*")}
        replace_folder(folder, kept | pack_model(network, replace(card, policy=policy)))
        append_line(run / EVENTS, {"event": "calibrated", "epoch": card.epoch, **asdict(policy)})
    return policy


def _pictures(
    run: Path, classes: tuple[str, ...], progress: Progress | None, notice: Callable[[str], None] | None
) -> tuple[Config, Parts]:
    """The configuration of ``run`` and its pictures, in their parts."""
    config = read_config([run / CONFIG])
    parts, changed = parts_of_run(run, config, progress)
    if parts.classes != classes:
        raise InputError(f"{config.data.source}: got other classes than the network was trained on; they have changed")
    if not len(parts.valid):
        gone = changed.missing.get("valid", 0)
        raise InputError(
            f"{run}: got no validation pictures ({f'all {gone:,} are gone' if gone else 'data.valid_fraction=0'}); "
            "accepted: a run that has some, as thresholds are never chosen on training or test pictures"
        )
    if changed.changed.get("valid"):
        raise InputError(
            f"{run}: {changed.changed['valid']:,} of its validation pictures have another content or class than when "
            "it was trained; accepted: the pictures as they were"
        )
    if changed and notice is not None:
        notice(f"of the run's pictures {changed}; thresholds are chosen on {len(parts.valid):,} validation pictures")
    return fit_to(config, parts), parts
