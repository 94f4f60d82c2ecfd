"""What an exporter receives and what it returns."""

from dataclasses import dataclass

from torch import Tensor

from ramify.answer.card import CARD_FORMAT, ExportCard, ExportedExit, ExportedFiles, Precision, exported_policy
from ramify.data.pictures import Part
from ramify.exporting.check import EarlyCheck
from ramify.nn.branching import Branching
from ramify.run.checkpoint import Card
from ramify.run.choice import ChosenPolicy
from ramify.run.summary import ExitSummary
from ramify.version import __version__


@dataclass(frozen=True)
class CheckedFile:
    """A file that was run.

    Attributes:
        file: its name in the folder; ``stages`` stands for all stage graphs together.
        bytes: its size.
        difference: the largest difference from the network, of a logit or, for the early-exit file, of a confidence.
    """

    file: str
    bytes: int
    difference: float


@dataclass(frozen=True)
class Subject:
    """A network to export, and the pictures to check the export with.

    Attributes:
        name: of the run.
        network: on the CPU, in float32 and evaluation mode, described by ``card``.
        twin: the same network in plain layers.
        chosen: the exit policy.
        exits: cost and accuracy of each exit.
        images: test pictures to run the files on, float32 ``[N, C, H, W]`` in [0, 1], with their ``logits``.
        test, train: all test and training pictures.
    """

    name: str
    network: Branching
    card: Card
    twin: Branching
    chosen: ChosenPolicy
    exits: tuple[ExitSummary, ...]
    images: Tensor
    logits: Tensor
    test: Part
    train: Part

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.network.input_shape
        return channels, height, width

    def card_for(self, files: ExportedFiles, precision: Precision, opset: int | None) -> ExportCard:
        """The card of the folder."""
        kept = self.card.policy
        certificate = kept.calibration.certificate if self.chosen.calibrated and kept is not None else None
        return ExportCard(
            format=CARD_FORMAT,
            ramify=__version__,
            name=self.name,
            shape="folder",
            stage=None,
            precision=precision,
            input_shape=self.input_shape,
            mean=tuple(self.network.mean.tolist()),
            std=tuple(self.network.std.tolist()),
            classes=self.card.classes,
            exits=tuple(
                ExportedExit(
                    cells=summary.cells,
                    macs=summary.macs,
                    weights=summary.kept,
                    valid=None if summary.valid is None else summary.valid.top1,
                    test=None if summary.test is None else summary.test.top1,
                )
                for summary in self.exits
            ),
            policy=exported_policy(self.chosen.policy, self.chosen.calibrated, self.chosen.description, certificate),
            files=files,
            epoch=self.card.epoch,
            opset=opset,
            background=self.card.background,
            range=self.card.range,
        )


@dataclass(frozen=True)
class Checks:
    """Results of running the files; see :class:`ramify.exporting.write.Export`."""

    files: tuple[CheckedFile, ...]
    early: EarlyCheck
    runtime: EarlyCheck | None


Written = tuple[dict[str, bytes], ExportCard, Checks]
"""The files of a folder by name, their card, and the results of running them."""
