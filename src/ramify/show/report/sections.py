"""The report of one run: its sections, in their order."""

import json
from dataclasses import asdict

from markupsafe import Markup

from ramify.config.read import to_yaml
from ramify.show.report.classes import classes_section
from ramify.show.report.epochs import accuracy_section, density_section, effort_section, not_trained
from ramify.show.report.exits import cost_section, leaving_section, reliability_section
from ramify.show.report.facts import Facts
from ramify.show.report.network import network_section
from ramify.show.report.outcome import outcome_sentence
from ramify.show.report.page import ReportPart, html, page
from ramify.show.report.plot import Table, data_uri
from ramify.show.report.thinking import overthinking_section
from ramify.show.words import count, duration


def _unmeasured(facts: Facts) -> str:
    return facts.unmeasured


def setup_section(facts: Facts) -> Markup:
    """Configuration and versions, from which the run can be made again."""
    summary = facts.summary
    pictures = summary.source
    if summary.pictures is not None:
        parts = zip(summary.pictures, ("training", "validation", "test"), strict=True)
        pictures += ": " + ", ".join(f"{count(size)} {part}" for size, part in parts)
    rows = [
        ("run", summary.name),
        ("folder", str(facts.folder)),
        *([("made from", summary.parent)] if summary.parent else []),
        ("pictures", pictures),
        ("seed", str(summary.seed)),
        ("epochs", f"{summary.epochs} of {summary.planned_epochs}, the network is that of {summary.epoch}"),
        ("recipe", summary.recipe),
        *([("time", f"{duration(summary.seconds)} of training and validation")] if summary.seconds else []),
        *((name, str(value)) for name, value in (*summary.versions.items(), *summary.machine.items())),
    ]
    text = to_yaml(facts.config)
    files = (
        ("config.yaml", "text/yaml", text, "YAML"),
        ("config.json", "application/json", json.dumps(facts.config.model_dump(mode="json"), indent=2), "JSON"),
        ("summary.json", "application/json", json.dumps(asdict(summary), indent=2), "summary"),
    )
    links = [(file, data_uri(media, content.encode()), shown) for file, media, content, shown in files]
    return html("run.setup", Table(("what", "value"), rows), text, links)


REPORT_SECTIONS: tuple[ReportPart[Facts], ...] = (
    ReportPart("network", "The network", network_section),
    ReportPart("epochs", "Accuracy by epoch", accuracy_section, not_trained),
    ReportPart("cost", "Accuracy and cost", cost_section, _unmeasured),
    ReportPart("classes", "Classes", classes_section, _unmeasured),
    ReportPart("leaving", "Who leaves where", leaving_section, _unmeasured),
    ReportPart("overthinking", "Overthinking", overthinking_section, _unmeasured),
    ReportPart("reliability", "Confidence", reliability_section, _unmeasured),
    ReportPart("density", "Density by layer", density_section),
    ReportPart("effort", "Time and memory", effort_section, not_trained),
    ReportPart("setup", "Configuration and versions", setup_section),
)
"""In the order of the page. A new section is a function of the facts and an entry here."""


def run_page(facts: Facts) -> str:
    """The report of a run, a whole HTML document."""
    return page(facts.summary.name, outcome_sentence(facts.summary, facts.measured), REPORT_SECTIONS, facts)
