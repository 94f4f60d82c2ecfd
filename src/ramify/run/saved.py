"""From a name or a folder to a saved network, and saving a network of your own.

A network is named by a run (``demo``), the folder of one (``runs/demo``), a checkpoint in it (``runs/demo/best``), a
model folder of ``ramify export --to hub``, or a folder of :func:`save`.
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path

from ramify.config.read import read_config
from ramify.config.rules import Config, NetworkConfig
from ramify.errors import InputError, nearest_or_all
from ramify.files import is_file, readable_folder, replace_folder
from ramify.nn.attached import Attached
from ramify.nn.branching import Branching
from ramify.nn.network import Network
from ramify.ops.exits.calibrate import Calibration
from ramify.ops.exits.policy import Policy
from ramify.run.checkpoint import HUB_CONFIG, Card, ExitPolicy, card_with, is_checkpoint, pack_model, read_model
from ramify.run.folder import CONFIG, is_run

RUNS = "runs"
"""The default folder of runs."""


def find_run(name: str | Path, runs_dir: str | Path = RUNS) -> Path:
    """The folder of the run called ``name``, or that ``name`` is the path of.

    Raises:
        InputError: there is no such run; the nearest name is given.
    """
    runs = Path(runs_dir)
    for folder in (runs / name, Path(name)):
        if is_run(folder):
            return folder
    names = sorted(entry.name for entry in runs.iterdir() if is_run(entry)) if runs.is_dir() else []
    hint = nearest_or_all(str(name), names)
    raise InputError(
        f"got {str(name)!r}, which is no run in {runs}; accepted: the name of a run or the path of its folder ({hint})"
    )


def find_saved(name: str | Path, runs_dir: str | Path = RUNS) -> Path:
    """The folder of a run, as :func:`find_run`, or that of a network which is no part of a run.

    Raises:
        InputError: there is neither.
    """
    folder = Path(name)
    if is_file(folder / HUB_CONFIG) or (is_checkpoint(folder) and not is_run(folder.resolve().parent)):
        return folder
    return find_run(name, runs_dir)


def run_behind(name: str | Path, runs_dir: str | Path = RUNS) -> Path | None:
    """The run of a network named by the run, a checkpoint in it or an export; None without one."""
    with contextlib.suppress(InputError):
        return find_run(name, runs_dir)
    parent = Path(name).resolve().parent
    return parent if is_run(parent) else None


def located(config: Config) -> Config:
    """``config`` with paths in place of the names of runs in ``parent`` and ``train.teacher``."""

    def path(name: str | None) -> str | None:
        if name is None or is_checkpoint(Path(name)):
            return name
        with contextlib.suppress(InputError):  # a missing run is an error where it is opened
            return str(find_run(name, config.runs_dir))
        return name

    train = config.train.model_copy(update={"teacher": path(config.train.teacher)})
    return config.model_copy(update={"parent": path(config.parent), "train": train})


def config_of(folder: Path, overrides: Sequence[str] = ()) -> Config:
    """The configuration of the run in ``folder``, changed by ``overrides``.

    For a network without a run, an override ``data.source=...`` is needed.

    Raises:
        InputError: an override is not accepted or missing.
    """
    if is_run(folder):
        return read_config([folder / CONFIG], overrides)
    if not any(text.startswith("data.source=") for text in overrides):
        raise InputError(f"{folder}: is not a run, and names no pictures; accepted: data.source=... beside it")
    return read_config(overrides=overrides)


def checkpoint_of(run: Path) -> Path:
    """The checkpoint of a run: ``compact``, else ``best``, or ``last`` until it has fully grown.

    Raises:
        InputError: the run has no checkpoint yet.
    """
    for name in ("compact", "best", "last"):
        if readable_folder(run / name).exists():
            return run / name
    raise InputError(f"{run}: has no checkpoint yet; accepted: a run that has trained for one epoch")


def find_checkpoint(name: str | Path, runs_dir: str | Path = RUNS) -> Path:
    """The folder that holds the network called ``name``; see :func:`checkpoint_of` for that of a run.

    Raises:
        InputError: there is no such network.
    """
    folder = Path(name)
    return folder if is_checkpoint(folder) else checkpoint_of(find_run(name, runs_dir))


def read_saved(name: str | Path, runs_dir: str | Path = RUNS) -> tuple[Branching, Card]:
    """The network called ``name`` and its card; see :func:`load`."""
    return read_model(find_checkpoint(name, runs_dir))


def load(path: str | Path, runs_dir: str | Path = RUNS) -> Branching:
    """A saved network, on the CPU and in evaluation mode; no code but ramify's is run.

    Args:
        path: the name of a run or the path of its folder, a checkpoint (``runs/demo/best``), a model folder of
            ``ramify export --to hub``, or a folder of :func:`save`; for a run, see :func:`checkpoint_of`.
        runs_dir: the folder of runs.

    Raises:
        InputError: there is no such network.
        CheckpointError: what is there cannot be read.
    """
    return read_saved(path, runs_dir)[0]


def load_policy(path: str | Path, runs_dir: str | Path = RUNS) -> Policy | None:
    """The calibrated exit policy of a saved network, None without one; arguments as :func:`load`."""
    kept = read_saved(path, runs_dir)[1].policy
    return None if kept is None else kept.calibration.policy


def save(
    network: Branching,
    folder: str | Path,
    *,
    classes: Sequence[str] | None = None,
    calibration: Calibration | None = None,
    overwrite: bool = False,
) -> Path:
    """Save a network without a run, such as one from a training loop of your own.

    :func:`load`, :func:`ramify.open` and every command that takes a saved network read it.

    Args:
        network: with all its stages, or fewer.
        folder: made if needed.
        classes: names of the classes, in the order of the logits; None: ``0``, ``1`` and so on.
        calibration: of :func:`ramify.calibrate` with costs in MACs; the network then answers by its policy.
        overwrite: replace a saved network.

    Returns:
        The folder.

    Raises:
        InputError: the folder holds something, or there are not as many names as classes.
        RunError: the folder cannot be written.

    Example:
        >>> import tempfile
        >>> import ramify
        >>> config = ramify.NetworkConfig(structure=(1, 0), input_shape=(1, 8, 8), classes=2)
        >>> with tempfile.TemporaryDirectory() as place:
        ...     kept = save(ramify.Network(config, stages=2), f"{place}/mine", classes=["cat", "dog"])
        ...     len(ramify.load(kept).stages)
        2
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        if not is_checkpoint(folder) or is_run(folder.resolve().parent):
            raise InputError(f"folder: got {folder}, which holds something else; accepted: a free name")
        if not overwrite:
            raise InputError(f"folder: got {folder}, a saved network; accepted: a free name, or overwrite=True")
    count = network.classes
    names = tuple(map(str, range(count))) if classes is None else tuple(classes)
    if len(set(names)) != count:
        raise InputError(f"classes: got {len(names)} names; accepted: {count} different ones, one for each logit")
    policy = None if calibration is None else ExitPolicy(calibration, "MACs")
    card = card_with(Card(_config_of(network), len(network.stages), names, 0, policy=policy), network)
    replace_folder(folder, pack_model(network, card))
    return folder


def _config_of(network: Branching) -> NetworkConfig:
    """The configuration of ``network``; for a module with exits, the graph holds the rest."""
    if isinstance(network, Network):
        return network.config
    assert isinstance(network, Attached)
    channels, height, width = network.input_shape
    return NetworkConfig(
        kind="full_ic" if network.points else "full",
        module="ramify:attach_exits",
        exits_at=tuple(point.name for point in network.points) or None,
        input_shape=(channels, height, width),
        classes=network.classes,
    )
