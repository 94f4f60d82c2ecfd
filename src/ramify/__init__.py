"""ramify grows, prunes and searches branching neural networks.

The names below are the public API; each is imported on first use, so that ``import ramify`` is fast.

Example:
    >>> import ramify
    >>> config = ramify.NetworkConfig(structure=(0, 1, 0), input_shape=(1, 8, 8), classes=10)
    >>> network = ramify.Network(config)
    >>> ramify.grow(network).final
    True
"""

import importlib
from typing import TYPE_CHECKING

from ramify.version import __version__ as __version__

if TYPE_CHECKING:
    from ramify.answer.answerer import answerer as answerer
    from ramify.answer.picture import read_picture as read_picture
    from ramify.answer.runtime import Runtime as Runtime
    from ramify.bench.measure import Bench as Bench
    from ramify.bench.measure import benchmark as benchmark
    from ramify.config.read import read_config as read_config
    from ramify.config.read import read_configs as read_configs
    from ramify.config.rescaling import rescale as rescale
    from ramify.config.rules import Config as Config
    from ramify.config.rules import DataConfig as DataConfig
    from ramify.config.rules import GrowthConfig as GrowthConfig
    from ramify.config.rules import NetworkConfig as NetworkConfig
    from ramify.config.rules import PruneConfig as PruneConfig
    from ramify.config.rules import TrainConfig as TrainConfig
    from ramify.data.pictures import Part as Part
    from ramify.data.sources import load_pictures as load_pictures
    from ramify.errors import InputError as InputError
    from ramify.errors import RamifyError as RamifyError
    from ramify.errors import RunError as RunError
    from ramify.exporting.hub import write_hub as write_hub
    from ramify.exporting.write import export as export
    from ramify.nn.attach import attach_exits as attach_exits
    from ramify.nn.attach import branches as branches
    from ramify.nn.attach import exit_points as exit_points
    from ramify.nn.equilibrium import balanced_logits as balanced_logits
    from ramify.nn.network import Network as Network
    from ramify.opened import Opened as Opened
    from ramify.opened import open as open  # noqa: A004 - ramify.open
    from ramify.ops.cost import cost as cost
    from ramify.ops.cost import place_exits as place_exits
    from ramify.ops.exits.analysis import Analysis as Analysis
    from ramify.ops.exits.analysis import analyze as analyze
    from ramify.ops.exits.calibrate import Calibration as Calibration
    from ramify.ops.exits.calibrate import calibrate as calibrate
    from ramify.ops.exits.policy import Policy as Policy
    from ramify.ops.exits.policy import confidences as confidences
    from ramify.ops.exits.policy import follow as follow
    from ramify.ops.fold import fold as fold
    from ramify.ops.growing.convert import cut as cut
    from ramify.ops.growing.convert import to_cnn as to_cnn
    from ramify.ops.growing.convert import to_sdn as to_sdn
    from ramify.ops.growing.grow import grow as grow
    from ramify.ops.growing.widen import widen as widen
    from ramify.ops.loss import distillation_losses as distillation_losses
    from ramify.ops.loss import exit_losses as exit_losses
    from ramify.ops.loss import self_distillation_losses as self_distillation_losses
    from ramify.ops.loss import weighted_loss as weighted_loss
    from ramify.ops.pruning.compact import compact as compact
    from ramify.ops.pruning.prune import prune as prune
    from ramify.ops.pruning.regrow import dense_forward as dense_forward
    from ramify.ops.pruning.regrow import regrow as regrow
    from ramify.ops.surgery import parameter_groups as parameter_groups
    from ramify.run.calibrate import calibrate_run as calibrate_run
    from ramify.run.evaluate import all_logits as all_logits
    from ramify.run.evaluate import evaluate as evaluate
    from ramify.run.readback import describe as describe
    from ramify.run.saved import load as load
    from ramify.run.saved import load_policy as load_policy
    from ramify.run.saved import save as save
    from ramify.show.report.write import report as report
    from ramify.training.minutes import rescale_to_minutes as rescale_to_minutes
    from ramify.training.run import resume as resume
    from ramify.training.run import train as train

_HOME = {
    "ramify.answer.answerer": "answerer",
    "ramify.answer.picture": "read_picture",
    "ramify.answer.runtime": "Runtime",
    "ramify.bench.measure": "Bench benchmark",
    "ramify.config.read": "read_config read_configs",
    "ramify.config.rescaling": "rescale",
    "ramify.config.rules": "Config DataConfig GrowthConfig NetworkConfig PruneConfig TrainConfig",
    "ramify.data.pictures": "Part",
    "ramify.data.sources": "load_pictures",
    "ramify.errors": "InputError RamifyError RunError",
    "ramify.exporting.hub": "write_hub",
    "ramify.exporting.write": "export",
    "ramify.nn.attach": "attach_exits branches exit_points",
    "ramify.nn.equilibrium": "balanced_logits",
    "ramify.nn.network": "Network",
    "ramify.opened": "Opened open",
    "ramify.ops.cost": "cost place_exits",
    "ramify.ops.exits.analysis": "Analysis analyze",
    "ramify.ops.exits.calibrate": "Calibration calibrate",
    "ramify.ops.exits.policy": "Policy confidences follow",
    "ramify.ops.fold": "fold",
    "ramify.ops.growing.convert": "cut to_cnn to_sdn",
    "ramify.ops.growing.grow": "grow",
    "ramify.ops.growing.widen": "widen",
    "ramify.ops.loss": "distillation_losses exit_losses self_distillation_losses weighted_loss",
    "ramify.ops.pruning.compact": "compact",
    "ramify.ops.pruning.prune": "prune",
    "ramify.ops.pruning.regrow": "dense_forward regrow",
    "ramify.ops.surgery": "parameter_groups",
    "ramify.run.calibrate": "calibrate_run",
    "ramify.run.evaluate": "all_logits evaluate",
    "ramify.run.readback": "describe",
    "ramify.run.saved": "load load_policy save",
    "ramify.show.report.write": "report",
    "ramify.training.minutes": "rescale_to_minutes",
    "ramify.training.run": "resume train",
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names.split()}
__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'ramify' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
