"""Networks that others wrote: of timm, or from a function of the user's, with a last layer for the classes at hand.

The user's code is imported here alone, when a run begins: a saved network is read from its graph.
"""

import contextlib
import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, fx, nn
from torch.nn import functional as F

from ramify.config.rules import NetworkConfig
from ramify.errors import ConfigError, InputError, first_line, nearest
from ramify.nn.attach import attach_exits
from ramify.nn.attached import Attached
from ramify.nn.branching import Branching
from ramify.nn.modes import keeping_modes
from ramify.seeds import drawing, generator

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and deviation of ImageNet's pictures."""

Normalization = tuple[tuple[float, ...], tuple[float, ...]]

_PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
"""What DistributedDataParallel, torch.compile and common wrappers put before the names of a state dict."""

_NESTED = ("state_dict", "model_state_dict", "model", "state_dict_ema")
"""Where checkpoints of common training scripts keep their state dict."""


def load_backbone(config: NetworkConfig, seed: int | None = None) -> tuple[nn.Module, Normalization | None]:
    """The network of ``network.backbone`` or ``network.module``, its weights loaded, its last layer for ``classes``.

    With it the mean and deviation of each channel of its pictures, in units of pictures in [0, 1]; None where neither
    the configuration nor the module has them. The module, and a last layer that is new, are drawn with ``seed``.

    Raises:
        ConfigError: it cannot be imported or made, its weights do not fit, or its last layer is not known.

    Example:
        >>> sizes = {"in_features": 4, "out_features": 9}
        >>> config = NetworkConfig(module="torch.nn:Linear", module_args=sizes, input_shape=(1, 8, 8), classes=3)
        >>> load_backbone(config, seed=0)[0]
        Linear(in_features=4, out_features=3, bias=True)
    """
    assert config.classes is not None
    module = _from_timm(config, seed) if config.backbone is not None else _from_function(config, seed)
    normalization = _normalization(config, module)
    name = _last_layer(module, config)
    if config.weights is not None:
        load_weights(module, Path(config.weights).expanduser(), name)
    return _with_classes(module, name, config.classes, seed), normalization


def attach_backbone(config: NetworkConfig, seed: int | None = None) -> tuple[Attached, bool]:
    """The network of :func:`load_backbone` with exits at ``network.exits_at``, and whether it has a normalization.

    Raises:
        ConfigError: as :func:`load_backbone`, or there are no such places for exits.
    """
    module, normalization = load_backbone(config, seed)
    assert config.input_shape is not None
    places = () if config.kind == "full" else config.exits_at
    assert places is not None
    mean, std = normalization or (None, None)
    try:
        network = attach_exits(
            module,
            places,
            example=torch.rand(2, *config.input_shape, generator=generator(0, "example")),
            exit=config.exit,
            seed=seed,
            mean=mean,
            std=std,
        )
    except InputError as error:
        keys = {"at:": "network.exits_at:", "module:": f"{_source(config).partition(':')[0]}:"}
        parts = [text.partition(" ") for text in error.problems]
        raise ConfigError(*(f"{keys.get(word, word)} {rest}" for word, _, rest in parts)) from error
    return network, normalization is not None


def _source(config: NetworkConfig) -> str:
    key, value = ("module", config.module) if config.backbone is None else ("backbone", config.backbone)
    return f"network.{key}: got '{value}'"


def _from_timm(config: NetworkConfig, seed: int | None) -> nn.Module:
    assert config.backbone is not None
    name = config.backbone.removeprefix("timm/")
    try:
        import timm
    except (ImportError, RuntimeError) as error:  # a RuntimeError: a torchvision that is not made for this torch
        raise ConfigError(
            f"{_source(config)}; accepted: with the package timm, which cannot be imported ({first_line(error)}); "
            "install it with: pip install 'ramify[timm]'"
        ) from error
    if not timm.is_model(name):
        near = nearest(config.backbone, [f"timm/{each}" for each in timm.list_models()])
        raise ConfigError(f"{_source(config)}; accepted: a name that timm knows{near}")
    channels = 3 if config.input_shape is None else config.input_shape[0]
    try:
        with drawing(seed, "module"):
            model: object = timm.create_model(
                name, pretrained=bool(config.pretrained), num_classes=config.classes, in_chans=channels
            )
    except Exception as error:  # whatever the hub or the model raises
        raise ConfigError(
            f"{_source(config)}, which timm cannot make ({first_line(error)}); accepted: a model whose weights can "
            "be had, or network.pretrained=false"
        ) from error
    assert isinstance(model, nn.Module)
    return model


def _from_function(config: NetworkConfig, seed: int | None) -> nn.Module:
    """Import the user's function, from the current folder too, and call it."""
    assert config.module is not None
    place, _, name = config.module.partition(":")
    with _importing_from(Path.cwd()):
        try:
            file = importlib.import_module(place)
        except Exception as error:  # whatever the file does when it is imported
            raise ConfigError(
                f"{_source(config)}, whose file cannot be imported ({first_line(error)}); accepted: "
                "package.file:function in the folder where ramify is started, or on PYTHONPATH"
            ) from error
        function = getattr(file, name, None)
        if not callable(function):
            public = [key for key, value in vars(file).items() if callable(value) and not key.startswith("_")]
            raise ConfigError(f"{_source(config)}; accepted: a function that {place} has{nearest(name, public, 0)}")
        try:
            with drawing(seed, "module"):
                module = function(**dict(config.module_args))
        except Exception as error:  # whatever the function does
            raise ConfigError(
                f"{_source(config)}, which fails ({type(error).__name__}: {first_line(error)}); accepted: a function "
                "that network.module_args are arguments of and that gives a torch.nn.Module"
            ) from error
    if not isinstance(module, nn.Module):
        raise ConfigError(f"{_source(config)}, which gives a {type(module).__name__}; accepted: a torch.nn.Module")
    return module


@contextlib.contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    entry = str(folder)
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(entry)


# The last layer.

_PASSING = (nn.Dropout, nn.Dropout2d, nn.Flatten, nn.Identity, nn.ReLU, nn.AdaptiveAvgPool2d, nn.AvgPool2d)
_METHODS = frozenset({"view", "reshape", "flatten", "squeeze", "mean", "contiguous"})
_FUNCTIONS = frozenset(
    {torch.flatten, torch.squeeze, torch.mean, F.dropout, F.relu, F.adaptive_avg_pool2d, F.avg_pool2d}
)


class _Tracer(fx.Tracer):
    """Layers with weights stay whole, those of subclasses of PyTorch's too."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, nn.Linear | nn.Conv2d) or super().is_leaf_module(m, module_qualified_name)


def _last_layer(module: nn.Module, config: NetworkConfig) -> str:
    """The name of the layer of ``module`` that makes the logits."""
    try:
        with keeping_modes(module):
            graph = _Tracer().trace(module.eval())
    except Exception as error:  # whatever its forward raises when it meets a symbol
        raise ConfigError(
            f"{_source(config)}, which torch.fx cannot trace ({first_line(error)}); accepted: a module whose forward "
            "has no if, loop or number that depends on the values of its input"
        ) from error
    name, obstacle = logits_layer(module, graph)
    if name is None:
        raise ConfigError(
            f"{_source(config)}, whose logits come from {obstacle}; accepted: a module that ends in a linear layer or "
            "a 1x1 convolution"
        )
    return name


def logits_layer(root: nn.Module, graph: fx.Graph) -> tuple[str | None, str]:
    """The name of the linear layer or 1x1 convolution that makes the output of ``graph``; else None and what makes it.

    Example:
        >>> net = fx.symbolic_trace(nn.Sequential(nn.Flatten(), nn.Linear(4, 2), nn.Dropout()))
        >>> logits_layer(net, net.graph)
        ('1', '')
    """
    modules = dict(root.named_modules())
    [output] = [node for node in graph.nodes if node.op == "output"]
    node = output.args[0]
    while isinstance(node, fx.Node):
        layer = modules.get(str(node.target)) if node.op == "call_module" else None
        if node.op == "call_function" and node.target in (F.linear, torch.conv2d, F.conv2d):
            weight = node.args[1] if len(node.args) > 1 else node.kwargs.get("weight")
            if isinstance(weight, fx.Node) and weight.op == "get_attr":
                owner = str(weight.target).rpartition(".")[0]
                node, layer = weight, modules.get(owner)
                if _makes_logits(layer):
                    return owner, ""
            return None, f"the operation {node.name}"
        if _makes_logits(layer):
            return str(node.target), ""
        passing = {"call_method": _METHODS, "call_function": _FUNCTIONS}.get(node.op, frozenset[object]())
        if not node.args or not (isinstance(layer, _PASSING) or node.target in passing):
            operation = f"the operation {node.name}" if layer is None else f"{type(layer).__name__} {node.target!r}"
            return None, operation
        node = node.args[0]
    return None, f"a {type(node).__name__}"


def trunk_of(network: Branching) -> frozenset[str]:
    """The names of the parameters of a trained network: all but those of the exits and of the last layer.

    Example:
        >>> from ramify.nn.attach import attach_exits
        >>> own = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
        >>> network = attach_exits(own, ["1"], example=torch.rand(1, 1, 8, 8))
        >>> sorted(name.rpartition(".")[2] for name in trunk_of(network))
        ['bias', 'weight']
    """
    heads = [stage.get_submodule("exit") for stage in network.stages if getattr(stage, "exit", None) is not None]
    for body in network.stages[-1].modules():
        if isinstance(body, fx.GraphModule):
            name, _ = logits_layer(body, body.graph)
            heads += [] if name is None else [body.get_submodule(name)]
    learned = {id(parameter) for head in heads for parameter in head.parameters()}
    return frozenset(name for name, parameter in network.named_parameters() if id(parameter) not in learned)


def _makes_logits(layer: nn.Module | None) -> bool:
    if isinstance(layer, nn.Conv2d):
        return layer.kernel_size == (1, 1) and layer.groups == 1
    return isinstance(layer, nn.Linear)


def _with_classes(module: nn.Module, name: str, classes: int, seed: int | None) -> nn.Module:
    """``module`` with ``classes`` logits; its last layer is drawn where it makes another number."""
    layer = module.get_submodule(name)
    with drawing(seed, "head"):
        fresh: nn.Linear | nn.Conv2d
        if isinstance(layer, nn.Linear) and layer.out_features != classes:
            fresh = nn.Linear(layer.in_features, classes, layer.bias is not None)
        elif isinstance(layer, nn.Conv2d) and layer.out_channels != classes:
            fresh = nn.Conv2d(layer.in_channels, classes, 1, bias=layer.bias is not None)
        else:
            return module
        nn.init.normal_(fresh.weight, std=0.01)
        if fresh.bias is not None:
            nn.init.zeros_(fresh.bias)
    fresh.train(layer.training)
    if not name:
        return fresh
    module.set_submodule(name, fresh)
    return module


# Weights and normalization.


def load_weights(module: nn.Module, path: Path, last: str) -> None:
    """Load a .safetensors file, or a state dict by ``torch.save``, into ``module``; nothing else is unpickled.

    The weights of the layer ``last`` may be missing, or for other classes.

    Raises:
        ConfigError: the file cannot be read, or its names or shapes are not those of ``module``.
    """
    weights = _read_weights(path)
    own = module.state_dict()
    for prefix in _PREFIXES:
        if not own.keys() & weights.keys() and all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    ends = {f"{last}.{leaf}".removeprefix(".") for leaf in ("weight", "bias")}
    odd = {name for name in own.keys() & weights.keys() if own[name].shape != weights[name].shape}
    if odd & ends:
        odd -= ends
        weights = {name: value for name, value in weights.items() if name not in ends}
    optional = ends | {name for name in own if name.endswith("num_batches_tracked")}
    missing, surplus = own.keys() - weights.keys() - optional, weights.keys() - own.keys() - ends
    faults = (("misses {}", missing), ("has {} too many", surplus), ("has other shapes of {}", odd))
    problems = [text.format(_first_names(names)) for text, names in faults if names]
    if problems:
        raise ConfigError(
            f"network.weights: got {path}, which {' and '.join(problems)}; accepted: the weights of this network"
        )
    with torch.no_grad():
        for name, value in weights.items():
            if name in own:
                own[name].copy_(value)


def _first_names(names: set[str]) -> str:
    first = sorted(names)[:3]
    return ", ".join(first) + (f" and {len(names) - len(first)} more" if len(names) > len(first) else "")


def _read_weights(path: Path) -> dict[str, Tensor]:
    accepted = "accepted: a .safetensors file, or a state dict that torch.save wrote"
    try:
        state: object = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except FileNotFoundError:
        raise ConfigError(f"network.weights: got {path}, which does not exist; {accepted}") from None
    except (OSError, SafetensorError, UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        why = "it holds more than tensors" if isinstance(error, UnpicklingError) else first_line(error)
        raise ConfigError(f"network.weights: got {path}, which cannot be read ({why}); {accepted}") from error
    for key in _NESTED:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ConfigError(f"network.weights: got {path}, which holds no state dict; {accepted}")
    return {str(name): value for name, value in state.items()}


def _normalization(config: NetworkConfig, module: nn.Module) -> Normalization | None:
    """The normalization of the pictures: as ``network.normalization`` says, or else as the module does."""
    assert config.input_shape is not None
    channels = config.input_shape[0]
    key = config.normalization
    if key == "data":
        return None
    if key == "none":
        return (0.0,) * channels, (1.0,) * channels
    pair = IMAGENET if key == "imagenet" else _own_normalization(module, channels) if key is None else key
    if pair is None or {len(numbers) for numbers in pair} == {channels}:
        return pair
    if key is None:
        return None
    raise ConfigError(
        f"network.normalization: got {len(pair[0])} means and {len(pair[1])} deviations; accepted: {channels} "
        "each, as the pictures have so many channels"
    )


def _own_normalization(module: nn.Module, channels: int) -> Normalization | None:
    """From timm's settings or attributes ``mean`` and ``std``; a module with such buffers normalizes by itself."""
    buffers = dict(module.named_buffers(recurse=False))
    if "mean" in buffers and "std" in buffers:
        return (0.0,) * channels, (1.0,) * channels
    settings = getattr(module, "pretrained_cfg", None)
    if not isinstance(settings, Mapping):
        settings = {name: getattr(module, name, None) for name in ("mean", "std")}
    mean, std = (_numbers(settings.get(name)) for name in ("mean", "std"))
    return None if mean is None or std is None or not all(value > 0 for value in std) else (mean, std)


def _numbers(setting: object) -> tuple[float, ...] | None:
    values = setting.flatten().tolist() if isinstance(setting, Tensor) else setting
    if not isinstance(values, Sequence) or isinstance(values, str):
        return None
    return tuple(float(value) for value in values) if all(isinstance(value, int | float) for value in values) else None
