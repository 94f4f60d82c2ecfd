"""Weights & Biases: the events of a run as ``wandb`` takes them."""

import importlib
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ramify.errors import InputError
from ramify.run.events import Event, Finished, Started, StepDone
from ramify.show.trackers.scalars import scalars, sentence_of, settings

if TYPE_CHECKING:
    import wandb

WANDB_FOLDER = "wandb"
"""The folder of W&B in the folder of a run."""

_PATIENCE = 30
"""Seconds that W&B may take to begin."""


class WandbLog:
    """An observer that logs to W&B: ``ramify.train(config, [WandbLog()])``.

    The figures are those of :func:`ramify.show.trackers.scalars.scalars`, by epoch, with the configuration, the final
    figures and a table of growths, widenings and prunings. A resumed run is the same run in W&B: its id is kept in
    ``wandb/id`` in the run's folder. ``WANDB_MODE=offline`` needs no network.

    Args:
        project: where W&B shows the run.
        notice: called with the address of the run.

    Attributes:
        failures: errors of a call where W&B cannot be reached or the disk is full.

    Raises:
        InputError: the package wandb is missing, or there is no log-in.
    """

    def __init__(self, project: str = "ramify", notice: Callable[[str], None] | None = None) -> None:
        try:
            package = importlib.import_module("wandb")
        except ImportError as error:
            raise InputError(
                f"--track wandb: needs the package wandb ({error}); install it with: pip install 'ramify[wandb]'"
            ) from None
        try:
            package.login()
        except package.errors.Error as error:
            raise InputError(f"--track wandb: {error} Or set WANDB_MODE=offline") from None
        self.failures: tuple[type[Exception], ...] = (package.errors.Error, OSError)
        self._project, self._notice = project, notice
        self._run: wandb.Run | None = None
        self._changes: list[list[object]] = []

    def __call__(self, event: Event) -> None:
        """Log ``event``.

        Raises:
            wandb.errors.Error, OSError: as W&B raises them.
        """
        if isinstance(event, StepDone):
            return
        if isinstance(event, Started):
            self._begin(event)
            return
        assert self._run is not None
        sentence = sentence_of(event)
        if isinstance(event, Finished):
            import wandb

            self._run.log({"changes": wandb.Table(columns=["epoch", "what"], data=self._changes)})
            self._run.summary.update(scalars(event))
            self._run.finish()
            self._run = None
            return
        if sentence is not None:
            self._changes.append([event.epoch, sentence])
        figures = scalars(event)
        if figures:
            self._run.log(figures, step=event.epoch)

    def _begin(self, event: Started) -> None:
        import wandb

        if self._run is not None:  # of a run that failed
            self._run.finish(exit_code=1)
        folder = Path(event.folder)
        name = folder / WANDB_FOLDER / "id"
        if not name.exists():
            name.parent.mkdir(exist_ok=True)
            name.write_text(uuid.uuid4().hex[:8], encoding="utf-8")
        self._changes = []
        # The terminal belongs to ramify.
        quietly = wandb.Settings(console="off", silent=True, init_timeout=_PATIENCE)
        self._run = wandb.init(
            project=self._project,
            name=event.name,
            id=name.read_text(encoding="utf-8"),
            resume="allow",
            dir=folder,
            config=dict(settings(event.config)),
            settings=quietly,
        )
        if self._notice is not None and not self._run.offline:
            self._notice(f"wandb: {self._run.url}")
