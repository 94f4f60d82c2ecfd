"""A saved network and everything that can be done with it: :func:`open`."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal, overload

from torch import Tensor

from ramify.answer.answerer import answerer
from ramify.answer.picture import find_pictures
from ramify.answer.predict import Predicted, predict_files
from ramify.data.fetch import Progress
from ramify.errors import InputError
from ramify.exporting.hub import write_hub
from ramify.exporting.write import Export, export
from ramify.nn.branching import Branching, Prediction
from ramify.ops.exits.policy import Combine, Fallback, Policy
from ramify.run.calibrate import calibrate_run
from ramify.run.checkpoint import Card, ExitPolicy
from ramify.run.choice import choose_policy
from ramify.run.folder import is_run
from ramify.run.readback import Measured, describe, remeasure
from ramify.run.saved import RUNS, find_saved, read_saved
from ramify.run.summary import Summary
from ramify.show.report.write import report


class Opened:
    """A run, or a saved network without a run; returned by :func:`open`.

    Attributes:
        folder: of the run or network.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __repr__(self) -> str:
        return f"ramify.open({str(self.folder)!r})"

    @property
    def name(self) -> str:
        """The name of the folder, which is that of the run."""
        return self.folder.resolve().name

    @cached_property
    def _saved(self) -> tuple[Branching, Card]:
        return read_saved(self.folder)

    @property
    def network(self) -> Branching:
        """The best network of the run, on the CPU and in evaluation mode."""
        return self._saved[0]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""
        return self._saved[1].classes

    @property
    def policy(self) -> Policy | None:
        """The calibrated exit policy, None without one."""
        policy = self._saved[1].policy
        return None if policy is None else policy.calibration.policy

    @property
    def summary(self) -> Summary:
        """The results of the run, or a description of the network."""
        return describe(self.folder)

    def evaluate(self, *overrides: str, trigger: bool = False, progress: Progress | None = None) -> Measured:
        """Measure every exit and the policy on the test pictures, as ``ramify evaluate`` does.

        Args:
            overrides: such as ``data.source=other_photos/``, which a network without a run needs.
            trigger: stamp every picture with the square of ``data.trigger``.
            progress: of a download.

        Raises:
            InputError: the pictures cannot be read, or have classes that the network does not know.
        """
        return remeasure(self.folder, overrides, trigger=trigger, progress=progress)

    @overload
    def predict(self, pictures: Tensor, threshold: float | None = None) -> Prediction: ...
    @overload
    def predict(
        self, pictures: str | Path | Sequence[str | Path], threshold: float | None = None
    ) -> list[Predicted | InputError]: ...

    def predict(
        self, pictures: Tensor | str | Path | Sequence[str | Path], threshold: float | None = None
    ) -> Prediction | list[Predicted | InputError]:
        """Classify pictures, each at the first exit whose confidence suffices; without a policy, at the last exit.

        Args:
            pictures: a tensor ``[B, C, H, W]`` in [0, 1]; or picture files and folders. A file that cannot be read
                yields its error.
            threshold: in [0, 1], in place of the calibrated thresholds.

        Raises:
            InputError: the tensor has values above 1, there is no such file, or ``threshold`` is out of range.
        """
        if isinstance(pictures, Tensor):
            network, card = self._saved
            return network.predict(pictures, choose_policy(card, threshold).policy)
        paths = [pictures] if isinstance(pictures, str | Path) else pictures
        files = find_pictures([Path(path) for path in paths])
        return list(predict_files(answerer(self.folder, threshold=threshold), files))

    def calibrate(
        self,
        *,
        max_drop: float | None = None,
        max_macs: float | None = None,
        max_latency_ms: float | None = None,
        criterion: str = "max_probability",
        confidence: float | None = None,
        against: str = "best",
        combine: Combine | None = None,
        fallback: Fallback = "last",
        survivors: bool = False,
        progress: Progress | None = None,
    ) -> ExitPolicy:
        """Choose the thresholds on the validation pictures of the run, see :func:`ramify.calibrate_run`."""
        policy = calibrate_run(
            self._run("calibrate"),
            max_drop=max_drop,
            max_macs=max_macs,
            max_latency_ms=max_latency_ms,
            criterion=criterion,
            confidence=confidence,
            against=against,
            combine=combine,
            fallback=fallback,
            survivors=survivors,
            progress=progress,
        )
        self.__dict__.pop("_saved", None)
        return policy

    def export(
        self,
        out: str | Path | None = None,
        *overrides: str,
        to: str = "onnx",
        quantize: Literal["int8"] | None = None,
        threshold: float | None = None,
        overwrite: bool = False,
        progress: Progress | None = None,
    ) -> Export | Path:
        """Export the network as :func:`ramify.export` does; ``hub`` is a model folder of :func:`ramify.write_hub`.

        Args:
            out: the folder to write; None: ``onnx``, ``onnx-int8``, ``torch`` or ``hub`` in that of the run.
            to: ``onnx`` graphs, ``torch`` programs, or ``hub``, which takes ``out`` and ``overwrite`` alone.

        Returns:
            The exported files, or the folder of ``hub``.

        Raises:
            InputError, RunError: as :func:`ramify.export` and :func:`ramify.write_hub`.
        """
        if to == "hub":
            if quantize is not None or threshold is not None or overrides:
                raise InputError("export: got more than out and overwrite with to='hub'; accepted: these two")
            return write_hub(self._run("export to a model folder"), out, overwrite=overwrite)
        return export(
            self.folder,
            out,
            to=to,
            quantize=quantize,
            threshold=threshold,
            overwrite=overwrite,
            overrides=overrides,
            progress=progress,
        )

    def report(self, out: str | Path | None = None, progress: Progress | None = None) -> Path:
        """Write the report of the run, one HTML page, and return its path; see :func:`ramify.report`."""
        return report(self._run("report"), out=out, progress=progress)

    def _run(self, action: str) -> Path:
        if not is_run(self.folder):
            raise InputError(f"{action}: got {self.folder}, a network that no run has made; accepted: a run")
        return self.folder


def open(name_or_folder: str | Path, runs_dir: str | Path = RUNS) -> Opened:  # noqa: A001 - ramify.open
    """The run called ``name_or_folder``, or a saved network.

    Args:
        name_or_folder: the name of a run or the path of its folder, a model folder of ``ramify export --to hub``, or a
            folder of :func:`ramify.save`.
        runs_dir: the folder of runs.

    Raises:
        InputError: there is none of these.

    Example:
        >>> import tempfile
        >>> import ramify
        >>> config = ramify.NetworkConfig(structure=(1, 0), kind="full_ic", input_shape=(1, 8, 8), classes=2)
        >>> with tempfile.TemporaryDirectory() as place:
        ...     saved = open(ramify.save(ramify.Network(config), f"{place}/mine", classes=["cat", "dog"]))
        ...     saved.classes, len(saved.network.stages), saved.policy
        (('cat', 'dog'), 2, None)
    """
    return Opened(find_saved(name_or_folder, runs_dir))
