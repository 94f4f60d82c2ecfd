"""Keys that are fine alone and wrong together."""

import itertools
from collections.abc import Iterable, Iterator, Sequence

from ramify.config.data import DataConfig
from ramify.config.keys import ConfigKeys, births, growth_epochs, last_growth, longest_trunk_first, scored_later
from ramify.config.network import PUBLISHED, NetworkConfig
from ramify.config.prune import DENSITIES
from ramify.config.types import Section
from ramify.config.yamltext import to_text
from ramify.ops.pruning.policies import DYNAMIC, FIXED, POLICIES

Problems = Iterator[tuple[str, str]]
"""The key, and what is accepted in place of its value."""


def contradictions(config: ConfigKeys) -> Problems:
    """All contradictions in ``config``."""
    network = config.network
    yield from _of_network(network)
    if network.cascade and config.convert == "sdn":
        yield "network.cascade", "false, as the exits that convert=sdn puts in would add to the last one's answer"
    if config.parent is None and config.convert is not None:
        yield "convert", "null, as there is no parent whose network could be converted"
    if config.train.exits_only and config.parent is None:
        yield "train.exits_only", "false, as a fresh trunk must learn (a run with a parent may freeze it)"
    elif config.train.exits_only and network.exits == 1:
        yield "train.exits_only", "false, as the network has no internal classifiers"
    if network.has_backbone:
        yield from _of_backbone_run(config)
    yield from _of_growth(config)
    yield from _of_recipe(config)
    yield from _of_data(config)
    yield from _of_joint_training(config)
    yield from _of_lists(config)
    if config.prune.enabled:
        yield from _of_dynamic_sparsity(config) if config.prune.policy in DYNAMIC else _of_pruning(config)


def _rising(numbers: Sequence[float]) -> bool:
    return all(a < b for a, b in itertools.pairwise(numbers))


def _epochs(key: str, epochs: Sequence[int], last: int) -> Problems:
    if not _rising(epochs):
        yield key, "epochs in rising order"
    elif epochs and epochs[-1] > last:
        yield key, f"epochs up to train.epochs = {last}; --rescale {last} in place of train.epochs moves them along"


def _unused(section: str, keys: Section, names: Iterable[str], why: str) -> Problems:
    """Keys of a section that nothing would read, where they are not at their defaults."""
    for name in names:
        value, default = getattr(keys, name), type(keys).model_fields[name].default
        if value != default:
            usual = f"{default:g}" if isinstance(default, float) else to_text(default).strip("'")
            yield f"{section}.{name}", f"{usual}, {why}"


# The network.

_OF_CELLS = ("cells", "structure", "channels", "strides", "stem", "cell", "squeeze", "exit_reads", "final", "cascade")
"""Keys of ``network`` that a backbone does not read."""


def _of_network(network: NetworkConfig) -> Problems:
    if network.has_backbone:
        yield from _of_backbone(network)
        return
    for name in ("module_args", "weights", "pretrained", "normalization"):
        if getattr(network, name):
            yield f"network.{name}", "nothing, without network.backbone or network.module"
    places = network.exits_at or ()
    cells = len(network.structure)
    if any(isinstance(place, str) for place in places):
        yield "network.exits_at", "numbers, without network.backbone or network.module"
    else:
        yield from _rising_places(network)
        if places and len(places) >= cells:
            yield "network.exits_at", f"at most {cells - 1}, as network.structure has {cells} cells"
    if network.exit_reads == "sum":
        yield from _of_sums(network)
    if network.cells == "seed":
        yield from _of_shapes(network)
        return
    count = len(PUBLISHED[network.cells])
    if cells > count:
        yield "network.structure", f"up to {count} numbers, the cells of {network.cells}, or none"
    if network.kind == "dense":
        yield "network.kind", f"iterative, full_ic, full, as the cells of {network.cells} form a chain"
    alone = f"which is left alone, as {network.cells} has cells of its own"
    yield from _unused("network", network, ("stem", "cell", "channels", "strides", "squeeze"), alone)


def _rising_places(network: NetworkConfig) -> Problems:
    if not _rising([place for place in network.exits_at or () if not isinstance(place, str)]):
        yield "network.exits_at", "numbers in rising order"


def _of_backbone(network: NetworkConfig) -> Problems:
    key = "network.module" if network.backbone is None else "network.backbone"
    if network.backbone is not None and network.module is not None:
        yield "network.module", "null, as network.backbone is given"
    if network.kind not in ("full_ic", "full"):
        yield "network.kind", f"full_ic, full, as {key} is complete from the start"
    yield from _unused("network", network, _OF_CELLS, f"which is left alone, as {key} has layers of its own")
    yield from _rising_places(network)
    names = [place for place in network.exits_at or () if isinstance(place, str)]
    if len(set(names)) < len(names):
        yield "network.exits_at", "each name once"
    if network.module_args and network.module is None:
        yield "network.module_args", "no arguments, as there is no network.module"
    if network.pretrained is not None and network.backbone is None:
        why = "as a module comes as its function makes it, or with network.weights"
        yield "network.pretrained", f"null without network.backbone, {why}"
    elif network.pretrained and network.weights is not None:
        yield "network.pretrained", "false or null, as network.weights says which weights"


def _of_sums(network: NetworkConfig) -> Problems:
    from ramify.nn.cells import CELLS, cell_choices
    from ramify.nn.zoo import ZOO

    if network.cells == "seed":
        able = [name for name, cell in cell_choices().items() if cell.sums]
        if network.cell not in able:
            names = ", ".join(able)
            yield "network.exit_reads", f"activation, as {network.cell} cells end in no ReLU of a sum ({names} do)"
    elif not all(CELLS[spec.type].sums for spec in ZOO[network.cells].cells):
        yield "network.exit_reads", f"activation, as the cells of {network.cells} end in no ReLU of a sum"


def _of_shapes(network: NetworkConfig) -> Problems:
    cells, widths, strides = len(network.structure), len(network.widths), network.strides
    if strides is None and widths > cells:
        yield "network.channels", f"up to {cells} widths, as network.structure has {cells} cells"
    elif strides is not None and len(strides) != cells:
        yield "network.strides", f"a list of {cells}, one for each cell of network.structure, or null"
    elif strides is not None and isinstance(network.channels, tuple) and sum(strides) != widths - 1:
        each = f"as each moves on to the next of the {widths} widths in network.channels"
        yield "network.strides", f"a list with {widths - 1} times 1, {each}"
    if network.squeeze is not None:
        from ramify.nn.cells import cell_choices

        squeezing = [name for name, cell in cell_choices().items() if cell.squeezing]
        if network.cell not in squeezing:
            names = ", ".join(squeezing)
            yield "network.squeeze", f"null, as {network.cell} cells have no place for it ({names} have)"


def _of_backbone_run(config: ConfigKeys) -> Problems:
    """A backbone or module is complete from the start, and not made of cells."""
    growth, train = config.growth, config.train
    key = "network.module" if config.network.backbone is None else "network.backbone"
    why = f"as {key} is complete from the start and does not grow"
    yield from _unused("growth", growth, ("mode", "init", "freeze", "every", "learning_rate"), why)
    if config.convert in ("sdn", "extend"):
        yield "convert", f"cnn, cut, as {key} has its exits by network.exits_at, and no cells"
    if train.freeze_epochs > train.epochs:
        yield "train.freeze_epochs", f"0 to {train.epochs}, the epochs of the run"
    elif train.freeze_epochs:
        frozen = "so long nothing before the exits learns"
        if train.trunk_first:
            yield "train.freeze_epochs", f"0 with train.trunk_first, as {frozen}"
        if train.exits_only:
            yield "train.freeze_epochs", "0, as train.exits_only lets no trunk learn"
        if config.prune.enabled and config.prune.policy in DYNAMIC:
            yield "train.freeze_epochs", f"0 with prune.policy {config.prune.policy}, as {frozen}"


# Growth.


def _of_growth(config: ConfigKeys) -> Problems:
    network, growth, last = config.network, config.growth, config.train.epochs
    yield from _of_plan(config)
    if growth.mode == "loss":
        for key in ("epochs", "every"):
            if getattr(growth, key):
                yield f"growth.{key}", "null, as growth.mode loss needs no list of epochs"
        if config.data.valid_fraction == 0:
            yield "growth.mode", "scheduled, as there is no validation loss with data.valid_fraction = 0"
        if config.prune.enabled and config.prune.policy == "skip_layer":
            others = ", ".join(name for name in FIXED if name != "skip_layer")
            yield "prune.policy", f"{others}, as growth.mode loss does not tell when stages grow"
    elif growth.epochs is None:
        least = config.growths * (growth.every or 1) + 1
        if config.parent is None and last < least:
            yield "train.epochs", f"at least {least}, an epoch for each of the {network.exits} stages"
    elif growth.every is not None:
        yield "growth.every", "null, as growth.epochs is given; or growth.epochs null"
    elif len(growth.epochs) != config.growths:
        yield "growth.epochs", f"a list of {_growths_in_words(config)}"
    elif not _rising(growth.epochs):
        yield "growth.epochs", "epochs in rising order"
    elif growth.epochs and (growth.epochs[0] < 2 or growth.epochs[-1] > last):
        yield "growth.epochs", f"epochs from 2 to train.epochs = {last}"
    grows = config.parent is None and network.growths > 0
    if growth.learning_rate == "constant" and not grows:
        run = "a run with a parent" if config.parent is not None else f"network.kind {network.kind}"
        yield "growth.learning_rate", f"shared, as in {run} no stage grows"
    if grows and growth.init == "identity" and network.exit_reads == "sum" and not network.cascade:
        why = "as a stage that grows cannot pass on what the exit before it reads under network.exit_reads sum"
        yield "growth.init", f"random, copy, {why}"


def _growths_in_words(config: ConfigKeys) -> str:
    if config.parent is not None:
        return "none, since a run with a parent starts from a complete network"
    if config.growth.plan is not None:
        return f"{config.growths}, one for each entry of growth.plan"
    if config.network.growths == 0:
        return f"none, since network.kind {config.network.kind} does not grow"
    return f"{config.growths}, one for each 1 in network.structure"


def _of_plan(config: ConfigKeys) -> Problems:
    network, plan = config.network, config.growth.plan or ()
    if config.growth.plan is None or (config.parent is not None and not plan):
        return
    if config.parent is not None:
        yield "growth.plan", "null, as a run with a parent does not grow"
        return
    deeper = plan.count("deeper")
    if deeper != network.growths:
        yield "growth.plan", f"{network.growths} times deeper, once for each stage that the network lacks at first"
        return
    if deeper < len(plan):
        from ramify.nn.zoo import widened

        cells, architectures = widened()
        if network.cell not in cells if network.cells == "seed" else network.cells not in architectures:
            names = f"{_listed(cells)} cells of the seed, {_listed(architectures)}"
            yield "growth.plan", f"deeper alone, as only {names} can be widened"
    stages = network.first_stages
    for action in plan:
        stages += action == "deeper"
        if action.startswith("wider:") and not 1 <= int(action[6:]) <= stages:
            yield "growth.plan", f"wider:1 to wider:{stages} at that place, the stages that exist then"


def _listed(names: Sequence[str]) -> str:
    """``'resnet56 and mobilenet'``, ``'basic, depthwise and compact'``."""
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


# Training and pictures.


def _of_recipe(config: ConfigKeys) -> Problems:
    data, train = config.data, config.train
    if train.schedule != "steps" and train.milestones:
        yield "train.milestones", f"null, as train.schedule {train.schedule} has none; or steps"
    if train.schedule == "steps" and train.final_rate:
        yield "train.final_rate", "0, as train.schedule steps ends where its gammas lead"
    if train.warmup and train.warmup >= train.epochs:
        yield "train.warmup", f"less than train.epochs = {train.epochs}"
    if train.nesterov and train.optimizer != "sgd":
        why = "always has it" if train.optimizer in ("muon", "normed_muon") else "has no momentum of that kind"
        yield "train.nesterov", f"false, as train.optimizer {train.optimizer} {why}"
    elif train.nesterov and train.momentum == 0:
        yield "train.nesterov", "false, as train.momentum is 0"
    if data.sampler == "balanced" and train.class_weights == "balanced":
        yield "train.class_weights", "none, as data.sampler balanced makes the classes equal already"
    if train.patience is not None and data.valid_fraction == 0:
        yield "train.patience", "null, as there is no validation score with data.valid_fraction = 0"
    if train.patience is not None and train.keep == "last":
        yield "train.patience", "null, as train.keep = last asks for no best epoch"
    if train.teacher is None:
        yield from _unused("train", train, ("teacher_weight", "teacher_exits"), "as there is no train.teacher")
    if not config.network.has_backbone:
        names = ("backbone_rate", "freeze_epochs")
        yield from _unused("train", train, names, "without network.backbone or network.module")


def _of_data(config: ConfigKeys) -> Problems:
    data = config.data
    if config.train.flip_test:
        from ramify.data.augment import NEVER_MIRRORED

        if data.source in NEVER_MIRRORED:
            yield "train.flip_test", f"false, as a mirrored picture of {data.source} is another sign"
    yield from _of_moves(data)
    if data.sizes is not None:
        epochs = [epoch for epoch, _ in data.sizes]
        problem = next(_epochs("data.sizes", epochs, config.train.epochs), None)
        if not epochs or epochs[0] != 1:
            yield "data.sizes", "a first entry for epoch 1, or null"
        elif problem is not None:
            yield "data.sizes", problem[1]
        elif not _rising([side for _, side in data.sizes]):
            yield "data.sizes", "sides in rising order"
    if data.fold is not None and data.fold[0] > data.fold[1]:
        yield "data.fold", f"[k, n] with k from 1 to {data.fold[1]}"
    if data.range is not None and data.range[0] >= data.range[1]:
        yield "data.range", "[low, high] with low < high"


def _of_moves(data: DataConfig) -> Problems:
    """Of shifting and mirroring: keys that ``data.augment`` would not read."""
    from ramify.data.augment import augmentation

    moves = "none" if data.augment == "photo" else augmentation(data.augment, data.source)
    if moves not in ("crop", "crop_flip"):
        why = f"as data.augment={data.augment} does not shift {data.source}"
        yield from _unused("data", data, ("shift", "border"), why)
    if moves != "crop_flip":
        yield from _unused("data", data, ("flip",), f"as data.augment={data.augment} does not mirror {data.source}")


def _of_joint_training(config: ConfigKeys) -> Problems:
    """Of the keys that say how the exits train together."""
    train = config.train
    if config.network.exits == 1:
        why = "as the network has one exit"
        yield from _unused("train", train, ("exit_gradients", "trunk_first"), why)
        yield from _unused("train", train, ("distill",), f"{why}, which has none to learn from")
    elif train.exits_only:
        yield from _unused("train", train, ("exit_gradients", "trunk_first"), "as train.exits_only lets no trunk learn")
    elif train.trunk_first > (most := longest_trunk_first(config)):
        grows = "" if config.growths == 0 else f" and the network may grow until epoch {last_growth(config)}"
        why = f"an epoch for all exits at least, as train.epochs is {train.epochs}{grows}"
        yield "train.trunk_first", f"0 to {most}, which leaves {why}"


def _of_lists(config: ConfigKeys) -> Problems:
    """Of lists of epochs, and of those with an entry for each of something."""
    prune, train, exits = config.prune, config.train, config.network.exits
    if train.milestones is not None:
        yield from _epochs("train.milestones", train.milestones, train.epochs)
    if isinstance(train.gammas, tuple):
        if train.milestones is None:
            yield "train.gammas", "one number, unless train.milestones is given too"
        elif len(train.gammas) != len(train.milestones):
            yield "train.gammas", f"a list of {len(train.milestones)}, one for each of train.milestones"
    if train.tau_max is not None and len(train.tau_max) != exits - 1:
        yield "train.tau_max", f"a list of {exits - 1}, one for each internal classifier"
    yield from _epochs("prune.epochs", prune.epochs, train.epochs)
    for key, ratios in (("prune.keep_ratio", prune.keep_ratio), ("prune.min_ratio", prune.min_ratio)):
        if isinstance(ratios, tuple) and len(ratios) not in {exits, max(exits - 1, 1)}:
            yield key, f"one number, or a list of {exits}, one for each stage"


# Pruning.


def _of_pruning(config: ConfigKeys) -> Problems:
    network, prune = config.network, config.prune
    if not prune.epochs:
        yield "prune.epochs", "at least one epoch, as prune.enabled is true"
    for key, budget in (("prune.max_parameters", prune.max_parameters), ("prune.max_macs", prune.max_macs)):
        if budget is not None and (prune.policy, prune.unit, prune.rounds) != ("normal", "channel", 1):
            yield key, "null, unless prune.policy is normal, prune.unit channel and prune.rounds 1"
    if not POLICIES[prune.policy].by_stage and isinstance(prune.keep_ratio, tuple):
        yield "prune.keep_ratio", f"one number, as policy {prune.policy} ranks the whole network at once"
    if prune.unit == "channel" and network.cells == "seed":
        from ramify.nn.cells import CELLS

        why = CELLS[network.cell].channels_stay
        if why:
            yield "prune.unit", f"weight, as {why}"
    if scored_later(config):
        both = sorted({*prune.epochs} & {*growth_epochs(config)})
        if both:
            why = "as a stage that starts as an identity scores 0 until it has learned"
            yield "prune.epochs", f"epochs other than {both[0]}, when a stage grows, {why}"
    if prune.policy == "skip_layer":
        born = births(config)
        if len(prune.epochs) > len(born):
            yield "prune.epochs", f"at most {len(born)}, as policy skip_layer prunes each stage once"
        for i, (pruned, birth) in enumerate(zip(prune.epochs, born, strict=False), start=1):
            if pruned < birth:
                why = f"as stage {i} grows then (policy skip_layer)"
                yield "prune.epochs", f"epoch {birth} or later for pruning {i}, {why}"


def _of_dynamic_sparsity(config: ConfigKeys) -> Problems:
    """Of ``prune.policy`` rigl and set."""
    prune, growth, last = config.prune, config.growth, config.train.epochs
    why = f"as policy {prune.policy}"
    if prune.criterion not in (None, *DENSITIES):
        yield "prune.criterion", f"{', '.join(DENSITIES)}, {why} moves connections by itself"
    yield from _unused("prune", prune, ["unit"], f"{why} moves single connections")
    yield from _unused("prune", prune, ["rounds"], f"{why} draws the masks at once")
    yield from _unused("prune", prune, ["control"], f"{why} ranks nothing before it starts")
    yield from _unused("prune", prune, ["reinit"], f"{why} starts with the weights that are there")
    if config.train.exits_only:
        yield "prune.policy", f"{', '.join(FIXED)}, as train.exits_only lets no trunk learn"
    start = prune.epochs[0] if prune.epochs else 1
    if len(prune.epochs) > 1:
        yield "prune.epochs", f"one epoch, or none for the first, {why} starts once"
    elif start > 1 and growth.freeze != "none" and config.growths:
        yield "prune.epochs", f"none, as growth.freeze {growth.freeze} leaves stages as they are"
    elif last and prune.until * last <= start - 1:
        yield "prune.until", f"more than {(start - 1) / last:.3g}, {why} starts at epoch {start} of {last}"
