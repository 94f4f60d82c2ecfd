"""The facts of one run for its report, read from its folder; the test pictures are answered once."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from ramify.config.read import read_config
from ramify.config.rules import Config
from ramify.data.fetch import Progress
from ramify.errors import CheckpointError, RamifyError, field_of
from ramify.nn.branching import Branching
from ramify.ops.growing.grow import Growth
from ramify.ops.growing.widen import Widening
from ramify.ops.pruning.prune import Pruning
from ramify.run.checkpoint import Card
from ramify.run.events import EpochDone, Grew, GrowthEnded, Pruned, Widened
from ramify.run.folder import CONFIG, EVENTS, read_lines
from ramify.run.readback import Measured, TestAnswers, answer_again, describe, read_epochs
from ramify.run.saved import read_saved
from ramify.run.summary import Summary
from ramify.show.words import Change


@dataclass(frozen=True)
class Facts:
    """A run as it is in its folder.

    Attributes:
        epochs: a record for each epoch that was trained.
        changes: changes of the network between epochs, in order.
        network: the network of the run, on the CPU; ``card`` describes it.
        measured: results of its exits on the test pictures, and ``answers`` their logits; None for the reason
            ``unmeasured``.
    """

    folder: Path
    config: Config
    summary: Summary
    epochs: tuple[EpochDone, ...]
    changes: tuple[Change, ...]
    network: Branching
    card: Card
    measured: Measured | None
    answers: TestAnswers | None
    unmeasured: str

    @property
    def exits(self) -> int:
        """How many exits there are."""
        return len(self.summary.exits)


def known(facts: Facts) -> tuple[Measured, TestAnswers]:
    """The measurement and its answers, in a section that is made only where they are known."""
    assert facts.measured is not None
    assert facts.answers is not None
    return facts.measured, facts.answers


def read_facts(run: Path, progress: Progress | None = None) -> Facts:
    """The facts of the run in the folder ``run``.

    The validation pictures are answered where the run has not finished, as the test pictures are read once, at its end.

    Raises:
        InputError: the run has no checkpoint yet, or a file in its folder is damaged.
    """
    summary = describe(run)
    network, card = read_saved(run)
    measured, answers, unmeasured = None, None, ""
    try:
        measured, answers = answer_again(run, progress=progress)
    except RamifyError as error:
        part = "test" if summary.finished else "validation"
        unmeasured = f"The {part} pictures could not be answered again: {error.problems[0]}."
    config, epochs, changes = read_config([run / CONFIG]), read_epochs(run), _changes(run / EVENTS)
    return Facts(run, config, summary, epochs, changes, network, card, measured, answers, unmeasured)


def _changes(path: Path) -> tuple[Change, ...]:
    changes: list[Change] = []
    try:
        for line in read_lines(path):
            kind, epoch, reason = line["event"], int(str(line["epoch"])), str(line.get("reason", ""))
            match kind:
                case "grew":
                    changes.append(Grew(epoch, TypeAdapter(Growth).validate_python(line), reason))
                case "widened":
                    changes.append(Widened(epoch, TypeAdapter(Widening).validate_python(line), reason))
                case "pruned":
                    density = TypeAdapter(tuple[float, ...]).validate_python(line["density"])
                    changes.append(Pruned(epoch, TypeAdapter(Pruning).validate_python(line), density))
                case "growth_ended":
                    changes.append(GrowthEnded(epoch, reason))
    except (KeyError, ValueError) as error:  # a ValidationError is a ValueError
        why = field_of(error) if isinstance(error, ValidationError) else f"no {error}"
        raise CheckpointError(f"{path}: is damaged ({why}); accepted: the file as ramify wrote it") from error
    return tuple(changes)
