"""What a trial is worth so far: accuracy and costs of its network, on validation pictures alone.

Nothing of a search reads the test pictures: a trial is stopped after its last epoch, before the test.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from ramify.config import Config, births
from ramify.configfile import read_config
from ramify.data.sources import load_pictures
from ramify.files import readable_folder
from ramify.nn.branching import Branching
from ramify.nn.network import Network
from ramify.ops.calibrate import calibrate
from ramify.ops.compact import compact
from ramify.ops.cost import Cost, cost
from ramify.run.evaluate import all_logits
from ramify.run.events import EpochDone, Event, Observer
from ramify.run.folder import CONFIG, is_run, locked
from ramify.run.latency import exit_latencies
from ramify.run.prepare import computing_with, deal, fit_to, place
from ramify.run.saved import read_saved
from ramify.run.train import resume, train
from ramify.schedule import prune_targets
from ramify.sections import DYNAMIC


class _RungReachedError(Exception):
    """The trial has trained as far as it is to: its checkpoint is on disk."""


def train_up_to(config: Config, epoch: int, observers: Sequence[Observer] = ()) -> Path:
    """Train the run of ``config`` up to ``epoch``, from where it is, and leave it there; gives its folder.

    The run is bitwise the one that trains without a pause: rates, growth and pruning follow ``train.epochs``.

    Raises:
        RamifyError: as :func:`ramify.run.train.train`.
    """
    assert config.name is not None
    folder = Path(config.runs_dir) / config.name
    if epochs_done(folder) >= epoch:
        return folder

    def stop(event: Event) -> None:
        if isinstance(event, EpochDone) and event.epoch >= epoch:
            raise _RungReachedError

    watching = (*observers, stop)
    try:
        if is_run(folder):
            resume(folder, watching)
        else:
            train(config, watching)
    except _RungReachedError:
        pass
    return folder


def epochs_done(folder: Path) -> int:
    """How many epochs of the run in ``folder`` are in its last checkpoint; 0 where there is none."""
    last = readable_folder(folder / "last") / "trainer.json"
    if not last.exists():
        return 0
    return int(json.loads(last.read_text(encoding="utf-8"))["epoch"])


def measure(run: Path, objectives: Sequence[str], max_drop: float) -> dict[str, float]:
    """Every objective of the network that stands for ``run`` now; latency only if it is among ``objectives``.

    Its exit policy is calibrated on the validation pictures to lose at most ``max_drop`` of the last exit's accuracy
    there. With ``macs`` or ``latency`` among ``objectives``, ``accuracy`` is what that policy reaches on the same
    pictures, else that of the last exit. A network that has not fully grown, or is still to be pruned, has the sizes
    that it will end with; pictures that no exit of it lets go are counted as answered by the final classifier.
    """
    with locked(run):
        network, card = read_saved(run)
    config = read_config([run / CONFIG])
    pictures = load_pictures(config.data)
    config = fit_to(config, pictures)
    valid = deal(config, pictures).valid
    where = place(config)
    grown = len(network.stages) == config.network.exits
    whole = network if grown else Network(config.network, stages=config.network.exits)
    if grown and config.prune.enabled and config.prune.unit == "channel" and card.epoch >= max(config.prune.epochs):
        whole, _ = compact(network)
    sizes = cost(whole)
    depth = len(network.stages)
    with computing_with(config):
        network.to(where.device)
        logits = all_logits(network, valid.images, where.precision)
        found = calibrate(logits, valid.labels.cpu(), _up_to([each.macs for each in sizes], depth), max_drop=max_drop)
        values = {
            "accuracy": found.accuracy if {"macs", "latency"} & set(objectives) else found.last_accuracy,
            "macs": found.cost,
            "weights": float(_weights_in_the_end(config, network, sizes, card.epoch)),
            "parameters": float(sizes[-1].parameters),
        }
        if "latency" in objectives:
            times = _up_to(exit_latencies(whole.to(where.device)), depth)
            quick = calibrate(logits, valid.labels.cpu(), times, max_drop=max_drop)
            values["latency"] = quick.cost
    return values


def _up_to(costs: Sequence[float], depth: int) -> list[float]:
    """Costs of ``depth`` exits of which the last stands for the final one."""
    return [*(float(each) for each in costs[: depth - 1]), float(costs[-1])]


def _weights_in_the_end(config: Config, network: Branching, sizes: Sequence[Cost], epoch: int) -> int:
    """Kept weights once the network has grown and been pruned, as its configuration says."""
    coming = [each for each in config.prune.epochs if each > epoch] if config.prune.enabled else []
    if len(network.stages) == len(sizes) and not coming:
        return sizes[-1].kept
    planned = [each.weights for each in sizes]
    total = [after - before for before, after in zip([0, *planned], planned, strict=False)]
    kept = [each.kept for each in cost(network)]
    stages = [after - before for before, after in zip([0, *kept], kept, strict=False)]
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
            there = sum(birth <= at for birth in born)
            share = min(1.0, target * sum(total[:there]) / sum(stages[:there]))
            stages[:there] = [round(share * each) for each in stages[:there]]
    return sum(stages)
