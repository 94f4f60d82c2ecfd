"""Checks before a run has a folder: what is known to fail."""

from collections.abc import Iterator

from ramify.config.keys import births
from ramify.config.prune import WITHOUT_PICTURES
from ramify.config.rules import Config
from ramify.errors import ConfigError
from ramify.nn.masked import masked_layers
from ramify.nn.network import Network, plan
from ramify.ops.pruning.policies import DYNAMIC
from ramify.ops.pruning.prune import layer_names, rounded_up, stages_text
from ramify.run.device import Place
from ramify.schedule import prune_targets

BACKEND = "inductor"
"""The backend of ``torch.compile``."""

RECORDABLE = ("sgd", "muon")
"""Optimizers that read their rate from a tensor at each step."""


def check_run(config: Config, where: Place) -> None:
    """Check that the run can do what it is asked to.

    Raises:
        ConfigError: ``train.record`` or ``train.compile`` cannot work here, or a pruning would kill a layer.
    """
    records_whole(config, where)
    if config.train.compile and BACKEND == "inductor" and where.device.type == "cpu":
        _compiler_or_error()
    problems = list(_deaths(config))
    if problems:
        raise ConfigError(*problems)


def records_whole(config: Config, where: Place) -> bool:
    """Whether the whole step is recorded, as ``train.record`` says; by default where that is possible.

    Raises:
        ConfigError: ``train.record`` is true and that is not possible.
    """
    asked, optimizer = config.train.record, config.train.optimizer
    hindrances = [
        *([f"the run computes on {where.device.type}"] if where.device.type != "cuda" else []),
        *(["several processes share it"] if where.team.size > 1 else []),
        *([f"train.optimizer is {optimizer}"] if optimizer not in RECORDABLE else []),
        *(["it has a teacher"] if config.train.teacher is not None else []),
        *(["growth.learning_rate is constant"] if config.growth.learning_rate == "constant" else []),
    ]
    if asked and hindrances:
        raise ConfigError(f"train.record: got true; accepted: false, or null, as {' and '.join(hindrances)}")
    return asked is not False and not hindrances


def few_pictures(config: Config, pictures: int) -> tuple[str, ...]:
    """A sentence where the saliency is asked for on more than the ``pictures`` there are to train on."""
    prune = config.prune
    asked = prune.batch_size * prune.batches
    scored = prune.enabled and prune.policy not in DYNAMIC and prune.criterion not in WITHOUT_PICTURES
    if not scored or asked <= pictures:
        return ()
    scored_on = f"the saliency is scored on {pictures:,}, which are all training pictures"
    return (f"prune.batch_size: got {asked:,} pictures in all; {scored_on}",)


def _deaths(config: Config) -> Iterator[str]:
    """Prunings of single weights that would leave a layer fewer than its floor, under scheduled growth.

    Other networks at a pruning (of a parent, grown by loss, widened, not of cells) are not known in advance.
    """
    prune, network = config.prune, config.network
    widens = any(action != "deeper" for action in config.growth.plan or ())
    foreseen = not (config.parent or network.has_backbone or widens) and config.growth.mode == "scheduled"
    if not (prune.enabled and foreseen) or prune.policy in DYNAMIC or prune.unit != "weight" or prune.floor == 0:
        return
    grown = Network(network, stages=len(plan(network)), seed=config.seed)
    layers = {name: layer.weight.numel() for name, layer in masked_layers(grown).items()}
    stages = [[layers[name] for name in layer_names(grown, stage)] for stage in range(len(grown.stages))]
    born = births(config)
    for epoch in prune.epochs:
        targets = prune_targets(prune.policy, epoch, prune.epochs, born, prune.keep_ratio, prune.min_ratio)
        groups: dict[tuple[int, ...], float]
        if isinstance(targets, dict):
            groups = {(stage,): ratio for stage, ratio in targets.items()}
        else:
            groups = {tuple(stage for stage, birth in enumerate(born) if birth <= epoch): targets}
        for group, ratio in groups.items():
            sizes = [size for stage in group for size in stages[stage]]
            reserved, total = sum(min(prune.floor, size) for size in sizes), sum(sizes)
            if round(ratio * total) < reserved:
                yield (
                    f"prune.keep_ratio: got {ratio:g} for the pruning at epoch {epoch}, {round(ratio * total):,} of "
                    f"{total:,} weights in {stages_text(group)}, fewer than the {prune.floor} of each layer that "
                    f"prune.floor keeps; accepted: at least {rounded_up(reserved / total)}, or prune.floor=0"
                )
                return


def _compiler_or_error() -> None:
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise ConfigError("train.compile: got true; accepted: false, as this machine has no C++ compiler") from error
