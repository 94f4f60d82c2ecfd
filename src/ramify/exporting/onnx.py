"""A network as ONNX graphs: all exits, one graph that stops early, and one graph for each stage.

``torch.onnx.export`` (the dynamo exporter) writes them and folds batch norm into the convolution before it;
:func:`tidy` cleans up after it.
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

from ramify.exporting.graphs import OneStage
from ramify.needs import need
from ramify.nn.branching import Branching

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 20
"""ONNX operator set; ONNX Runtime has it from 1.17 (2024)."""

ALL_EXITS, EARLY_EXIT = "all_exits.onnx", "early_exit.onnx"
EARLY_OUTPUTS = ("classes", "confidence", "exits", "ran")
JUDGED = ("classes", "confidence", "leaves")
"""Outputs of a stage graph besides its trunk and logits."""


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
        stages: the first reads ``images``, the others ``trunk``, the first output of the stage before. Outputs are
            ``trunk_out`` (not in the last stage), ``logits`` float32 ``[batch, classes]``, and the decision of the
            exit policy: ``classes`` int64, ``confidence`` float32 and ``leaves`` bool, each ``[batch]``. All but the
            last also read ``threshold``, a float32 number: a picture leaves where its confidence is at least that (the
            policy's are in ``ramify.json``; 2 for null, never). In a cascade all but the first read ``before``, the
            logits of the stage before; where the policy uses earlier exits they read ``seen``, float32
            ``[exits before, batch, classes]``.
    """

    all_exits: "ModelProto"
    early_exit: "ModelProto"
    stages: "tuple[ModelProto, ...]"


def to_stages(network: Branching) -> "tuple[ModelProto, ...]":
    """The stages of ``network``, made by :func:`ramify.exporting.graphs.plain`, as graphs.

    They are those of :class:`Graphs` without the exit policy, which :func:`ramify.exporting.join.join_stages` adds.

    Raises:
        InputError: onnx or onnxscript is not installed.
    """
    need("export", "onnx", "onnxscript")
    # The exporter would treat a batch size of one as a constant.
    inputs: tuple[Tensor, ...] = (network.blank(2),)
    graphs: list[ModelProto] = []
    for at in range(len(network.stages)):
        last = at + 1 == len(network.stages)
        stage = OneStage(network, at)
        graphs.append(to_onnx(stage, inputs, stage.inputs, ["logits"] if last else ["trunk_out", "logits"]))
        if not last:
            inputs = stage(*inputs)[: 2 if network.cascade else 1]
    return tuple(graphs)


def to_onnx(
    module: nn.Module,
    examples: tuple[Tensor, ...],
    inputs: Sequence[str],
    outputs: Sequence[str],
    batch: Mapping[str, int] | None = None,
) -> "ModelProto":
    """One graph, tidied and checked against the ONNX specification.

    ``batch`` is the batch axis of each input that has one; None: the first axis of every input.
    """
    import onnx

    with quiet():
        axes = None if batch is None else [batch.get(name) for name in inputs]
        program = to_program(module, examples, axes)
        exported = torch.onnx.export(
            program, input_names=inputs, output_names=outputs, opset_version=OPSET, dynamo=True, verbose=False
        )
    assert exported is not None
    model = exported.model_proto
    tidy(model)
    onnx.checker.check_model(model)
    return model


def to_program(
    module: nn.Module, examples: tuple[Tensor, ...], axes: Sequence[int | None] | None = None
) -> torch.export.ExportedProgram:
    """``module`` as a program for batches of any size; ``axes``: the batch axes of its inputs, by default the first."""
    batch = torch.export.Dim("batch", min=1)
    dynamic = [{} if axis is None else {axis: batch} for axis in axes or (0,) * len(examples)]
    # torch.export wants them by argument name; ``*arguments`` are one tuple.
    arguments = inspect.signature(module.forward).bind(*examples).arguments
    shapes = {name: tuple(dynamic) if isinstance(value, tuple) else dynamic.pop(0) for name, value in arguments.items()}
    return torch.export.export(module.eval(), examples, dynamic_shapes=shapes, strict=False)


def tidy(model: "ModelProto") -> None:
    """Clean up after the exporter, in place.

    - The batch axis gets the name ``batch``.
    - Notes with source paths of this machine are removed.
    - Weights that no operation reads are removed; ONNX Runtime warns of them.
    """
    graph = model.graph
    dims = [dim for graph_input in graph.input for dim in graph_input.type.tensor_type.shape.dim]
    symbol = next(dim.dim_param for dim in dims if dim.dim_param)
    for item in [model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer]:
        item.doc_string = ""
        del item.metadata_props[:]
    for value in [*graph.input, *graph.output, *graph.value_info]:
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param == symbol:
                size.dim_param = "batch"
    read = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    for weight in [weight for weight in graph.initializer if weight.name not in read]:
        graph.initializer.remove(weight)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the messages of the exporters and of the quantizer on their own workings."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
            yield
    finally:
        logging.disable(before)
