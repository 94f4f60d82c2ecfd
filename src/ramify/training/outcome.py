"""The end of a run: its best network, compacted if asked for, and tested."""

from dataclasses import asdict
from pathlib import Path

from ramify.files import readable_folder, replace_folder
from ramify.ops.pruning.compact import compact
from ramify.run.checkpoint import card_with, pack_model, read_model
from ramify.run.distributed import ALONE
from ramify.run.evaluate import evaluate
from ramify.run.folder import EVENTS, append_line, write_summary
from ramify.run.pictures import Parts
from ramify.run.summary import Summary, describe_machine, receipt, summarise
from ramify.training.state import State


def finish(state: State, folder: Path, parts: Parts) -> Summary:
    """Test the best network, once, and write the summary."""
    # A run without epochs has no best network; it compacts that of its parent.
    best = folder / "best"
    network, card = read_model(best if readable_folder(best).exists() else folder / "last")
    network.to(state.where.device)
    compacted = None
    if state.config.prune.compact:
        masked = network
        network, compaction = compact(masked)
        card = card_with(card, network)
        replace_folder(folder / "compact", pack_model(network, card))
        compacted = receipt(masked, network, compaction)
        append_line(folder / EVENTS, {"event": "compacted", "epoch": state.epoch, **asdict(compacted)})
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
        receipt=compacted,
        machine=describe_machine(state.where.device, state.where.precision),
    )
    # The summary is written last: a run that was killed before it ends again.
    append_line(folder / EVENTS, {"event": "finished", "epoch": state.epoch})
    write_summary(folder, summary)
    return summary
