"""TensorBoard logs of a run: ``tensorboard --logdir runs`` shows every run side by side.

The records are written at once, in the thread of the run, and no file stays open between two events: an error is raised
where the run can report it, and a run that is killed leaves logs that are whole up to the epoch before.
"""

import importlib
import io
import math
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from ramify.config.read import to_yaml
from ramify.errors import InputError
from ramify.files import readable_folder, write_atomic
from ramify.nn.masked import masked_layers
from ramify.nn.network import Network
from ramify.run.checkpoint import read_model
from ramify.run.events import EpochDone, Event, Finished, Grew, Pruned, Started, StepDone, Widened
from ramify.show.trackers.network_picture import network_picture
from ramify.show.trackers.scalars import FINAL, main_settings, scalars, sentence_of

FOLDER = "tensorboard"
"""The folder of the logs in the folder of a run."""

PREFIX = "events.out.tfevents."
"""By which TensorBoard knows its files."""

EXIT = re.compile(r"(.+)/(exit_\d+)")
"""A figure of one exit; each exit is logged as a separate run, which puts them in one chart."""


class Proto(Protocol):
    """A message of Protocol Buffers."""

    def SerializeToString(self) -> bytes:  # noqa: N802 - their name
        ...


class TensorBoardLog:
    """An observer that writes TensorBoard logs: ``ramify.train(config, [TensorBoardLog()])``.

    - TIME SERIES: accuracy and loss of the exits, all in one chart; density of the stages; learning rate, pictures a
      second, gradient parity; stages and weights kept, where growths and prunings are steps.
    - TEXT: growths, widenings and prunings with their reasons; the configuration.
    - IMAGES: the network after every change, with the accuracy of each exit and the density of each stage.
    - HPARAMS: the configuration against the final figures, over all runs below ``--logdir``.

    A step is an epoch. A resumed run continues in the same folder, and records after its checkpoint are removed; not so
    in a ``folder`` of your own, where others may log too.

    Args:
        folder: where the logs are written; None for ``tensorboard/`` in the folder of the run.

    Raises:
        InputError: the package tensorboard is missing.
    """

    def __init__(self, folder: Path | None = None) -> None:
        try:
            importlib.import_module("torch.utils.tensorboard")
        except ImportError as error:
            raise InputError(
                f"--track tensorboard: needs the package tensorboard ({error}); "
                "install it with: pip install 'ramify[tensorboard]'"
            ) from None
        self._folder = folder
        self._place, self._file = Path(), ""
        self._planned = 0
        self._weights = 0
        self._changed = False

    def __call__(self, event: Event) -> None:
        """Log ``event``.

        Raises:
            OSError: the logs cannot be written.
        """
        if isinstance(event, StepDone):
            return
        if isinstance(event, Started):
            self._begin(event)
            return
        summaries: list[Proto] = []
        if isinstance(event, Grew):
            self._weights += event.growth.weights
        elif isinstance(event, Widened):
            self._weights += event.widening.weights
        elif isinstance(event, Pruned):
            self._weights += event.pruning.after - event.pruning.before
        elif isinstance(event, EpochDone):
            summaries += _made("scalar", "network/weights_kept", self._weights)
            if self._changed or event.epoch == event.epochs:
                summaries.append(_image("network", network_picture(event, self._planned)))
            self._changed = False
        elif isinstance(event, Finished):
            summaries.append(_made("hparams", {}, {})[2])
        sentence = sentence_of(event)
        if sentence is not None:
            summaries += _made("text", "changes", f"epoch {_epoch(event)}: {sentence}")
            self._changed = True
        self._write(_epoch(event), summaries, scalars(event))

    def _begin(self, event: Started) -> None:
        self._place = self._folder or Path(event.folder) / FOLDER
        begun = event.epoch > 0 and any(self._place.glob(f"{PREFIX}*"))
        if begun and self._folder is None:
            for path in self._place.rglob(f"{PREFIX}*"):
                _keep_up_to(path, event.epoch)
        # Files are read in the order of their names.
        self._file = f"{PREFIX}{time.time_ns()}"
        self._planned = event.config.network.exits
        self._weights = _weights_at(event)
        self._changed = True
        first: list[Proto] = []
        if not begun:
            configuration = to_yaml(event.config).replace("\n", "\n    ")
            first = [*_session_start(event), *_made("text", "configuration", f"    {configuration}")]
        self._write(0, first, {})

    def _write(self, step: int, summaries: Sequence[Proto], figures: Mapping[str, float]) -> None:
        """Add ``summaries`` and ``figures`` to the logs."""
        by_run: dict[str, list[Proto]] = {"": list(summaries)}
        for name, value in figures.items():
            of_exit = EXIT.fullmatch(name)
            tag, run = of_exit.groups() if of_exit else (name, "")
            if math.isfinite(value):
                by_run.setdefault(run, []).extend(_made("scalar", tag, value))
        for run, of_run in by_run.items():
            self._append(self._place / run / self._file, step, of_run)

    def _append(self, path: Path, step: int, summaries: Sequence[Proto]) -> None:
        from tensorboard.compat.proto import event_pb2  # type: ignore[import-untyped] # has no stubs

        now = time.time()
        events: list[Proto] = [event_pb2.Event(wall_time=now, step=step, summary=summary) for summary in summaries]
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            events.insert(0, event_pb2.Event(wall_time=now, file_version="brain.Event:2"))
        with path.open("ab") as file:
            file.write(_records(event.SerializeToString() for event in events))


def _records(events: Iterable[bytes]) -> bytes:
    """Events as they are in a file."""
    from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped] # no stubs

    content = io.BytesIO()
    writer = RecordWriter(content)
    for event in events:
        writer.write(event)
    return content.getvalue()


def _keep_up_to(path: Path, step: int) -> None:
    """Remove records after ``step``, and one that a kill left half written.

    ``SummaryWriter(purge_step=...)`` would not do: TensorBoard then drops numbers but no texts, and it writes in a
    thread, where a full disk goes unnoticed.
    """
    from tensorboard.backend.event_processing.event_file_loader import (  # type: ignore[import-untyped] # no stubs
        RawEventFileLoader,
    )
    from tensorboard.compat.proto import event_pb2

    kept = [raw for raw in RawEventFileLoader(str(path)).Load() if event_pb2.Event.FromString(raw).step <= step]
    if kept:
        write_atomic(path, _records(kept))
    else:
        path.unlink()


def _epoch(event: Event) -> int:
    assert not isinstance(event, Started)
    return event.summary.epochs if isinstance(event, Finished) else event.epoch


def _weights_at(event: Started) -> int:
    """Convolution and linear weights that are kept when the run begins or is resumed."""
    last = Path(event.folder) / "last"
    saved = readable_folder(last).exists()
    if not saved and event.config.network.has_backbone:
        return 0  # all of it is there from the start, not counted yet
    network = read_model(last)[0] if saved else Network(event.config.network, stages=event.stages, seed=0)
    return sum(int(layer.mask.sum()) for layer in masked_layers(network).values())


def _made(kind: str, *values: object) -> list[Proto]:
    """The summaries of PyTorch for a scalar, a text or hyperparameters; the last are three."""
    from torch.utils.tensorboard import summary

    made = getattr(summary, kind)(*values)
    return list(made) if isinstance(made, tuple) else [made]


def _image(name: str, png: tuple[bytes, int, int]) -> Proto:
    from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped] # has no stubs

    content, width, height = png
    image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=content)
    summary: Proto = Summary(value=[Summary.Value(tag=name, image=image)])
    return summary


def _session_start(event: Started) -> list[Proto]:
    # Booleans as text: they would be shown as 1.000 and 0.000.
    main = main_settings(event.config)
    chosen = {key: str(value).lower() if isinstance(value, bool) else value for key, value in main.items()}
    return _made("hparams", chosen, {f"final/{name}": 0.0 for name in FINAL})[:2]
