"""The optional packages of an export: told in one sentence where one is missing."""

import importlib.util
from typing import TYPE_CHECKING

from ramify.errors import CheckpointError, InputError

if TYPE_CHECKING:
    from onnx import ModelProto


def need(*packages: str) -> None:
    """Make sure that ``packages`` are installed, without importing them.

    Raises:
        InputError: one is missing.

    Example:
        >>> need("torch")
    """
    for name in packages:
        if importlib.util.find_spec(name) is None:
            raise InputError(f"export: needs the package {name}; install it with: pip install 'ramify[export]'")


def parse_onnx(content: bytes, where: str) -> "ModelProto":
    """The ONNX model in ``content``, found at ``where``.

    Raises:
        CheckpointError: it is cut or damaged.
        InputError: onnx is not installed.
    """
    need("onnx")
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise CheckpointError(
            f"{where}: is no ONNX file, or a damaged one; accepted: one that ramify export wrote"
        ) from error
    # A file that was cut between two of its fields still parses; then it lacks those that come last.
    if not model.graph.node or not model.opset_import:
        raise CheckpointError(f"{where}: is a damaged ONNX file; accepted: one that ramify export wrote")
    return model
