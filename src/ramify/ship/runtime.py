"""Answers from an exported folder where neither PyTorch nor a training run is: numpy and ONNX Runtime are enough.

``ramify export NAME --to onnx`` writes the folder: ``ramify.json`` says what the network is and by which policy it
answers, and ``stages/0.onnx`` and so on compute one stage each. A stage runs on the pictures alone that are still
undecided, so an easy picture costs as much as the exit it leaves at.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ramify.errors import InputError, RunError
from ramify.ship.exported import Exported, read_exported
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
        ran: for each stage, how many pictures its cells computed.
    """

    classes: Wholes
    confidence: Floats
    exits: Wholes
    milliseconds: float
    ran: tuple[int, ...]


class Session(Protocol):
    """What is used of ``onnxruntime.InferenceSession``."""

    def run(self, output_names: Sequence[str] | None, input_feed: Mapping[str, Floats]) -> list[Floats]: ...

    def get_inputs(self) -> "Sequence[Named]": ...


class Named(Protocol):
    """What is used of an input of a graph."""

    @property
    def name(self) -> str: ...


class Judged(NamedTuple):
    """What one exit makes of B pictures.

    ``classes`` int64 ``[B]``, ``confidence`` float32 ``[B]`` in [0, 1], and ``streak`` int64 ``[B]``: how many exits in
    a row, this one last, give that class.
    """

    classes: Wholes
    confidence: Floats
    streak: Wholes

    def of(self, pictures: npt.NDArray[np.bool_]) -> "Judged":
        """The same for some of the pictures."""
        return Judged(self.classes[pictures], self.confidence[pictures], self.streak[pictures])


class Runtime:
    """A network exported by ``ramify export NAME --to onnx``, which answers early.

    Logits are those of ONNX Runtime. From equal logits it decides as :class:`ramify.ops.policy.Policy` does, in
    float32: by patience, and at thresholds of 0 and None, always; by the other criteria the confidences agree to
    within 1e-6, so that a picture may leave at another exit only where its confidence is that near to a threshold.
    One runtime may answer several threads at once.

    Args:
        folder: with ``ramify.json`` and ``stages/``, or what was read of it.
        threads: for one graph at a time; None leaves it to ONNX Runtime, which takes every core.
        threshold: in [0, 1]; a picture leaves at the first exit whose highest probability reaches it, in place of the
            policy in the folder.

    Attributes:
        card: what the folder says of the network.
        told: by which policy it answers, in one sentence.

    Raises:
        InputError: the folder or a file in it is missing, damaged or of a later format, ONNX Runtime is not installed,
            or ``threads`` or ``threshold`` is out of range.

    Example:
        >>> from ramify.ship.runtime import Runtime
        >>> Runtime("no/such/folder")
        Traceback (most recent call last):
            ...
        ramify.errors.InputError: no/such/folder/ramify.json: is missing; accepted: a folder of ramify export --to onnx
    """

    def __init__(
        self, folder: str | Path | Exported, threads: int | None = None, threshold: float | None = None
    ) -> None:
        if threads is not None and threads < 1:
            raise InputError(f"threads: got {threads}; accepted: a whole number >= 1")
        card = folder if isinstance(folder, Exported) else read_exported(Path(folder))
        self.card = card if threshold is None else card.at_threshold(threshold)
        self.told = self.card.told
        self._stages = [_open(path, threads) for path in self.card.stages]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""
        return self.card.classes

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the pictures that it reads."""
        return self.card.input_shape

    def predict(self, pictures: Floats) -> Answers:
        """Answer each picture at the first exit that the policy lets it leave from.

        Args:
            pictures: float32 ``[B, C, H, W]`` in [0, 1], or one ``[C, H, W]``.

        Raises:
            InputError: they are not that.
            RunError: ONNX Runtime fails on them.
        """
        batch = self._checked(pictures)
        began = time.perf_counter()
        count = len(batch)
        classes, exits = np.zeros(count, np.int64), np.zeros(count, np.int64)
        confidence = np.zeros(count, np.float32)
        undecided = np.arange(count)
        ran = [0] * len(self._stages)
        trunk, logits, found = batch, None, _unasked(count)
        for at in range(len(self._stages)) if count else ():
            ran[at] = len(undecided)
            trunk, logits = self._stage(at, trunk, logits)
            found = self._judge(at, logits, found)
            leaves = self.leaves(at, found.confidence)
            if not leaves.any():
                continue
            leaving = undecided[leaves]
            classes[leaving], confidence[leaving], exits[leaving] = found.classes[leaves], found.confidence[leaves], at
            if len(leaving) == len(undecided):
                break
            stay = ~leaves
            trunk, logits, undecided, found = trunk[stay], logits[stay], undecided[stay], found.of(stay)
        return Answers(classes, confidence, exits, 1000 * (time.perf_counter() - began), tuple(ran))

    def logits(self, pictures: Floats, exits: int | None = None) -> Floats:
        """The logits of every exit, float32 ``[E, B, classes]``, or of the first ``exits`` of them.

        Other arguments and errors are as in :meth:`predict`.
        """
        trunk = self._checked(pictures)
        wanted = len(self._stages) if exits is None else exits
        found = np.zeros((wanted, len(trunk), len(self.card.classes)), np.float32)
        for at in range(wanted) if len(trunk) else ():
            trunk, found[at] = self._stage(at, trunk, found[at - 1] if at else None)
        return found

    def judge(self, logits: Floats) -> list[Judged]:
        """What each exit makes of ``logits`` ``[E, B, classes]``, whether or not a picture would have come so far."""
        found = [_unasked(logits.shape[1])]
        for at in range(len(logits)):
            found.append(self._judge(at, logits[at], found[-1]))
        return found[1:]

    def _checked(self, pictures: Floats) -> Floats:
        shape = self.card.input_shape
        accepted = f"accepted: float32 of shape [pictures, {', '.join(map(str, shape))}] with values in [0, 1]"
        if not isinstance(pictures, np.ndarray):
            raise InputError(f"pictures: got {type(pictures).__name__}; {accepted}, a numpy array")
        batch = pictures[None] if pictures.ndim == 3 else pictures
        if pictures.dtype != np.float32 or batch.shape[1:] != shape or batch.ndim != 4:
            raise InputError(f"pictures: got {pictures.dtype} of shape {list(pictures.shape)}; {accepted}")
        if len(batch):
            low, high = float(batch.min()), float(batch.max())
            if not (low >= 0 and high <= 1):  # also where one is not a number
                got = "values that are not numbers" if math.isnan(low + high) else f"values from {low:g} to {high:g}"
                raise InputError(f"pictures: got {got}; {accepted}")
        return np.ascontiguousarray(batch)

    def _stage(self, at: int, trunk: Floats, before: Floats | None) -> tuple[Floats, Floats]:
        last = at == len(self._stages) - 1
        names, path = (["logits"] if last else ["trunk_out", "logits"]), self.card.stages[at]
        feed = {"trunk" if at else "images": trunk}
        if before is not None and any(each.name == "before" for each in self._stages[at].get_inputs()):
            feed["before"] = before  # the stages form a cascade
        try:
            found = self._stages[at].run(names, feed)
        except _faults() as error:
            raise RunError(f"{path}: ONNX Runtime failed on {len(trunk)} pictures ({_first_line(error)})") from error
        if found[-1].shape != (len(trunk), len(self.card.classes)):
            raise InputError(
                f"{path}: gave logits of shape {list(found[-1].shape)}; accepted: [{len(trunk)}, "
                f"{len(self.card.classes)}], one for each picture and class of ramify.json"
            )
        return found[0], found[-1]

    def _judge(self, at: int, logits: Floats, before: Judged) -> Judged:
        classes = logits.argmax(axis=-1)
        streak = np.where(classes == before.classes, before.streak + 1, 1)
        if self.card.criterion == "patience":
            return Judged(classes, streak.astype(np.float32) / np.float32(len(self._stages)), streak)
        heat = 1.0 if self.card.temperatures is None else self.card.temperatures[at]
        return Judged(classes, _sure(logits, self.card.criterion, heat), streak)

    def leaves(self, at: int, confidence: Floats) -> npt.NDArray[np.bool_]:
        threshold = 0.0 if at == len(self._stages) - 1 else self.card.thresholds[at]
        if threshold is None:
            return np.zeros(len(confidence), np.bool_)
        return np.asarray(confidence >= np.float32(threshold))


def _unasked(count: int) -> Judged:
    """What is known of ``count`` pictures before the first exit."""
    return Judged(np.full(count, -1, np.int64), np.zeros(count, np.float32), np.zeros(count, np.int64))


def _sure(logits: Floats, criterion: str, heat: float) -> Floats:
    """The confidence of one exit, float32 ``[B]`` in [0, 1]: :func:`ramify.ops.policy.confidences` in numpy."""
    with np.errstate(all="ignore"):  # logits that are not finite make a confidence of 0
        p = softmax(logits, heat)
        if criterion == "max_probability":
            sure = p.max(axis=-1)
        elif criterion == "margin":
            highest = np.partition(p, -2, axis=-1)[:, -2:]
            sure = highest[:, 1] - highest[:, 0]
        else:
            entropy = -(p * np.log(np.where(p == 0, np.float32(1), p))).sum(axis=-1)
            sure = 1 - entropy / np.float32(math.log(p.shape[-1]))
        found: Floats = np.where(sure >= 0, np.minimum(sure, 1), np.float32(0))  # 0 also where it is not a number
    return found


def softmax(logits: Floats, heat: float = 1.0) -> Floats:
    """``softmax(logits / heat)`` over the last axis, in float32."""
    exponents = np.exp((logits - logits.max(axis=-1, keepdims=True)) / np.float32(heat))
    found: Floats = exponents / exponents.sum(axis=-1, keepdims=True)
    return found


def _open(path: Path, threads: int | None) -> Session:
    """The graph in ``path``, ready to run on the processor."""
    try:
        import onnxruntime
    except ImportError:
        raise InputError(
            "runtime: needs the package onnxruntime; install it with: pip install 'ramify[export]'"
        ) from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is raised as well
    options.inter_op_num_threads = 1  # a stage is a chain, nothing in it runs side by side
    if threads is not None:
        options.intra_op_num_threads = usable_threads(threads)[0]
    # Pruned weights folded into a norm can leave denormal numbers, which processors are slow at.
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    try:
        session: Session = onnxruntime.InferenceSession(
            path.read_bytes(), sess_options=options, providers=["CPUExecutionProvider"]
        )
    except OSError as error:
        raise InputError(
            f"{path}: is missing or cannot be read; accepted: the file that ramify export wrote"
        ) from error
    except _faults() as error:
        raise InputError(
            f"{path}: is damaged or cut short ({_first_line(error)}); accepted: the file as ramify export wrote it"
        ) from error
    return session


def _faults() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises: its errors have no base of their own."""
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


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:160] if text else type(error).__name__
