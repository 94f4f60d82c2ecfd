"""What made a run: its configuration, what computed it, and how to make it again."""

import json
from base64 import b64encode
from dataclasses import asdict
from html import escape

from ramify.config.read import to_yaml
from ramify.show.report.facts import Facts
from ramify.show.report.page import Section
from ramify.show.report.parts import wide
from ramify.show.report.plot import Table, table_html
from ramify.show.words import count, duration


def setup_section(facts: Facts) -> Section:
    """Configuration and versions."""
    summary = facts.summary
    rows: list[tuple[str, str]] = [("run", summary.name), ("folder", str(facts.folder))]
    if summary.parent:
        rows.append(("made from", summary.parent))
    if summary.pictures is not None:
        parts = ("training", "validation", "test")
        told = ", ".join(f"{count(many)} {part}" for many, part in zip(summary.pictures, parts, strict=True))
        rows.append(("pictures", f"{summary.source}: {told}"))
    else:
        rows.append(("pictures", summary.source))
    rows.append(("seed", str(summary.seed)))
    rows.append(("epochs", f"{summary.epochs} of {summary.planned_epochs}, the network is that of {summary.epoch}"))
    rows.append(("recipe", summary.recipe))
    if summary.seconds:
        rows.append(("time", f"{duration(summary.seconds)} of training and validation"))
    rows += [(name, str(value)) for name, value in (*summary.versions.items(), *summary.machine.items())]
    text = to_yaml(facts.config)
    record = json.dumps(facts.config.model_dump(mode="json"), indent=2)
    body = (
        wide("What made this run", table_html(Table(("what", "value"), tuple(rows))))
        + "<details><summary>The whole configuration</summary>"
        f'<pre tabindex="0">{escape(text)}</pre></details>'
        f'<p class="downloads"><span>Configuration</span> {_link("config.yaml", "text/yaml", text, "YAML")} '
        f"{_link('config.json', 'application/json', record, 'JSON')} "
        f"{_link('summary.json', 'application/json', _summary(facts), 'summary')}</p>"
    )
    lead = "The same configuration and seed on the same machine give the same network again."
    return Section("setup", "Configuration and versions", lead, body)


def _summary(facts: Facts) -> str:
    return json.dumps(asdict(facts.summary), indent=2)


def _link(name: str, media: str, text: str, shown: str) -> str:
    data = b64encode(text.encode()).decode()
    return f'<a download="{name}" href="data:{media};base64,{data}">{shown}</a>'
