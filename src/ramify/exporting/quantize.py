"""int8: weights and activations as whole numbers of 8 bits, their ranges taken from pictures.

Each stage is quantized alone, with what the stage before it gives for the calibration pictures, and
:mod:`ramify.exporting.join` puts the stages together. So all three shapes are one network: ONNX Runtime's quantizer
does not enter the branches of an ``If``.
"""

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ramify.answer.needs import need
from ramify.exporting.check import BATCH, stage_runner

if TYPE_CHECKING:
    from onnx import ModelProto

CALIBRATION = 512
"""Training pictures that the ranges of the activations are taken from."""


class Batches:
    """The calibration batches of the inputs, in the form that ONNX Runtime asks for them."""

    def __init__(self, names: Sequence[str], batches: Sequence[Sequence[Tensor]]) -> None:
        self.names = names
        self.waiting = list(batches)

    def get_next(self) -> "dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]] | None":
        if not self.waiting:
            return None
        return {name: each.numpy() for name, each in zip(self.names, self.waiting.pop(0), strict=False)}


def quantize_stages(stages: "Sequence[ModelProto]", pictures: Tensor) -> "tuple[ModelProto, ...]":
    """The stages in int8: static, in QDQ form, each output channel of a weight with a scale of its own.

    Weights take 7 bits: with 8, processors without the VNNI instructions overflow while they sum.

    Args:
        stages: in float32.
        pictures: for calibration, float32 ``[N, C, H, W]`` in [0, 1].

    Raises:
        InputError: onnx or onnxruntime is not installed.
    """
    need("onnx", "onnxruntime")
    batches = [[batch] for batch in pictures.split(BATCH)]
    found: list[ModelProto] = []
    for stage in stages:
        found.append(_quantized(stage, batches))
        run = stage_runner(stage.SerializeToString())
        batches = [run(*batch) for batch in batches]
    return tuple(found)


def _quantized(stage: "ModelProto", batches: Sequence[Sequence[Tensor]]) -> "ModelProto":
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder, _quiet():
        ready, done = str(Path(folder, "ready.onnx")), str(Path(folder, "done.onnx"))
        # Only shapes: the graph is optimised already, and a second time would tie it to this processor.
        quant_pre_process(stage, ready, skip_optimization=True, skip_symbolic_shape=True)
        # From a concatenation in int8 and a pooling behind it, ONNX Runtime's fused kernels compute other numbers.
        joins = [node.name for node in onnx.load(ready).graph.node if node.op_type == "Concat"]
        quantize_static(
            ready,
            done,
            Batches([each.name for each in stage.graph.input], batches),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=joins,
        )
        return onnx.load(done)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the quantizer's advice, which goes through the root logger."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
