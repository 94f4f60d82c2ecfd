"""The objectives of a trial so far: accuracy and costs of its network, on validation pictures alone.

A search never reads the test pictures: a trial is stopped after its last epoch, before the test.
"""

import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path

from ramify.config.keys import births
from ramify.config.read import read_config
from ramify.config.rules import Config
from ramify.data.pictures import Part
from ramify.errors import RamifyError, RunError
from ramify.files import readable_folder
from ramify.nn.branching import Branching
from ramify.nn.network import Network
from ramify.ops.cost import Cost, cost
from ramify.ops.exits.calibrate import calibrate
from ramify.ops.pruning.compact import compact
from ramify.ops.pruning.policies import DYNAMIC
from ramify.run.derive import fit_to
from ramify.run.device import computing_with, place_of
from ramify.run.evaluate import all_logits
from ramify.run.folder import CONFIG, locked
from ramify.run.latency import exit_latencies
from ramify.run.pictures import parts_of_run
from ramify.run.saved import read_saved
from ramify.schedule import prune_targets
from ramify.search.goals import Objective, load_function


def epochs_done(folder: Path) -> int:
    """The epochs in the last checkpoint of the run in ``folder``; 0 without one."""
    last = readable_folder(folder / "last") / "trainer.json"
    try:
        return int(json.loads(last.read_text(encoding="utf-8"))["epoch"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return 0  # damage is reported when the run is resumed


def measure(
    run: Path, objectives: Sequence[str], max_drop: float, functions: Sequence[Objective] = ()
) -> dict[str, float]:
    """The built-in objectives of ``run`` as it is now, latency only if it is among ``objectives``, and ``functions``.

    An exit policy is calibrated on the validation pictures to lose at most ``max_drop`` of the best exit's accuracy
    there. With ``macs`` or ``latency`` among ``objectives``, ``accuracy`` is that of the policy on the same pictures,
    else that of the last exit. A network that is still to grow or to be pruned counts with its final sizes; pictures
    that pass all of its exits count as answered by the final classifier.
    """
    with locked(run):
        network, card = read_saved(run)
    config = read_config([run / CONFIG])
    parts, _ = parts_of_run(run, config)
    config, valid = fit_to(config, parts), parts.valid
    where = place_of(config)
    grown = len(network.stages) == config.network.exits
    whole = network if grown else Network(config.network, stages=config.network.exits)
    if grown and config.prune.enabled and config.prune.unit == "channel" and card.epoch >= max(config.prune.epochs):
        whole, _ = compact(network)
    sizes = cost(whole)
    depth = len(network.stages)
    with computing_with(config):
        network.to(where.device)
        logits = all_logits(network, valid, where.precision)
        macs = _up_to([size.macs for size in sizes], depth)
        policy = calibrate(logits, valid.labels.cpu(), macs, max_drop=max_drop, combine="last")
        values = {
            "accuracy": policy.accuracy if {"macs", "latency"} & set(objectives) else policy.last_accuracy,
            "macs": policy.cost,
            "weights": float(_weights_in_the_end(config, network, sizes, card.epoch)),
            "parameters": float(sizes[-1].parameters),
        }
        if "latency" in objectives:
            times = _up_to(exit_latencies(whole.to(where.device)), depth)
            quick = calibrate(logits, valid.labels.cpu(), times, max_drop=max_drop, combine="last")
            values["latency"] = quick.cost
        for own in functions:
            values[own.name] = _value(own, whole.to(where.device).eval(), valid)
    return values


def _value(objective: Objective, network: Branching, valid: Part) -> float:
    assert objective.function is not None
    try:
        value: object = load_function(objective.function)(network, valid)
    except RamifyError:
        raise
    except Exception as error:  # the function of a user may raise anything
        value = error
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise RunError(f"objectives: {objective.name}: got {value!r} from {objective.function}; accepted: a number")
    return number


def _up_to(costs: Sequence[float], depth: int) -> list[float]:
    """Costs of ``depth`` exits, of which the last counts as the final one."""
    return [*map(float, costs[: depth - 1]), float(costs[-1])]


def _weights_in_the_end(config: Config, network: Branching, sizes: Sequence[Cost], epoch: int) -> int:
    """Kept weights of the network once it is fully grown and pruned."""
    coming = [at for at in config.prune.epochs if at > epoch] if config.prune.enabled else []
    if len(network.stages) == len(sizes) and not coming:
        return sizes[-1].kept
    total = _by_stage([size.weights for size in sizes])
    stages = _by_stage([size.kept for size in cost(network)])
    # Stages that are not there yet come with all of their weights.
    stages += total[len(stages) :]
    prune, born = config.prune, births(config)
    if prune.enabled and prune.policy in DYNAMIC:
        # Stages that are there have their density from the start; those to come are born with it.
        ends = prune_targets(prune.policy, config.train.epochs, (), (1,) * len(total), prune.keep_ratio)
        assert isinstance(ends, dict)
        return sum(round(ratio * total[stage]) for stage, ratio in ends.items())
    for at in coming:
        target = prune_targets(prune.policy, at, prune.epochs, born, prune.keep_ratio, prune.min_ratio)
        if isinstance(target, dict):
            for stage, ratio in target.items():
                stages[stage] = min(stages[stage], round(ratio * total[stage]))
        else:
            grown = sum(birth <= at for birth in born)
            share = min(1.0, target * sum(total[:grown]) / sum(stages[:grown]))
            stages[:grown] = [round(share * weights) for weights in stages[:grown]]
    return sum(stages)


def _by_stage(sizes: Sequence[int]) -> list[int]:
    return [after - before for before, after in itertools.pairwise([0, *sizes])]
