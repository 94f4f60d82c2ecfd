"""A network as ONNX graphs: all exits, one graph that stops early, and one graph for each stage.

``torch.onnx.export`` (the dynamo exporter) writes them and folds batch norm into the convolution before it. What it
leaves behind is then tidied: see :func:`tidy`.
"""

import contextlib
import inspect
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ramify.answer.needs import need
from ramify.exporting.graphs import OneStage
from ramify.nn.branching import Branching

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

OPSET = 20
"""Of the ONNX operators; runtimes from 2024 on have it (ONNX Runtime from 1.17)."""

ALL_EXITS, EARLY_EXIT = "all_exits.onnx", "early_exit.onnx"
EARLY_OUTPUTS = ("classes", "confidence", "exits", "ran")
JUDGED = ("classes", "confidence", "leaves")
"""What a stage's graph gives beside its trunk and logits."""


def stage_file(at: int) -> str:
    """The name of the file of stage ``at``, from 0."""
    return f"stages/{at}.onnx"


@dataclass(frozen=True)
class Graphs:
    """The same network in three shapes.

    Attributes:
        all_exits: ``images`` float32 ``[batch, C, H, W]`` in [0, 1] to ``logits`` float32 ``[E, batch, classes]``.
        early_exit: ``images`` to ``classes`` int64, ``confidence`` float32 and ``exits`` int64, each ``[batch]``, and
            ``ran`` int64 ``[E]``, 1 for each stage that was executed.
        stages: the first takes ``images``, the others ``trunk``, the first output of the one before; each gives
            ``trunk_out`` (a name stands for one value in a graph; the last gives none), ``logits`` float32
            ``[batch, classes]``, and what the exit policy makes of them: ``classes`` int64, ``confidence`` float32 and
            ``leaves`` bool, each ``[batch]``. All but the last take ``threshold`` too, a float32 number: a picture
            leaves where its confidence is at least that (the policy's are in ``ramify.json``; 2 for null, never). In
            a cascade all but the first take ``before``, the logits that the one before gave; where the policy asks
            what earlier exits have answered they take ``seen``, float32 ``[exits before, batch, classes]``.
    """

    all_exits: "ModelProto"
    early_exit: "ModelProto"
    stages: "tuple[ModelProto, ...]"

    @property
    def files(self) -> "dict[str, ModelProto]":
        """Each graph by the name of its file."""
        stages = {stage_file(at): stage for at, stage in enumerate(self.stages)}
        return {ALL_EXITS: self.all_exits, EARLY_EXIT: self.early_exit} | stages


def example(input_shape: Sequence[int]) -> Tensor:
    """Pictures to export with: two, as of a batch of one the exporter would take the size for a constant."""
    return torch.zeros(2, *input_shape)


def to_stages(network: Branching, input_shape: Sequence[int]) -> "tuple[ModelProto, ...]":
    """The graphs of the stages of ``network``, which :func:`ramify.exporting.graphs.plain` has made.

    As in :class:`Graphs`, but without what the policy makes of them: :func:`ramify.exporting.join.join_stages` adds
    that.

    Raises:
        InputError: onnx or onnxscript is not installed.
    """
    need("onnx", "onnxscript")
    given: tuple[Tensor, ...] = (example(input_shape),)
    count = len(network.stages)
    stages: list[ModelProto] = []
    for at in range(count):
        last = at + 1 == count
        stage = OneStage(network, at)
        outputs = ["logits"] if last else ["trunk_out", "logits"]
        stages.append(to_onnx(stage, given, stage.inputs, outputs))
        if not last:
            given = stage(*given)[: 2 if network.cascade else 1]
    return tuple(stages)


def to_onnx(
    module: nn.Module,
    given: Tensor | tuple[Tensor, ...],
    inputs: Sequence[str],
    outputs: Sequence[str],
    batch: Mapping[str, int] | None = None,
) -> "ModelProto":
    """One graph, tidied and checked against the rules of ONNX.

    ``batch`` says which axis of an input is the batch, where it has one; None: the first of each.
    """
    import onnx

    with quiet():
        axes = None if batch is None else [batch.get(name) for name in inputs]
        program = to_program(module, given if isinstance(given, tuple) else (given,), axes)
        exported = torch.onnx.export(
            program, input_names=inputs, output_names=outputs, opset_version=OPSET, dynamo=True, verbose=False
        )
    assert exported is not None
    model = exported.model_proto
    tidy(model)
    onnx.checker.check_model(model)
    return model


def to_program(
    module: nn.Module, given: tuple[Tensor, ...], axes: Sequence[int | None] | None = None
) -> torch.export.ExportedProgram:
    """What ``torch.export`` makes of ``module`` for batches of any size; ``axes``: which is the batch of each input."""
    batch = torch.export.Dim("batch", min=1)
    each = [{} if axis is None else {axis: batch} for axis in axes or (0,) * len(given)]
    # By name; what a ``*given`` takes is one tuple under its name.
    named = inspect.signature(module.forward).bind(*given).arguments
    shapes = {name: tuple(each) if isinstance(value, tuple) else each.pop(0) for name, value in named.items()}
    return torch.export.export(module.eval(), given, dynamic_shapes=shapes, strict=False)


def tidy(model: "ModelProto") -> None:
    """Take out of ``model`` what the exporter leaves behind, and put every weight where it is used.

    - The exporter's own name for the size of a batch.
    - Notes on where in the source each operation came from, with the paths of the machine that exported.
    - Weights that no operation reads any more, of which ONNX Runtime warns.
    - A weight that is read in one branch of an ``If`` alone moves into that branch. ONNX Runtime rearranges the weights
      of a convolution for the processor when it loads a graph, but only those of the same graph: this takes a third off
      the time of a picture that goes through all stages.
    """
    del model.metadata_props[:]
    dims = [dim for each in model.graph.input for dim in each.type.tensor_type.shape.dim]
    symbol = next(dim.dim_param for dim in dims if dim.dim_param)
    _strip(model.graph, symbol)
    _sink(model.graph)


def _branches(graph: "GraphProto") -> "list[GraphProto]":
    return [attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")]


def _strip(graph: "GraphProto", symbol: str) -> None:
    graph.doc_string = ""
    del graph.metadata_props[:]
    for item in [*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer]:
        item.doc_string = ""
        del item.metadata_props[:]
    for value in [*graph.input, *graph.output, *graph.value_info]:
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param == symbol:
                size.dim_param = "batch"
    for branch in _branches(graph):
        _strip(branch, symbol)


def _sink(graph: "GraphProto") -> None:
    branches = _branches(graph)
    wanted = [_read(branch) for branch in branches]
    here = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    for weight in list(graph.initializer):
        readers = [branch for branch, names in zip(branches, wanted, strict=True) if weight.name in names]
        if weight.name in here or len(readers) > 1:
            continue
        for branch in readers:
            branch.initializer.append(weight)
        graph.initializer.remove(weight)
    for branch in branches:
        _sink(branch)


def _read(graph: "GraphProto") -> set[str]:
    """The names that ``graph`` reads, those of its branches included."""
    names = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    return names.union(*(_read(branch) for branch in _branches(graph)))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep to itself what the exporters say of their own workings: of torchvision, of trees, of shared constants."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    # The torch.onnx loggers have levels of their own, so that of a parent does not reach them.
    loggers += [logging.getLogger("torch.onnx._internal.exporter._registration")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
