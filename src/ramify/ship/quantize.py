"""int8: weights and activations as whole numbers of 8 bits, their ranges taken from pictures.

Each stage is quantized alone, with what the stage before it gives for the calibration pictures, and
:mod:`ramify.ship.join` puts the stages together. So all three shapes are one network: ONNX Runtime's quantizer does not
enter the branches of an ``If``.
"""

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ramify.ship.check import BATCH, runner
from ramify.ship.needs import need

if TYPE_CHECKING:
    from onnx import ModelProto

CALIBRATION = 512
"""Training pictures that the ranges of the activations are taken from."""


class Batches:
    """The calibration batches of one input, in the form that ONNX Runtime asks for them."""

    def __init__(self, name: str, batches: Sequence[Tensor]) -> None:
        self.name = name
        self.waiting = list(batches)

    def get_next(self) -> "dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]] | None":
        return {self.name: self.waiting.pop(0).numpy()} if self.waiting else None


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
    batches = list(pictures.split(BATCH))
    found: list[ModelProto] = []
    for at, stage in enumerate(stages):
        name = "images" if at == 0 else "trunk"
        found.append(_quantized(stage, name, batches))
        run = runner(stage.SerializeToString(), name)
        batches = [run(batch)[0] for batch in batches]
    return tuple(found)


def _quantized(stage: "ModelProto", name: str, batches: Sequence[Tensor]) -> "ModelProto":
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder, _quiet():
        ready, done = str(Path(folder, "ready.onnx")), str(Path(folder, "done.onnx"))
        # Only shapes: the graph is optimised already, and a second time would tie it to this processor.
        quant_pre_process(stage, ready, skip_optimization=True, skip_symbolic_shape=True)
        quantize_static(
            ready,
            done,
            Batches(name, batches),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
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
