"""int8: weights and activations of 8 bits, with ranges taken from pictures.

Each stage is quantized alone, on what the stage before it gives for the calibration pictures;
:mod:`ramify.exporting.join` puts the stages together. All three shapes are thus one network: ONNX Runtime's quantizer
does not enter the branches of an ``If``.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from torch import Tensor

from ramify.data.pictures import Part
from ramify.exporting.check import BATCH, runner
from ramify.exporting.graphs import plain
from ramify.exporting.onnx import quiet, to_stages
from ramify.needs import need
from ramify.nn.branching import Branching
from ramify.run.evaluate import to_float

if TYPE_CHECKING:
    from onnx import ModelProto

CALIBRATION = 512
"""Training pictures that the ranges of the activations are taken from."""

_PICTURES = 64
"""The same for :func:`int8_bytes`, as the size does not depend on them."""


def quantize_stages(stages: "Sequence[ModelProto]", pictures: Tensor) -> "tuple[ModelProto, ...]":
    """The stages in int8: static, in QDQ form, with a scale for each output channel of a weight.

    Weights take 7 bits: with 8, sums overflow on processors without the VNNI instructions.

    Args:
        stages: in float32.
        pictures: for calibration, float32 ``[N, C, H, W]`` in [0, 1].

    Raises:
        InputError: onnx or onnxruntime is not installed.
    """
    need("export", "onnx", "onnxruntime")
    batches: list[list[Tensor]] = [[batch] for batch in pictures.split(BATCH)]
    quantized: list[ModelProto] = []
    for stage in stages:
        quantized.append(_quantized(stage, batches))
        run = runner(stage.SerializeToString())
        batches = [run(*batch) for batch in batches]
    return tuple(quantized)


def _quantized(stage: "ModelProto", batches: Sequence[Sequence[Tensor]]) -> "ModelProto":
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    names = [graph_input.name for graph_input in stage.graph.input]
    feeds = ({name: tensor.numpy() for name, tensor in zip(names, batch, strict=False)} for batch in batches)
    with tempfile.TemporaryDirectory() as folder, quiet():
        prepared, done = str(Path(folder, "prepared.onnx")), str(Path(folder, "done.onnx"))
        # Only shapes: the graph is optimized already, and a second time would tie it to this processor.
        quant_pre_process(stage, prepared, skip_optimization=True, skip_symbolic_shape=True)
        # For an int8 concatenation with a pooling behind it, ONNX Runtime's fused kernels compute other numbers.
        joins = [node.name for node in onnx.load(prepared).graph.node if node.op_type == "Concat"]
        quantize_static(
            prepared,
            done,
            SimpleNamespace(get_next=lambda: next(feeds, None)),  # what is used of a CalibrationDataReader
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=joins,
        )
        return onnx.load(done)


def int8_bytes(network: Branching, valid: Part) -> float:
    """Size of the ``all_exits.onnx`` that ``ramify export --quantize int8`` writes, without its card.

    Args:
        network: on any device, in evaluation mode.
        valid: pictures that it accepts.

    Raises:
        InputError: onnx or onnxruntime is not installed.
    """
    need("export", "onnx", "onnxscript", "onnxruntime")
    from ramify.exporting.join import all_exits

    pictures = to_float(valid[:_PICTURES].images.cpu()).contiguous()
    return float(all_exits(quantize_stages(to_stages(plain(network)), pictures)).ByteSize())
