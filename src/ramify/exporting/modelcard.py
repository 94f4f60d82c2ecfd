"""The model card: ``README.md`` of a model folder, filled from what the run measured and nothing else."""

import math
import platform
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import yaml
from jinja2 import Environment, StrictUndefined, Template

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

    The Markdown stands in ``templates/modelcard.md``.

    Args:
        summary: of the run; paths in it are cut to their last part, as they are nobody else's business.
        card: of its network.
        config: of the run.
        licence: as the hub names it (``mit``, ``cc-by-4.0``), or any other name; None: unknown, which the card says.
        clocked: latencies, where they were measured for this card.
    """
    assert card.network.input_shape is not None
    channels, height, width = card.network.input_shape
    given: dict[str, object] = {}
    if card.policy is None:
        reason = (
            choose_policy(card).description.removeprefix("policy: ").replace(" (ramify calibrate NAME finds one)", "")
        )
        given["no_policy"] = f"{reason[:1].upper()}{reason[1:]}"
    else:
        rule, certificate = card.policy.calibration.policy, card.policy.calibration.certificate
        given = {
            "rule": rule,
            "confidence": CRITERIA[rule.criterion].words,
            "unusual": unusual(rule.combine, rule.fallback),
            "policy": policy_sentence(card.policy),
            "grounds": certificate and certificate_sentence(certificate),
        }
    facts = front_matter(summary, card, licence)
    return _template().render(
        **given,
        facts=yaml.safe_dump(facts, sort_keys=False, allow_unicode=True, width=math.inf, encoding=None),
        summary=summary,
        card=card,
        config=config,
        clocked=clocked,
        license=licence,
        ramify=__version__,
        channels=channels,
        height=height,
        width=width,
        sentence=sentence(summary),
        source=source_name(summary),
        pruned=summary.exits[-1].kept < summary.exits[-1].weights,
        grown=[(i, each.grown) for i, each in enumerate(summary.stages, start=1) if each.grown is not None],
    )


def _template() -> Template:
    # Names go through ``plain``: what is escaped for Markdown is no HTML either.
    made = Environment(undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True)  # nosec B701
    made.filters |= {"count": count, "percent": percent, "plural": plural, "machine": _machine, "escaped": _escaped}
    made.filters |= {"plain": lambda text: _escaped(_printable(text)), "last_part": lambda path: Path(path).name}
    text = resources.files("ramify.exporting").joinpath("templates", "modelcard.md").read_text(encoding="utf-8")
    return made.from_string(text)


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


def _machine(machine: dict[str, str | int]) -> str:
    said = [str(machine.get("device", platform.machine()))]
    said += [plural(int(machine["threads"]), "thread")] if "threads" in machine else []
    said += [str(machine["precision"])] if "precision" in machine else []
    return _escaped(", ".join(said))


def _printable(text: str) -> str:
    """``text`` in one line of characters that every reader takes: names of folders may hold anything."""
    line = "".join(each if each.isprintable() else " " for each in text)
    return " ".join(line.split()) or "unnamed"


def _escaped(text: str) -> str:
    """``text`` so that Markdown and HTML see nothing in it."""
    return "".join(f"\\{each}" if each in "\\`*_[]<>|#&~$!" else each for each in text)
