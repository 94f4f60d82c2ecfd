"""ramify grows, prunes and searches branching neural networks.

The names below are the public face; each is loaded when it is first asked for, so that importing ``ramify``
costs nothing.

Example:
    >>> import ramify
    >>> config = ramify.NetworkConfig(structure=(0, 1, 0), input_shape=(1, 8, 8), classes=10)
    >>> network = ramify.Network(config)
    >>> ramify.grow(network).final
    True
"""

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ramify.config import Config as Config
    from ramify.config import DataConfig as DataConfig
    from ramify.config import GrowthConfig as GrowthConfig
    from ramify.config import NetworkConfig as NetworkConfig
    from ramify.config import PruneConfig as PruneConfig
    from ramify.config import TrainConfig as TrainConfig
    from ramify.configfile import read_config as read_config
    from ramify.configfile import read_configs as read_configs
    from ramify.data.pictures import Part as Part
    from ramify.data.sources import load_pictures as load_pictures
    from ramify.errors import InputError as InputError
    from ramify.errors import RamifyError as RamifyError
    from ramify.errors import RunError as RunError
    from ramify.nn.attach import attach_exits as attach_exits
    from ramify.nn.attach import branches as branches
    from ramify.nn.attach import exit_points as exit_points
    from ramify.nn.equilibrium import balanced_logits as balanced_logits
    from ramify.nn.network import Network as Network
    from ramify.opened import Opened as Opened
    from ramify.opened import open as open  # noqa: A004 - ramify.open
    from ramify.ops.compact import compact as compact
    from ramify.ops.convert import cut as cut
    from ramify.ops.convert import to_cnn as to_cnn
    from ramify.ops.convert import to_sdn as to_sdn
    from ramify.ops.cost import cost as cost
    from ramify.ops.cost import place_exits as place_exits
    from ramify.ops.exits.analysis import Analysis as Analysis
    from ramify.ops.exits.analysis import analyse as analyse
    from ramify.ops.exits.calibrate import Calibration as Calibration
    from ramify.ops.exits.calibrate import calibrate as calibrate
    from ramify.ops.exits.policy import Policy as Policy
    from ramify.ops.exits.policy import confidences as confidences
    from ramify.ops.exits.policy import follow as follow
    from ramify.ops.fold import fold as fold
    from ramify.ops.grow import grow as grow
    from ramify.ops.loss import distillation_losses as distillation_losses
    from ramify.ops.loss import exit_losses as exit_losses
    from ramify.ops.loss import self_distillation_losses as self_distillation_losses
    from ramify.ops.loss import weighted_loss as weighted_loss
    from ramify.ops.prune import prune as prune
    from ramify.ops.regrow import dense_forward as dense_forward
    from ramify.ops.regrow import regrow as regrow
    from ramify.ops.surgery import parameter_groups as parameter_groups
    from ramify.ops.widen import widen as widen
    from ramify.rescaling import rescale as rescale
    from ramify.run.calibrate import calibrate_run as calibrate_run
    from ramify.run.evaluate import all_logits as all_logits
    from ramify.run.evaluate import evaluate as evaluate
    from ramify.run.readback import describe as describe
    from ramify.run.saved import load as load
    from ramify.run.saved import load_policy as load_policy
    from ramify.run.saved import save as save
    from ramify.run.train import resume as resume
    from ramify.run.train import train as train
    from ramify.ship.answer import answerer as answerer
    from ramify.ship.bench import Bench as Bench
    from ramify.ship.bench import benchmark as benchmark
    from ramify.ship.export import export as export
    from ramify.ship.hub import write_hub as write_hub
    from ramify.ship.picture import read_picture as read_picture
    from ramify.ship.runtime import Runtime as Runtime
    from ramify.show.report.write import report as report

_HOME = {
    "ramify.config": (
        "Config",
        "DataConfig",
        "GrowthConfig",
        "NetworkConfig",
        "PruneConfig",
        "TrainConfig",
    ),
    "ramify.configfile": ("read_config", "read_configs"),
    "ramify.data.pictures": ("Part",),
    "ramify.data.sources": ("load_pictures",),
    "ramify.errors": ("InputError", "RamifyError", "RunError"),
    "ramify.nn.attach": ("attach_exits", "branches", "exit_points"),
    "ramify.nn.equilibrium": ("balanced_logits",),
    "ramify.nn.network": ("Network",),
    "ramify.ops.exits.calibrate": ("Calibration", "calibrate"),
    "ramify.ops.compact": ("compact",),
    "ramify.ops.convert": ("cut", "to_cnn", "to_sdn"),
    "ramify.ops.cost": ("cost", "place_exits"),
    "ramify.ops.fold": ("fold",),
    "ramify.ops.grow": ("grow",),
    "ramify.ops.loss": ("distillation_losses", "exit_losses", "self_distillation_losses", "weighted_loss"),
    "ramify.ops.exits.policy": ("Policy", "confidences", "follow"),
    "ramify.ops.prune": ("prune",),
    "ramify.ops.regrow": ("dense_forward", "regrow"),
    "ramify.ops.surgery": ("parameter_groups",),
    "ramify.ops.widen": ("widen",),
    "ramify.opened": ("Opened", "open"),
    "ramify.ops.exits.analysis": ("Analysis", "analyse"),
    "ramify.rescaling": ("rescale",),
    "ramify.run.calibrate": ("calibrate_run",),
    "ramify.run.evaluate": ("all_logits", "evaluate"),
    "ramify.run.readback": ("describe",),
    "ramify.run.saved": ("load", "load_policy", "save"),
    "ramify.run.train": ("resume", "train"),
    "ramify.show.report.write": ("report",),
    "ramify.ship.answer": ("answerer",),
    "ramify.ship.bench": ("Bench", "benchmark"),
    "ramify.ship.export": ("export",),
    "ramify.ship.hub": ("write_hub",),
    "ramify.ship.picture": ("read_picture",),
    "ramify.ship.runtime": ("Runtime",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}
__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'ramify' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
