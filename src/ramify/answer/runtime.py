"""Answers from an exported folder with numpy and ONNX Runtime alone.

``ramify export NAME --to onnx`` writes the folder: ``ramify.json`` describes the network and its exit policy, and
``stages/0.onnx`` and so on compute one stage each. A stage only runs on the pictures that are still undecided.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ramify.answer.card import NEVER, read_card, read_exported_file
from ramify.data.decode import Reading
from ramify.errors import InputError, RunError, first_line
from ramify.needs import need
from ramify.shortage import usable_threads

Floats = npt.NDArray[np.float32]
Wholes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Answers:
    """Answers to B pictures, each from the exit where it left.

    Attributes:
        classes: int64 ``[B]``.
        confidence: float32 ``[B]`` in [0, 1].
        exits: int64 ``[B]``, from 0.
        milliseconds: of the whole call.
        ran: for each stage, how many pictures it computed.
    """

    classes: Wholes
    confidence: Floats
    exits: Wholes
    milliseconds: float
    ran: tuple[int, ...]


class Session(Protocol):
    """What is used of ``onnxruntime.InferenceSession``."""

    def run(
        self, output_names: Sequence[str] | None, input_feed: Mapping[str, npt.NDArray[np.generic]]
    ) -> Sequence[npt.NDArray[np.generic]]: ...

    def get_inputs(self) -> "Sequence[Named]": ...


class Named(Protocol):
    """What is used of an input of a graph."""

    @property
    def name(self) -> str: ...


class Runtime:
    """A network exported by ``ramify export NAME --to onnx``, which answers early.

    The graphs compute logits, confidences and decisions. A picture leaves at another exit than in PyTorch only where
    its confidence is within rounding of a threshold. Several threads may use one runtime at once.

    Args:
        folder: with ``ramify.json`` and ``stages/``.
        threads: for each graph; None: ONNX Runtime takes every core.
        threshold: in [0, 1]; a picture leaves at the first exit whose confidence reaches it, in place of the thresholds
            in the folder.

    Attributes:
        card: the content of ``ramify.json``.
        name, classes, input_shape, reading, description, macs: see :class:`ramify.answer.answerer.TorchAnswerer`.

    Raises:
        InputError: the folder or a file in it is missing, damaged or of a later format, ONNX Runtime is not installed,
            or ``threads`` or ``threshold`` is out of range.

    Example:
        >>> from ramify.answer.runtime import Runtime
        >>> Runtime("no/folder")
        Traceback (most recent call last):
            ...
        ramify.errors.CheckpointError: no/folder: is missing; accepted: an exported folder or file
    """

    def __init__(self, folder: str | Path, threads: int | None = None, threshold: float | None = None) -> None:
        if threads is not None:
            check_threads(threads)
        card = read_card(Path(folder))
        if not card.files.stages:
            raise InputError(f"{folder}: holds PyTorch programs; accepted: a folder of ramify export --to onnx")
        self.folder, self.threshold = Path(folder), threshold
        self.card = card if threshold is None else card.at_threshold(threshold)
        self.name, self.classes, self.input_shape = card.name, card.classes, card.input_shape
        self.reading = Reading(background=card.background, range=card.range)
        self.description = self.card.policy.description
        self.macs = tuple(exit_.macs for exit_ in card.exits)
        self._paths = [self.folder / name for name in card.files.stages]
        self._stages = [_open(path, threads) for path in self._paths]
        self._inputs = [tuple(graph_input.name for graph_input in stage.get_inputs()) for stage in self._stages]
        for path, inputs in zip(self._paths, self._inputs, strict=True):
            if not set(inputs) <= {"images", "trunk", "before", "seen", "threshold"}:
                raise InputError(f"{path}: reads {', '.join(inputs)}; accepted: a stage that ramify export wrote")

    def predict(self, pictures: Floats) -> Answers:
        """Answer each picture at the first exit where the policy lets it leave.

        Args:
            pictures: float32 ``[B, C, H, W]`` in [0, 1], or one ``[C, H, W]``.

        Raises:
            InputError: they are not that.
            RunError: ONNX Runtime fails on them.
        """
        batch = check_batch(pictures, self.input_shape)
        began = time.perf_counter()
        count = len(batch)
        classes, exits = np.zeros(count, np.int64), np.zeros(count, np.int64)
        confidence = np.zeros(count, np.float32)
        undecided = np.arange(count)
        ran = [0] * len(self._stages)
        trunk, seen = batch, np.zeros((0, count, len(self.classes)), np.float32)
        asks_earlier = any({"seen", "before"} & set(inputs) for inputs in self._inputs)
        for at in range(len(self._stages)) if count else ():
            ran[at] = len(undecided)
            out = self._stage(at, trunk, seen)
            leaving = undecided[out.leaves]
            classes[leaving], confidence[leaving] = out.classes[out.leaves], out.confidence[out.leaves]
            exits[leaving] = at
            if len(leaving) == len(undecided):
                break
            trunk = out.trunk
            if asks_earlier:
                seen = np.concatenate((seen, out.logits[None]))
            if len(leaving):
                stay = ~out.leaves
                trunk, seen, undecided = trunk[stay], seen[:, stay], undecided[stay]
        return Answers(classes, confidence, exits, 1000 * (time.perf_counter() - began), tuple(ran))

    def logits(self, pictures: Floats, exits: int | None = None) -> Floats:
        """The logits of every exit, float32 ``[E, B, classes]``, or of the first ``exits`` of them.

        Other arguments and errors are as in :meth:`predict`.
        """
        trunk = check_batch(pictures, self.input_shape)
        seen = np.zeros((0, len(trunk), len(self.classes)), np.float32)
        for at in range(len(self._stages) if exits is None else exits):
            out = self._stage(at, trunk, seen)
            trunk, seen = out.trunk, np.concatenate((seen, out.logits[None]))
        return seen

    def _stage(self, at: int, trunk: Floats, seen: Floats) -> "_StageOutput":
        """Run stage ``at``; ``seen [at, B, C]`` are the logits of the exits before."""
        last, path = at == len(self._stages) - 1, self._paths[at]
        threshold = None if last else self.card.policy.thresholds[at]
        tensors = {
            "images": trunk,
            "trunk": trunk,
            "before": seen[-1] if len(seen) else seen,
            "seen": seen,
            "threshold": np.array(NEVER if threshold is None else threshold, np.float32),
        }
        names = [*([] if last else ["trunk_out"]), "logits", "classes", "confidence", "leaves"]
        try:
            outputs = self._stages[at].run(names, {name: tensors[name] for name in self._inputs[at]})
        except _faults() as error:
            raise RunError(
                f"{path}: ONNX Runtime failed on {len(trunk)} pictures ({first_line(error)[:160]})"
            ) from error
        *before, logits, classes, confidence, leaves = outputs
        output = _StageOutput(
            before[0].astype(np.float32, copy=False) if before else trunk,
            logits.astype(np.float32, copy=False),
            classes.astype(np.int64, copy=False),
            confidence.astype(np.float32, copy=False),
            leaves.astype(np.bool_, copy=False),
        )
        if output.logits.shape != (len(trunk), len(self.classes)):
            raise InputError(
                f"{path}: gave logits of shape {list(output.logits.shape)}; accepted: [{len(trunk)}, "
                f"{len(self.classes)}], one for each picture and class of ramify.json"
            )
        return output


class _StageOutput(NamedTuple):
    """See :class:`ramify.exporting.onnx.Graphs`."""

    trunk: Floats
    logits: Floats
    classes: Wholes
    confidence: Floats
    leaves: npt.NDArray[np.bool_]


def check_threads(threads: int) -> int:
    """``threads``, or the number of processors if that is less.

    Raises:
        InputError: it is below 1.
    """
    if threads < 1:
        raise InputError(f"threads: got {threads}; accepted: a whole number >= 1")
    return usable_threads(threads)[0]


def check_batch(pictures: Floats, shape: tuple[int, int, int]) -> Floats:
    """One picture or a batch as a contiguous batch ``[B, *shape]``.

    Raises:
        InputError: they have another shape or type, or values outside [0, 1].
    """
    accepted = f"accepted: float32 of shape [pictures, {', '.join(map(str, shape))}] with values in [0, 1]"
    if not isinstance(pictures, np.ndarray):
        raise InputError(f"pictures: got {type(pictures).__name__}; {accepted}, a numpy array")
    batch = pictures[None] if pictures.ndim == 3 else pictures
    if pictures.dtype != np.float32 or batch.shape[1:] != shape or batch.ndim != 4:
        raise InputError(f"pictures: got {pictures.dtype} of shape {list(pictures.shape)}; {accepted}")
    if len(batch):
        low, high = float(batch.min()), float(batch.max())
        if not (low >= 0 and high <= 1):  # also where one is NaN
            got = "values that are not numbers" if math.isnan(low + high) else f"values from {low:g} to {high:g}"
            raise InputError(f"pictures: got {got}; {accepted}")
    return np.ascontiguousarray(batch)


def _open(path: Path, threads: int | None) -> Session:
    try:
        content = read_exported_file(path)
    except OSError as error:
        raise InputError(
            f"{path}: is missing or cannot be read; accepted: the file that ramify export wrote"
        ) from error
    return opened(content, str(path), threads)


def opened(content: bytes, where: str, threads: int | None = None) -> Session:
    """A session on the CPU for the graph in ``content``, read from ``where``.

    Raises:
        InputError: ONNX Runtime is not installed, or the graph is damaged.
    """
    need("export", "onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # failures are raised as well
    options.inter_op_num_threads = 1  # a stage is a chain
    if threads is not None:
        options.intra_op_num_threads = usable_threads(threads)[0]
    try:
        session: Session = onnxruntime.InferenceSession(
            content, sess_options=options, providers=["CPUExecutionProvider"]
        )
    except _faults() as error:
        damage = f"is damaged or cut short ({first_line(error)[:160]})"
        raise InputError(f"{where}: {damage}; accepted: the file as ramify export wrote it") from error
    return session


def _faults() -> tuple[type[Exception], ...]:
    """The exceptions of ONNX Runtime, which have no common base."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return (
        state.Fail,
        state.InvalidArgument,
        state.InvalidGraph,
        state.InvalidProtobuf,
        state.NoSuchFile,
        state.NotImplemented,
        state.RuntimeException,
        state.EPFail,
        ValueError,
    )
