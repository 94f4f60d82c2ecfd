"""The report of one run."""

from pathlib import Path

from ramify.data.fetch import Progress
from ramify.show.report.classes import classes_section
from ramify.show.report.density import density_section
from ramify.show.report.drawing import network_section
from ramify.show.report.effort import effort_section
from ramify.show.report.exits import cost_section
from ramify.show.report.facts import Facts, read_facts
from ramify.show.report.history import history_section
from ramify.show.report.leaving import leaving_section
from ramify.show.report.outcome import outcome_sentence
from ramify.show.report.page import page
from ramify.show.report.reliability import reliability_section
from ramify.show.report.setup import setup_section
from ramify.show.report.thinking import thinking_section

SECTIONS = (
    network_section,
    history_section,
    cost_section,
    classes_section,
    leaving_section,
    thinking_section,
    reliability_section,
    density_section,
    effort_section,
    setup_section,
)
"""In the order of the page; each makes one :class:`ramify.show.report.page.Section` of the facts."""


def run_page(run: Path, progress: Progress | None = None) -> str:
    """The report of the run in the folder ``run``, a whole HTML document.

    Raises:
        InputError: the run has no checkpoint yet, or a file in its folder is damaged.
    """
    return facts_page(read_facts(run, progress))


def facts_page(facts: Facts) -> str:
    """The report of a run of which the facts are known."""
    lead = outcome_sentence(facts.summary, facts.measured)
    return page(facts.summary.name, lead, [make(facts) for make in SECTIONS])
