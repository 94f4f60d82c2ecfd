"""What computes a network: PyTorch in three ways and ONNX Runtime in two, asked for each exit or for the policy alike.

An engine is opened for a number of threads. What takes long and does not depend on them, exporting and quantizing, is
done once, by :func:`prepare`.
"""

import importlib.util
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

from ramify.answer.card import (
    CARD,
    CARD_FORMAT,
    ExportCard,
    ExportedExit,
    ExportedFiles,
    Precision,
    card_text,
    exported_policy,
    is_exported,
)
from ramify.answer.runtime import Runtime
from ramify.exporting.graphs import plain
from ramify.exporting.join import judged_stages
from ramify.exporting.onnx import stage_file, to_stages
from ramify.exporting.quantize import quantize_stages
from ramify.files import write_atomic
from ramify.nn.branching import Branching
from ramify.ops.cost import cost
from ramify.ops.exits.policy import Policy
from ramify.ops.fold import Folded, fold
from ramify.run.choice import choose_policy
from ramify.run.latency import up_to
from ramify.run.saved import read_saved
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
"""Every engine by its name. The first that takes part is the one that others are compared to."""

_RECOMPILE_LIMIT = 256
"""Stages share their code, and each is compiled for one picture and for several: PyTorch's 8 are soon used up."""


class Found(NamedTuple):
    """What the policy made of B pictures: ``classes`` and ``exits``, both int64 ``[B]``."""

    classes: Tensor
    exits: Tensor


@dataclass(frozen=True)
class Engine:
    """One network in one engine.

    Attributes:
        ready: gives images float32 ``[B, C, H, W]`` in [0, 1] in the memory format that this engine reads fastest.
        at_exit: of such images and an exit, from 0, gives its logits ``[B, classes]``; no stage behind it is computed.
        by_policy: gives the answers, each from the exit where its picture leaves.
    """

    ready: Callable[[Tensor], Tensor]
    at_exit: Callable[[Tensor, int], Tensor]
    by_policy: Callable[[Tensor], Found]


def torch_engine(network: Branching, policy: Policy) -> Engine:
    """A network in PyTorch on the processor, with as many threads as the process has."""
    network.eval()

    def at_exit(images: Tensor, exit_: int) -> Tensor:
        with torch.inference_mode():
            if not isinstance(network, Folded) or len(images) <= network.piece:
                return up_to(network, images, exit_ + 1)
            return torch.cat([up_to(network, some, exit_ + 1) for some in images.split(network.piece)])

    def by_policy(images: Tensor) -> Found:
        found = network.predict(images, policy)
        return Found(found.classes, found.exits)

    return Engine(lambda images: images.contiguous(memory_format=torch.channels_last), at_exit, by_policy)


def onnx_engine(folder: Path, threshold: float | None, threads: int) -> Engine:
    """An exported network in ONNX Runtime."""
    runtime = Runtime(folder, threads, threshold)

    def by_policy(images: Tensor) -> Found:
        found = runtime.predict(images.numpy())
        return Found(torch.from_numpy(found.classes), torch.from_numpy(found.exits))

    return Engine(
        Tensor.contiguous,
        lambda images, exit_: torch.from_numpy(runtime.logits(images.numpy(), exit_ + 1)[exit_]),
        by_policy,
    )


@dataclass(frozen=True)
class BenchSubject:
    """What is measured: a saved network and the policy that it answers by, or an exported folder.

    Attributes:
        name: of the run, or of the folder.
        input_shape: (C, H, W) of the pictures that it reads.
        macs: multiply-accumulates of answering at each exit.
        description: which policy, in one sentence.
        network: the network and its policy as PyTorch has them; None of an exported folder.
        folder: the exported one.
        engines: those that can compute it: of an exported folder only the one that it was exported for.
        threshold: in place of those that an exported folder has.
    """

    name: str
    input_shape: tuple[int, int, int]
    macs: tuple[int, ...]
    description: str
    network: tuple[Branching, Policy] | None = None
    folder: Path | None = None
    engines: tuple[str, ...] = tuple(ENGINES)
    threshold: float | None = None


def find_subject(name_or_folder: str | Path, runs_dir: str | Path, threshold: float | None) -> BenchSubject:
    """The network called ``name_or_folder``; arguments and errors as :func:`ramify.answer.answerer.answerer`."""
    folder = Path(name_or_folder)
    if is_exported(folder):
        runtime = Runtime(folder, threshold=threshold)
        known = runtime.card
        macs = tuple(each.macs for each in known.exits)
        engines = ("int8",) if known.precision == "int8" else ("onnx",)
        return BenchSubject(known.name, known.input_shape, macs, runtime.description, None, folder, engines, threshold)
    network, card = read_saved(name_or_folder, runs_dir)
    chosen = choose_policy(card, threshold)
    assert card.network.input_shape is not None
    macs = tuple(each.macs for each in cost(network))
    return BenchSubject(
        folder.resolve().name, card.network.input_shape, macs, chosen.description, (network, chosen.policy)
    )


Openers = Mapping[str, Callable[[int], Engine]]
"""Opens an engine for a number of threads; for PyTorch that number is the process's, and set already."""


@contextmanager
def prepare(
    subject: BenchSubject, names: Sequence[str], calibration: Tensor
) -> Iterator[tuple[Openers, dict[str, str]]]:
    """Make ready the engines called ``names``: openers, and why the others are left out, as their packages are missing.

    Args:
        subject: what they compute.
        names: of :data:`ENGINES`, all of them among ``subject.engines``.
        calibration: pictures for int8, float32 ``[N, C, H, W]`` in [0, 1].
    """
    left_out = {name: why for name in names if (why := _what_is_missing(name, subject)) is not None}
    able = [name for name in names if name not in left_out]
    openers: dict[str, Callable[[int], Engine]] = {}
    with tempfile.TemporaryDirectory(prefix="ramify-bench-") as folder:
        if subject.network is not None:
            network, policy = subject.network
            openers["eager"] = lambda _: torch_engine(fold(network), policy)
            openers["plain"] = lambda _: torch_engine(network, policy)
            openers["compiled"] = lambda _: torch_engine(compiled(network), policy)
        for name, exported in _exports(subject, able, calibration, Path(folder)).items():
            openers[name] = partial(onnx_engine, exported, subject.threshold)
        yield {name: openers[name] for name in able}, left_out


def open_engines(openers: Openers, threads: int, pictures: Tensor) -> tuple[dict[str, Engine], dict[str, str]]:
    """Every engine with ``threads`` threads, and those that fail, with the reason; PyTorch's number is set as well.

    Args:
        openers: of :func:`prepare`.
        threads: how many.
        pictures: a few, float32 ``[N, C, H, W]`` in [0, 1], to try the compiler with.
    """
    torch.set_num_threads(threads)
    opened: dict[str, Engine] = {}
    failed: dict[str, str] = {}
    for name, opener in openers.items():
        engine = opener(threads)
        if name == "compiled":
            # Code that was compiled for another number of threads would be asked first at every call.
            torch.compiler.reset()
            try:
                with compiling():
                    engine.by_policy(engine.ready(pictures))
            except RuntimeError as error:  # the base of what the compiler raises
                failed[name] = f"torch.compile failed ({_first_line(error)})"
                continue
        opened[name] = engine
    return opened, failed


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:200] or type(error).__name__


def compiled(network: Branching) -> Folded:
    """A folded copy whose stages torch.compile makes at the first call for one picture and for several.

    Those first calls are made within :func:`compiling`.
    """
    made = fold(network)
    made.stages = nn.ModuleList(_to_compile(stage) for stage in made.stages)
    return made


def _to_compile(module: nn.Module) -> nn.Module:
    # Without fullgraph, what cannot be compiled would be computed eagerly and still be called compiled.
    found = torch.compile(module, dynamic=True, fullgraph=True)
    assert isinstance(found, nn.Module)
    return found


@contextmanager
def compiling() -> Iterator[None]:
    """Where first calls are made: as many stages may be compiled as there are, and in silence."""
    import torch._dynamo

    with torch._dynamo.config.patch(recompile_limit=_RECOMPILE_LIMIT), warnings.catch_warnings():
        # Of the compiler's own workings; nothing that a user of it could change.
        warnings.simplefilter("ignore")
        yield


def _exports(subject: BenchSubject, names: Sequence[str], calibration: Tensor, folder: Path) -> dict[str, Path]:
    """The folders of the exported networks of the engines in ``names`` that compute one."""
    wanted = [name for name in names if name in ("onnx", "int8")]
    if subject.folder is not None:
        return dict.fromkeys(wanted, subject.folder)
    if not wanted or subject.network is None:
        return {}
    stages = to_stages(plain(subject.network[0]), subject.input_shape)
    for name in wanted:
        graphs = quantize_stages(stages, calibration) if name == "int8" else stages
        write_stages(folder / name, subject, graphs, "int8" if name == "int8" else "float32")
    return {name: folder / name for name in wanted}


def write_stages(folder: Path, subject: BenchSubject, stages: "Sequence[ModelProto]", precision: Precision) -> None:
    """Write what :class:`ramify.answer.runtime.Runtime` reads: the stages with the policy in them, and their card."""
    assert subject.network is not None
    network, policy = subject.network
    graphs = judged_stages(stages, policy)
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
        classes=tuple(map(str, range(network.classes))),
        exits=tuple(ExportedExit(0, macs, 0, None, None) for macs in subject.macs),
        policy=exported_policy(policy, calibrated=False, description=subject.description),
        files=ExportedFiles("", "", files),
        epoch=0,
    )
    write_atomic(folder / CARD, card_text(card).encode())


def _what_is_missing(name: str, subject: BenchSubject) -> str | None:
    """Why an engine cannot be made ready here, as far as that shows without trying; None: it can."""
    needed: tuple[str, ...] = ()
    if name in ("onnx", "int8"):
        needed = ("onnxruntime",) if subject.folder is not None else ("onnx", "onnxscript", "onnxruntime")
    for package in needed:
        if importlib.util.find_spec(package) is None:
            return f"needs the package {package}; install it with: pip install 'ramify[export]'"
    if name == "compiled" and not _compiler():
        return "needs a C++ compiler, and none was found"
    return None


def _compiler() -> bool:
    """Whether there is a program that torch.compile would call for the processor."""
    usual = {"win32": "cl", "darwin": "clang++"}.get(sys.platform, "g++")
    return shutil.which(os.environ.get("CXX") or usual) is not None
