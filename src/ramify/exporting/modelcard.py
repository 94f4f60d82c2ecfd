"""The model card: ``README.md`` of a model folder, filled from the measurements of the run."""

import math
import platform
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import torch
import yaml
from jinja2 import Environment, StrictUndefined

from ramify.config.rules import Config
from ramify.ops.exits.policy import CRITERIA
from ramify.ops.exits.sentences import unusual
from ramify.run.checkpoint import Card
from ramify.run.choice import choose_policy
from ramify.run.summary import Summary, describe_machine
from ramify.show.terminal.tables import certificate_sentence, policy_sentence, sentence
from ramify.show.words import count, percent, plural
from ramify.version import __version__

LICENSES = (
    *("afl-3.0", "agpl-3.0", "apache-2.0", "artistic-2.0", "bsd-2-clause", "bsd-3-clause", "bsl-1.0", "cc-by-4.0"),
    *("cc-by-nc-4.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-sa-4.0", "cc0-1.0", "ecl-2.0"),
    *("epl-2.0", "eupl-1.1", "gpl-3.0", "isc", "lgpl-3.0", "mit", "mpl-2.0", "ms-pl", "ncsa", "odbl", "ofl-1.1"),
    *("openrail", "osl-3.0", "other", "pddl", "postgresql", "unknown", "unlicense", "wtfpl", "zlib"),
)
"""Names of licenses on the hub; any other becomes ``other`` with its name."""

DATASETS = {
    "cifar10": "uoft-cs/cifar10",
    "cifar100": "uoft-cs/cifar100",
    "mnist": "ylecun/mnist",
    "fashion_mnist": "zalando-datasets/fashion_mnist",
    "tiny_imagenet": "zh-plus/tiny-imagenet",
}
"""Names of the sources on the hub."""


def model_card(
    summary: Summary, card: Card, config: Config, *, license: str | None = None, milliseconds: Sequence[float] = ()
) -> str:
    """The text of ``README.md``: YAML for the hub, then Markdown from ``templates/modelcard.md``.

    Args:
        summary: of the run; paths in it are cut to their last part.
        card: of its network.
        config: of the run.
        license: as the hub names it (``mit``, ``cc-by-4.0``), or any other name; None: unknown, as the card says.
        milliseconds: for one picture at each exit on this machine, if they were measured for this card.
    """
    assert card.network.input_shape is not None
    channels, height, width = card.network.input_shape
    if card.policy is None:
        reason = choose_policy(card).description.removeprefix("policy: ")
        reason = reason.replace(" (ramify calibrate NAME finds one)", "")
        policy: dict[str, object] = {"no_policy": f"{reason[:1].upper()}{reason[1:]}"}
    else:
        rule, certificate = card.policy.calibration.policy, card.policy.calibration.certificate
        policy = {
            "rule": rule,
            "confidence": CRITERIA[rule.criterion].words,
            "unusual": unusual(rule.combine, rule.fallback),
            "policy": policy_sentence(card.policy),
            "grounds": certificate and certificate_sentence(certificate),
        }
    facts = front_matter(summary, card, license)
    # Names go through ``plain``: what is escaped for Markdown is no HTML either.
    jinja = Environment(undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True)  # nosec B701
    jinja.filters |= {"count": count, "percent": percent, "plural": plural, "machine": _machine, "escaped": _escaped}
    jinja.filters |= {"plain": lambda text: _escaped(_printable(text)), "last_part": lambda path: Path(path).name}
    text = resources.files("ramify.exporting").joinpath("templates", "modelcard.md").read_text(encoding="utf-8")
    return jinja.from_string(text).render(
        **policy,
        facts=yaml.safe_dump(facts, sort_keys=False, allow_unicode=True, width=math.inf, encoding=None),
        summary=summary,
        card=card,
        config=config,
        milliseconds=milliseconds,
        measured_on=describe_machine(torch.device("cpu"), "float32"),
        license=license,
        ramify=__version__,
        channels=channels,
        height=height,
        width=width,
        sentence=sentence(summary),
        source=source_name(summary),
        pruned=summary.exits[-1].kept < summary.exits[-1].weights,
        grown=[(i, stage.grown) for i, stage in enumerate(summary.stages, start=1) if stage.grown is not None],
    )


def front_matter(summary: Summary, card: Card, license: str | None = None) -> dict[str, object]:
    """The YAML facts for the hub; see :func:`model_card`."""
    name = (license or "unknown").lower()
    facts: dict[str, object] = {"license": name}
    if license is not None and name not in LICENSES:
        facts = {"license": "other", "license_name": _printable(license)}
    source = source_name(summary)
    tags = ["ramify", "early-exit", "image-classification", summary.kind.replace("_", "-")]
    tags += ["pruned"] if any(kept < total for total, kept in summary.layers.values()) else []
    facts |= {"library_name": "ramify", "pipeline_tag": "image-classification", "tags": tags, "metrics": ["accuracy"]}
    if summary.source in DATASETS:
        facts["datasets"] = [DATASETS[summary.source]]
    metrics = [
        {"type": "accuracy", "name": f"accuracy at exit {i}", "value": round(exit_.test.top1, 4)}
        for i, exit_ in enumerate(summary.exits, start=1)
        if exit_.test is not None
    ]
    if metrics:
        kind = "digits" if summary.source == "digits" else DATASETS.get(summary.source, "image-folder")
        dataset = {"name": source, "type": kind, "split": "test"}
        result = {"task": {"type": "image-classification"}, "dataset": dataset, "metrics": metrics}
        facts["model-index"] = [{"name": _printable(summary.name), "results": [result]}]
    return facts


def source_name(summary: Summary) -> str:
    """Where the pictures came from, without the path."""
    return _printable(Path(summary.source).name or "pictures")


def _machine(machine: dict[str, str | int]) -> str:
    parts = [str(machine.get("device", platform.machine()))]
    parts += [plural(int(machine["threads"]), "thread")] if "threads" in machine else []
    parts += [str(machine["precision"])] if "precision" in machine else []
    return _escaped(", ".join(parts))


def _printable(text: str) -> str:
    """``text`` in one line of printable characters."""
    line = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(line.split()) or "unnamed"


def _escaped(text: str) -> str:
    """``text`` without meaning in Markdown and HTML."""
    return "".join(f"\\{char}" if char in "\\`*_[]<>|#&~$!" else char for char in text)
