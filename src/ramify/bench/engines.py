"""Engines that compute a network: PyTorch in three ways and ONNX Runtime in two.

:func:`prepare` exports and quantizes once; :func:`open_engines` then opens every engine for a number of threads.
"""

import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from ramify.answer.answerer import Answerer, OnnxAnswerer, TorchAnswerer
from ramify.answer.card import (
    CARD,
    CARD_FORMAT,
    ExportCard,
    ExportedExit,
    ExportedFiles,
    ExportedPolicy,
    Precision,
    card_text,
)
from ramify.answer.runtime import Runtime
from ramify.errors import InputError
from ramify.exporting.graphs import plain
from ramify.exporting.onnx import stage_file, to_stages
from ramify.exporting.quantize import quantize_stages
from ramify.files import write_atomic
from ramify.needs import missing
from ramify.nn.branching import Branching
from ramify.ops.exits.policy import Policy
from ramify.ops.fold import Folded, fold
from ramify.run.latency import up_to
from ramify.version import __version__

if TYPE_CHECKING:
    from onnx import ModelProto

ENGINES: Mapping[str, str] = {
    "eager": "PyTorch, folded: batch norms and masks multiplied into the layers",
    "plain": "PyTorch, the network as it was trained",
    "compiled": "PyTorch, folded, each stage through torch.compile",
    "onnx": "ONNX Runtime, a float32 graph for each stage",
    "int8": "ONNX Runtime, an int8 graph for each stage",
}
"""Every engine by its name; results are relative to the first that is timed."""

_RECOMPILE_LIMIT = 256
"""Stages share their code, and each is compiled for one picture and for several: PyTorch's limit of 8 is too low."""


class Answered(NamedTuple):
    """Answers to B pictures: ``classes`` and ``exits``, both int64 ``[B]``."""

    classes: Tensor
    exits: Tensor


@dataclass(frozen=True)
class Engine:
    """One network in one engine.

    Attributes:
        ready: puts images float32 ``[B, C, H, W]`` in [0, 1] into the memory format that this engine reads fastest.
        at_exit: logits ``[B, classes]`` of such images at an exit, from 0; no later stage is computed.
        by_policy: answers of the exit policy.
    """

    ready: Callable[[Tensor], Tensor]
    at_exit: Callable[[Tensor, int], Tensor]
    by_policy: Callable[[Tensor], Answered]


def torch_engine(network: Branching, policy: Policy) -> Engine:
    """A network in PyTorch on the CPU, with the threads of the process."""
    network.eval()

    def at_exit(images: Tensor, exit_: int) -> Tensor:
        with torch.inference_mode():
            if not isinstance(network, Folded) or len(images) <= network.piece:
                return up_to(network, images, exit_ + 1)
            return torch.cat([up_to(network, part, exit_ + 1) for part in images.split(network.piece)])

    def by_policy(images: Tensor) -> Answered:
        prediction = network.predict(images, policy)
        return Answered(prediction.classes, prediction.exits)

    return Engine(lambda images: images.contiguous(memory_format=torch.channels_last), at_exit, by_policy)


def onnx_engine(folder: Path, threshold: float | None, threads: int) -> Engine:
    """An exported network in ONNX Runtime."""
    runtime = Runtime(folder, threads, threshold)

    def at_exit(images: Tensor, exit_: int) -> Tensor:
        return torch.from_numpy(runtime.logits(images.numpy(), exit_ + 1)[exit_])

    def by_policy(images: Tensor) -> Answered:
        answers = runtime.predict(images.numpy())
        return Answered(torch.from_numpy(answers.classes), torch.from_numpy(answers.exits))

    return Engine(Tensor.contiguous, at_exit, by_policy)


def engines_of(subject: Answerer) -> tuple[str, ...]:
    """The engines that can compute it; an exported folder has one."""
    if isinstance(subject, TorchAnswerer):
        return tuple(ENGINES)
    return ("int8",) if subject.card.precision == "int8" else ("onnx",)


Openers = Mapping[str, Callable[[int], Engine]]
"""Opens an engine for a number of threads; PyTorch's number is set already."""


@contextmanager
def prepare(subject: Answerer, names: Sequence[str], calibration: Tensor) -> Iterator[tuple[Openers, dict[str, str]]]:
    """Prepare the engines called ``names``: openers, and the reasons for those that are left out.

    Args:
        subject: to compute.
        names: among :func:`engines_of` it.
        calibration: pictures for int8, float32 ``[N, C, H, W]`` in [0, 1].
    """
    left_out = {name: reason for name in names if (reason := _obstacle(name, subject)) is not None}
    able = [name for name in names if name not in left_out]
    openers: dict[str, Callable[[int], Engine]] = {}
    threshold = subject.threshold if isinstance(subject, OnnxAnswerer) else None
    with tempfile.TemporaryDirectory(prefix="ramify-bench-") as folder:
        if isinstance(subject, TorchAnswerer):
            network, policy = subject.network, subject.policy
            openers["eager"] = lambda _: torch_engine(fold(network), policy)
            openers["plain"] = lambda _: torch_engine(network, policy)
            openers["compiled"] = lambda _: torch_engine(compiled(network), policy)
        for name, exported in _exports(subject, able, calibration, Path(folder)).items():
            openers[name] = partial(onnx_engine, exported, threshold)
        yield {name: openers[name] for name in able}, left_out


@contextmanager
def open_engines(
    openers: Openers, threads: int, pictures: Tensor, left_out: dict[str, str]
) -> Iterator[dict[str, Engine]]:
    """Every engine, with ``threads`` threads, also as PyTorch's number within the block.

    Args:
        openers: of :func:`prepare`.
        threads: of each engine.
        pictures: a few to try the compiler with, float32 ``[N, C, H, W]`` in [0, 1].
        left_out: reasons by engine; an engine that fails is added.

    Raises:
        InputError: none can be opened.
    """
    previous = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        opened: dict[str, Engine] = {}
        for name, opener in openers.items():
            engine = opener(threads)
            if name == "compiled":
                # Otherwise every call would first check the code compiled for other numbers of threads.
                torch.compiler.reset()
                try:
                    with compiling():
                        engine.by_policy(engine.ready(pictures))
                except RuntimeError as error:  # the base of what the compiler raises
                    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
                    left_out[name] = f"torch.compile failed ({' '.join(lines[:2])[:200] or type(error).__name__})"
                    continue
            opened[name] = engine
        if not opened:
            reasons = "; ".join(f"{name} {reason}" for name, reason in left_out.items())
            raise InputError(f"engines: got {', '.join(left_out)}, and all are left out: {reasons}")
        yield opened
    finally:
        torch.set_num_threads(previous)


def compiled(network: Branching) -> Folded:
    """A folded copy whose stages are compiled at their first calls, which :func:`compiling` surrounds."""
    folded = fold(network)
    folded.stages = nn.ModuleList(_to_compile(stage) for stage in folded.stages)
    return folded


def _to_compile(module: nn.Module) -> nn.Module:
    # Without fullgraph, unsupported parts would run eagerly and count as compiled.
    compiled_module = torch.compile(module, dynamic=True, fullgraph=True)
    assert isinstance(compiled_module, nn.Module)
    return compiled_module


@contextmanager
def compiling() -> Iterator[None]:
    """Allow as many compiled stages as there are, without the compiler's warnings."""
    import torch._dynamo

    with torch._dynamo.config.patch(recompile_limit=_RECOMPILE_LIMIT), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _exports(subject: Answerer, names: Sequence[str], calibration: Tensor, folder: Path) -> dict[str, Path]:
    """The exported folders for the engines in ``names`` that need one."""
    names = [name for name in names if name in ("onnx", "int8")]
    if isinstance(subject, OnnxAnswerer):
        return dict.fromkeys(names, subject.folder)
    if not names:
        return {}
    stages = to_stages(plain(subject.network))
    for name in names:
        graphs = quantize_stages(stages, calibration) if name == "int8" else stages
        write_stages(folder / name, subject, graphs, "int8" if name == "int8" else "float32")
    return {name: folder / name for name in names}


def write_stages(folder: Path, subject: TorchAnswerer, stages: "Sequence[ModelProto]", precision: Precision) -> None:
    """Write stages and card for :class:`ramify.answer.runtime.Runtime`."""
    from ramify.exporting.join import judged_stages

    network = subject.network
    graphs = judged_stages(stages, subject.policy)
    files = tuple(stage_file(at) for at in range(len(graphs)))
    for file, graph in zip(files, graphs, strict=True):
        write_atomic(folder / file, graph.SerializeToString())
    card = ExportCard(
        format=CARD_FORMAT,
        ramify=__version__,
        name=subject.name,
        shape="folder",
        stage=None,
        precision=precision,
        input_shape=subject.input_shape,
        mean=tuple(network.mean.tolist()),
        std=tuple(network.std.tolist()),
        classes=subject.classes,
        exits=tuple(ExportedExit(0, macs, 0, None, None) for macs in subject.macs),
        policy=ExportedPolicy(
            **vars(subject.policy), calibrated=False, description=subject.description, certificate=None
        ),
        files=ExportedFiles("", "", files),
        epoch=0,
    )
    write_atomic(folder / CARD, card_text(card).encode())


def _obstacle(name: str, subject: Answerer) -> str | None:
    """Why an engine cannot be prepared here, if that is known without trying."""
    if name in ("onnx", "int8"):
        exporter = ("onnx", "onnxscript") if isinstance(subject, TorchAnswerer) else ()
        return missing("export", *exporter, "onnxruntime")
    if name == "compiled" and not _compiler():
        return "needs a C++ compiler, and none was found"
    return None


def _compiler() -> bool:
    """Whether torch.compile finds a C++ compiler."""
    default = {"win32": "cl", "darwin": "clang++"}.get(sys.platform, "g++")
    return shutil.which(os.environ.get("CXX") or default) is not None
