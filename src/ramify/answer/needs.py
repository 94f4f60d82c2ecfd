"""Optional packages: an error that names the extra to install where one is missing."""

import importlib.util
from typing import TYPE_CHECKING

from ramify.errors import CheckpointError, InputError

if TYPE_CHECKING:
    from onnx import ModelProto


def missing(extra: str, *packages: str) -> str | None:
    """How to install the first of ``packages`` (import names) that is not installed; None if all are.

    Example:
        >>> missing("export", "torch", "no_such")
        "needs the package no-such; install it with: pip install 'ramify[export]'"
    """
    for name in packages:
        if importlib.util.find_spec(name) is None:
            return f"needs the package {name.replace('_', '-')}; install it with: pip install 'ramify[{extra}]'"
    return None


def need(extra: str, *packages: str) -> None:
    """Check that ``packages`` of an extra are installed, without importing them.

    Raises:
        InputError: one is missing.
    """
    sentence = missing(extra, *packages)
    if sentence is not None:
        raise InputError(f"{extra}: {sentence}")


def parse_onnx(content: bytes, where: str) -> "ModelProto":
    """The ONNX model in ``content``, read from ``where``.

    Raises:
        CheckpointError: it is cut or damaged.
        InputError: onnx is not installed.
    """
    need("export", "onnx")
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise CheckpointError(
            f"{where}: is no ONNX file, or a damaged one; accepted: one that ramify export wrote"
        ) from error
    # A file cut between two fields still parses, without its last fields.
    if not model.graph.node or not model.opset_import:
        raise CheckpointError(f"{where}: is a damaged ONNX file; accepted: one that ramify export wrote")
    return model
