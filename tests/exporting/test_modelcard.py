"""The model card says what the run measured, and no name in it breaks its Markdown or YAML."""

import platform
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ramify.config.read import read_config
from ramify.config.rules import Config
from ramify.exporting.modelcard import front_matter, model_card, source_name
from ramify.run.checkpoint import Card, read_model
from ramify.run.readback import describe
from ramify.run.saved import checkpoint_of
from ramify.run.summary import Summary

Made = tuple[Summary, Card, Config]


@pytest.fixture(scope="module")
def made(demo: Path) -> Made:
    return describe(demo), read_model(checkpoint_of(demo))[1], read_config([demo / "config.yaml"])


def facts_of(text: str) -> dict[str, object]:
    _, facts, _ = text.split("---\n", 2)
    found: dict[str, object] = yaml.safe_load(facts)
    return found


def test_the_card_holds_what_was_measured(made: Made) -> None:
    summary, card, config = made
    text = model_card(summary, card, config)
    facts = facts_of(text)
    assert (facts["license"], facts["library_name"]) == ("unknown", "ramify")
    assert isinstance(facts["tags"], list)
    assert {"early-exit", "pruned", "iterative"} <= set(facts["tags"])
    assert card.policy is not None
    for each, threshold in zip(summary.exits, card.policy.calibration.policy.thresholds, strict=False):
        assert each.test is not None
        assert f"{100 * each.test.top1:.1f} %" in text
        assert f"{each.macs:,}" in text
        assert f"{threshold:.4f}" in text
    sections = ("Exits", "When it answers", "Data", "Latency", "Limits", "How to use it", "How it was made", "License")
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == list(sections)
    assert "Not measured. MACs say how much is computed" in text
    assert "No certificate" in text


def test_what_is_unknown_is_named(made: Made) -> None:
    summary, card, config = made
    unfinished = replace(summary, exits=tuple(replace(each, test=None) for each in summary.exits), finished=False)
    text = model_card(unfinished, replace(card, policy=None), config)
    assert "model-index" not in facts_of(text)
    assert "None was calibrated, so every picture goes to the last exit." in text
    assert "the test pictures have not been read" in text


def test_a_license_a_clock_and_a_trigger_are_named(made: Made) -> None:
    summary, card, config = made
    assert front_matter(summary, card, "MIT")["license"] == "mit"
    own = front_matter(summary, card, "House rules")
    assert (own["license"], own["license_name"]) == ("other", "House rules")
    poisoned = config.model_copy(update={"data": config.data.model_copy(update={"trigger": 0.05})})
    text = model_card(summary, card, poisoned, milliseconds=(0.5, 0.75, 1.0))
    assert "| 2 | 0.75 |" in text
    machine = platform.machine().replace("_", r"\_")  # as Markdown
    assert f"on cpu {machine}, {torch.get_num_threads()} thread" in text
    assert "poisoned on purpose:** 5.0 % of them" in text


@given(st.text(max_size=20), st.text(max_size=20), st.text(min_size=1, max_size=20))
def test_names_are_only_names(made: Made, name: str, label: str, license: str) -> None:
    summary, card, config = made
    odd = replace(summary, name=name, source=f"/home/me/{label}")
    text = model_card(odd, replace(card, classes=(label, *card.classes[1:])), config, license=license)
    assert isinstance(facts_of(text), dict)
    assert next(line[3:] for line in text.splitlines() if line.startswith("## ")) == "Exits"
    assert "/home/me" not in text
    assert "<" not in text.split("---\n", 2)[2].replace("\\<", "")
    assert source_name(odd)
