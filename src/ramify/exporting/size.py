"""How large a network is once it is exported, without writing it."""

from ramify.answer.needs import need
from ramify.data.pictures import Part
from ramify.exporting.graphs import plain
from ramify.exporting.join import all_exits
from ramify.exporting.onnx import to_stages
from ramify.exporting.quantize import quantize_stages
from ramify.nn.branching import Branching
from ramify.run.evaluate import to_float

_PICTURES = 64
"""From which the ranges of the activations are taken; the size does not depend on them."""


def int8_bytes(network: Branching, valid: Part) -> float:
    """Bytes of ``all_exits.onnx`` that ``ramify export --quantize int8`` writes, but for the card in it.

    Args:
        network: on any device, in evaluation mode.
        valid: pictures that it accepts.

    Raises:
        InputError: onnx or onnxruntime is not installed.
    """
    need("onnx", "onnxscript", "onnxruntime")
    shape = network.input_shape
    pictures = to_float(valid.images[:_PICTURES].cpu()).contiguous()
    stages = quantize_stages(to_stages(plain(network), shape), pictures)
    return float(all_exits(stages).ByteSize())
