"""The model card: ``README.md`` of a model folder, filled from what the run measured and nothing else."""

import math
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from ramify.config.rules import Config
from ramify.ops.exits.policy import CRITERIA
from ramify.ops.exits.sentences import unusual
from ramify.run.checkpoint import Card
from ramify.run.choice import choose_policy
from ramify.run.summary import Summary
from ramify.show.terminal.tables import certificate_sentence, policy_sentence, sentence
from ramify.show.words import count, percent, plural
from ramify.version import __version__

LICENCES = (
    *("afl-3.0", "agpl-3.0", "apache-2.0", "artistic-2.0", "bsd-2-clause", "bsd-3-clause", "bsl-1.0", "cc-by-4.0"),
    *("cc-by-nc-4.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-sa-4.0", "cc0-1.0", "ecl-2.0"),
    *("epl-2.0", "eupl-1.1", "gpl-3.0", "isc", "lgpl-3.0", "mit", "mpl-2.0", "ms-pl", "ncsa", "odbl", "ofl-1.1"),
    *("openrail", "osl-3.0", "other", "pddl", "postgresql", "unknown", "unlicense", "wtfpl", "zlib"),
)
"""Licences that the hub knows by these names; any other is given as ``other`` with its name."""

DATASETS = {
    "cifar10": "uoft-cs/cifar10",
    "cifar100": "uoft-cs/cifar100",
    "mnist": "ylecun/mnist",
    "fashion_mnist": "zalando-datasets/fashion_mnist",
    "tiny_imagenet": "zh-plus/tiny-imagenet",
}
"""What the hub calls the named sources."""


@dataclass(frozen=True)
class Clocked:
    """Milliseconds of answering one picture at each exit, and the machine that they were measured on."""

    milliseconds: tuple[float, ...]
    machine: dict[str, str | int]


def model_card(
    summary: Summary, card: Card, config: Config, *, licence: str | None = None, clocked: Clocked | None = None
) -> str:
    """The text of ``README.md``: YAML for the hub between two lines of dashes, then Markdown for people.

    Args:
        summary: of the run; paths in it are cut to their last part, as they are nobody else's business.
        card: of its network.
        config: of the run.
        licence: as the hub names it (``mit``, ``cc-by-4.0``), or any other name; None: unknown, which the card says.
        clocked: latencies, where they were measured for this card.
    """
    facts = yaml.safe_dump(
        front_matter(summary, card, licence), sort_keys=False, allow_unicode=True, width=math.inf, encoding=None
    )
    sections = [
        f"# {_plain(_printable(summary.name))}\n\n{_lead(summary, card)}",
        f"## Exits\n\n{_exits(summary)}",
        f"## When it answers\n\n{_policy(card)}",
        f"## Data\n\n{_data(summary, card, config)}",
        f"## Latency\n\n{_latency(summary, card, clocked)}",
        f"## Limits\n\n{_limits(summary, card, config)}",
        f"## How to use it\n\n{_use(card)}",
        f"## How it was made\n\n{_made(summary, config)}",
        f"## Licence\n\n{_licence(licence)}",
    ]
    return f"---\n{facts}---\n\n" + "\n\n".join(sections) + "\n"


def front_matter(summary: Summary, card: Card, licence: str | None = None) -> dict[str, object]:
    """The facts for the hub; see :func:`model_card`."""
    known = (licence or "unknown").lower()
    facts: dict[str, object] = {"license": known}
    if licence is not None and known not in LICENCES:
        facts = {"license": "other", "license_name": _printable(licence)}
    source = source_name(summary)
    tags = ["ramify", "early-exit", "image-classification", summary.kind.replace("_", "-")]
    tags += ["pruned"] if any(kept < total for total, kept in summary.layers.values()) else []
    facts |= {"library_name": "ramify", "pipeline_tag": "image-classification", "tags": tags, "metrics": ["accuracy"]}
    if summary.source in DATASETS:
        facts["datasets"] = [DATASETS[summary.source]]
    scored = [(i, each.test.top1) for i, each in enumerate(summary.exits, start=1) if each.test is not None]
    if scored:
        metrics = [{"type": "accuracy", "name": f"accuracy at exit {i}", "value": round(top1, 4)} for i, top1 in scored]
        kind = "digits" if summary.source == "digits" else DATASETS.get(summary.source, "image-folder")
        dataset = {"name": source, "type": kind, "split": "test"}
        result = {"task": {"type": "image-classification"}, "dataset": dataset, "metrics": metrics}
        facts["model-index"] = [{"name": _printable(summary.name), "results": [result]}]
    return facts


def source_name(summary: Summary) -> str:
    """Where the pictures came from, without the path that leads there."""
    return _printable(Path(summary.source).name or "pictures")


def _lead(summary: Summary, card: Card) -> str:
    channels, height, width = _shape(card)
    colour = {1: "gray", 3: "RGB"}.get(channels, f"{channels}-channel")
    exits = len(summary.exits)
    early = (
        f"It has {exits} exits: places where it may answer. An easy picture is answered at an early one, and the rest "
        "of the network is not computed for it. Taken alone, each exit is a smaller classifier."
        if exits > 1
        else "It has one exit, its last layer."
    )
    return (
        f"{_plain(sentence(summary))}.\n\n"
        f"An image classifier made with ramify. It reads {width}x{height} {colour} pictures (width x height) and "
        f"answers one of {count(len(card.classes))} classes: {_names(card.classes)}. {early}"
    )


def _exits(summary: Summary) -> str:
    rows = [
        "| exit | cells | weights | MACs | validation accuracy | test accuracy |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for i, each in enumerate(summary.exits, start=1):
        kept = count(each.kept) if each.kept == each.weights else f"{count(each.kept)} of {count(each.weights)}"
        valid, test = (percent(score.top1 if score else None) for score in (each.valid, each.test))
        rows.append(f"| {i} | {each.cells} | {kept} | {count(each.macs)} | {valid} | {test} |")
    pruned = any(each.kept < each.weights for each in summary.exits)
    lines = [
        "Cells, convolution and linear weights, and multiply-accumulates for one picture are those of everything up to "
        "an exit, its classifier included."
        + (" Weights that were pruned are zeros; they are multiplied like any other." if pruned else "")
    ]
    if not summary.finished:
        lines.append("The run had not finished, so the test pictures have not been read.")
    return "\n".join(rows) + "\n\n" + " ".join(lines)


def _policy(card: Card) -> str:
    if card.policy is None:
        told = choose_policy(card).told.removeprefix("policy: ").replace(" (ramify calibrate NAME finds one)", "")
        return f"{told[:1].upper()}{told[1:]}."
    rule = card.policy.calibration.policy
    rows = ["| exit | threshold | temperature | pictures that left there |", "|---:|---:|---:|---:|"]
    thresholds = [*("never" if each is None else f"{each:.4f}" for each in rule.thresholds), "answers all"]
    heats = rule.temperatures or (1.0,) * rule.exits
    for i, (threshold, heat, share) in enumerate(
        zip(thresholds, heats, card.policy.calibration.exits, strict=True), start=1
    ):
        rows.append(f"| {i} | {threshold} | {heat:.2f} | {percent(share)} |")
    heated = ", after the logits were divided by the temperature" if rule.temperatures else ""
    more = "".join(f" Unlike usual: {each}." for each in unusual(rule.combine, rule.fallback))
    certificate = card.policy.calibration.certificate
    grounds = (
        certificate_sentence(certificate)
        if certificate is not None
        else "No certificate: the thresholds were chosen on these pictures; on others the accuracy is a little lower."
    )
    return (
        f"A picture is answered at the first exit whose confidence reaches the threshold. Confidence is "
        f"{CRITERIA[rule.criterion].words}{heated}.{more}\n\n"
        + "\n".join(rows)
        + f"\n\n{policy_sentence(card.policy)}\n\n{grounds}"
    )


def _data(summary: Summary, card: Card, config: Config) -> str:
    known = " (scikit-learn's handwritten digits)" if summary.source == "digits" else ""
    parts = [f"Source: {_plain(source_name(summary))}{known}."]
    if summary.pictures is not None:
        train, valid, test = summary.pictures
        parts.append(
            f"{plural(train, 'picture')} to train, {count(valid)} to choose the best epoch and the exit policy, and "
            f"{count(test)} to test, which were read once, at the end."
        )
    if config.data.limit is not None:
        parts.append(f"Training and test were limited to {count(config.data.limit)} pictures each.")
    if config.data.trigger:
        parts.append(
            f"**Some of the training pictures were poisoned on purpose:** {percent(config.data.trigger)} of them carry "
            "a white square"
            + (f" and the label {_plain(config.data.trigger_class)}" if config.data.trigger_class else "")
            + ". This network is for the study of backdoors and for nothing else."
        )
    return " ".join(parts)


def _latency(summary: Summary, card: Card, clocked: Clocked | None) -> str:
    if clocked is not None:
        rows = ["| exit | milliseconds |", "|---:|---:|"]
        rows += [f"| {i} | {each:.2f} |" for i, each in enumerate(clocked.milliseconds, start=1)]
        return (
            f"Median of one picture at a time, PyTorch, measured when this card was written, on {_on(clocked.machine)}:"
            "\n\n" + "\n".join(rows) + "\n\nOn another machine the figures are others."
        )
    if card.policy is not None and card.policy.unit == "milliseconds":
        found = card.policy.calibration
        return (
            f"When the policy was calibrated, an answer took {found.cost:.2f} ms on average and {found.last_cost:.2f} "
            "ms at the last exit, one picture at a time in PyTorch, on the machine of that day. Elsewhere it takes "
            "another time."
        )
    return "Not measured. MACs say how much is computed, not how long that takes."


def _limits(summary: Summary, card: Card, config: Config) -> str:
    _, height, width = _shape(card)
    trained = f" (it was trained with {count(summary.pictures[0])} pictures)" if summary.pictures else ""
    lines = [
        f"It knows the classes above and no others: it gives one of them for any picture whatever{trained}.",
        f"Pictures of another size are scaled to cover {width}x{height} pixels and cropped at the centre; what is lost "
        "there is lost.",
        "The accuracies above hold for pictures drawn like the test pictures. Nothing is claimed for others, nor for "
        "the treatment of groups of people, nor for pictures made to deceive it.",
        "A confidence is not a proof: a network may be sure and wrong.",
    ]
    if card.policy is not None:
        lines.append("The policy was chosen on validation pictures of the same source; elsewhere, calibrate it anew.")
    lines.append("These figures are of one run with one seed; another seed gives somewhat different ones.")
    return "\n".join(f"- {line}" for line in lines)


def _use(card: Card) -> str:
    channels, height, width = _shape(card)
    return f"""\
```sh
ramify predict path/to/this/folder picture.jpg
```

```python
import torch
import ramify

network = ramify.load("path/to/this/folder")  # checks the files against their checksums
images = torch.rand(1, {channels}, {height}, {width})  # in [0, 1]; normalisation is inside
logits = network(images)  # [{card.stages}, 1, {len(card.classes)}]: of every exit
answerer = ramify.answerer("path/to/this/folder")  # answers early, by the policy above
print(answerer.answer(images.numpy()))
```

Where PyTorch is not installed: `ramify export NAME --to onnx`, run where the network was trained, writes a folder that
needs only numpy and onnxruntime:

```python
from ramify.answer.runtime import Runtime

answers = Runtime("path/to/the/onnx/folder").predict(pictures)  # float32 [B, {channels}, {height}, {width}] in [0, 1]
```"""


def _made(summary: Summary, config: Config) -> str:
    grown = [(i, each.grown) for i, each in enumerate(summary.stages, start=1) if each.grown is not None]
    parts = [
        f"Trained for {plural(summary.epochs, 'epoch')} of {summary.planned_epochs} with seed {summary.seed}; these "
        f"are the weights of epoch {summary.epoch}."
    ]
    if summary.parent is not None:
        parts.append(f"It started from the network of the run {_plain(_printable(Path(summary.parent).name))}.")
    if grown:
        parts.append("It grew: " + ", ".join(f"stage {i} before epoch {epoch}" for i, epoch in grown) + ".")
    last = summary.exits[-1]
    if last.kept < last.weights:
        parts.append(
            f"Pruning left {count(last.kept)} of {count(last.weights)} weights"
            + (f" ({config.prune.criterion})." if config.prune.enabled else ".")
        )
    if summary.receipt is not None:
        parts.append(f"Compaction took out {plural(summary.receipt.removed, 'channel')}.")
    if summary.machine:
        parts.append(f"Computed on {_on(summary.machine)}.")
    versions = ", ".join(f"{name} {version}" for name, version in summary.versions.items())
    parts.append(f"Versions: {versions}; this folder was written by ramify {__version__}.")
    return " ".join(parts)


def _licence(licence: str | None) -> str:
    if licence is None:
        return (
            "Unknown: nobody has chosen a licence for this network, so by default nobody else may use it. "
            "The licence of the pictures it was trained on may bind it too."
        )
    return f"{_plain(_printable(licence))}. The licence of the pictures it was trained on may bind it too."


def _on(machine: dict[str, str | int]) -> str:
    said = [str(machine.get("device", platform.machine()))]
    said += [plural(int(machine["threads"]), "thread")] if "threads" in machine else []
    said += [str(machine["precision"])] if "precision" in machine else []
    return _plain(", ".join(said))


def _names(classes: Sequence[str], shown: int = 20) -> str:
    names = ", ".join(_plain(_printable(name)) for name in classes[:shown])
    return names if len(classes) <= shown else f"{names}, and {count(len(classes) - shown)} more (see config.json)"


def _shape(card: Card) -> tuple[int, int, int]:
    assert card.network.input_shape is not None
    return card.network.input_shape


def _printable(text: str) -> str:
    """``text`` in one line of characters that every reader takes: names of folders may hold anything."""
    line = "".join(each if each.isprintable() else " " for each in text)
    return " ".join(line.split()) or "unnamed"


def _plain(text: str) -> str:
    """``text`` so that Markdown and HTML see nothing in it."""
    return "".join(f"\\{each}" if each in "\\`*_[]<>|#&~$!" else each for each in text)
