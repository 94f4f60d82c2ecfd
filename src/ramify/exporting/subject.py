"""What an exporter is given, and what it gives."""

from dataclasses import dataclass

from torch import Tensor

from ramify.answer.card import (
    CARD_FORMAT,
    ExportCard,
    ExportedExit,
    ExportedFiles,
    ExportedPolicy,
    Precision,
    exported_policy,
)
from ramify.config.rules import NetworkConfig
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
        file: its name in the folder; ``stages`` stands for those of the stages together.
        bytes: its size.
        difference: the largest from the network, of a logit or, in the file that stops early, of a confidence.
    """

    file: str
    bytes: int
    difference: float


@dataclass(frozen=True)
class Subject:
    """What is exported, and the pictures that show whether it went well.

    Attributes:
        name: of the run.
        network: on the CPU, in float32 and evaluation mode, and ``card`` what is known of it.
        twin: the same as plain layers.
        chosen: the policy that it answers by.
        exits: what each exit costs and how often it is right.
        images: float32 ``[N, C, H, W]`` in [0, 1], some of the ``test`` pictures, and ``logits`` of them.
        test, train: all pictures of these kinds, the validation pictures left out.
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
    def policy(self) -> ExportedPolicy:
        """The policy as it travels."""
        kept = self.card.policy
        certificate = kept.calibration.certificate if self.chosen.calibrated and kept is not None else None
        return exported_policy(self.chosen.policy, self.chosen.calibrated, self.chosen.description, certificate)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return input_shape(self.card.network)

    def card_for(self, files: ExportedFiles, precision: Precision, opset: int | None) -> ExportCard:
        """The card of the folder."""
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
            exits=tuple(_exit(each) for each in self.exits),
            policy=self.policy,
            files=files,
            epoch=self.card.epoch,
            opset=opset,
            background=self.card.background,
            range=self.card.range,
        )


@dataclass(frozen=True)
class Checks:
    """What showed that the files are right: see :class:`ramify.exporting.write.Export`."""

    files: tuple[CheckedFile, ...]
    early: EarlyCheck
    runtime: EarlyCheck | None


Written = tuple[dict[str, bytes], ExportCard, Checks]
"""The files of a folder by name, what travels with them, and what running them gave."""


def _exit(each: ExitSummary) -> ExportedExit:
    return ExportedExit(
        cells=each.cells,
        macs=each.macs,
        weights=each.kept,
        valid=None if each.valid is None else each.valid.top1,
        test=None if each.test is None else each.test.top1,
    )


def input_shape(network: NetworkConfig) -> tuple[int, int, int]:
    """(C, H, W) of the pictures that a saved network reads."""
    assert network.input_shape is not None
    return network.input_shape
