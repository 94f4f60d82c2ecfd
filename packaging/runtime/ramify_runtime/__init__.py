"""Answers pictures from a network that ramify exported, with numpy, ONNX Runtime and Pillow."""

from ramify_runtime.answer.picture import find_pictures, read_file, read_picture
from ramify_runtime.answer.runtime import Answers, Runtime
from ramify_runtime.errors import InputError, RamifyError, RunError
from ramify_runtime.version import __version__

__all__ = [
    "Answers",
    "InputError",
    "RamifyError",
    "RunError",
    "Runtime",
    "__version__",
    "find_pictures",
    "read_file",
    "read_picture",
]
