"""What a run comes to: its best network, compacted if that is asked for, and read against the test set."""

from dataclasses import asdict
from pathlib import Path

from ramify.files import readable_folder, replace_folder
from ramify.ops.pruning.compact import compact
from ramify.run.checkpoint import card_with, pack_model, read_model
from ramify.run.distributed import ALONE
from ramify.run.evaluate import evaluate
from ramify.run.folder import (
    EVENTS,
    append_line,
    write_summary,
)
from ramify.run.pictures import Parts
from ramify.run.receipt import receipt
from ramify.run.summary import Summary, describe_machine, summarise
from ramify.training.state import State


def finish(state: State, folder: Path, parts: Parts) -> Summary:
    """Read the test set, once, with the best network."""
    # A run without epochs has no best one: it is there to compact what its parent left.
    best = folder / "best"
    network, card = read_model(best if readable_folder(best).exists() else folder / "last")
    network.to(state.where.device)
    found = None
    if state.config.prune.compact:
        masked = network
        network, compaction = compact(masked)
        card = card_with(card, network)
        replace_folder(folder / "compact", pack_model(network, card))
        found = receipt(masked, network, compaction)
        append_line(folder / EVENTS, {"event": "compacted", "epoch": state.epoch, **asdict(found)})
    scores = evaluate(network, parts.test, state.where.precision, ALONE, state.config.train.flip_test)
    summary = summarise(
        folder.name,
        str(folder),
        state.config,
        network,
        card,
        epochs=state.epoch,
        seconds=state.seconds,
        test=scores,
        pictures=parts.counts,
        receipt=found,
        machine=describe_machine(state.where.device, state.where.precision),
    )
    # The summary comes last: a run that has one has its last line, and one that was killed before ends again.
    append_line(folder / EVENTS, {"event": "finished", "epoch": state.epoch})
    write_summary(folder, summary)
    return summary
