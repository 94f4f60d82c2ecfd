"""The frame of a report: one HTML document that needs nothing else, neither beside it nor from the network."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources


@dataclass(frozen=True)
class Section:
    """One section of a page.

    Attributes:
        anchor: unique on the page, of lower-case letters, digits and hyphens.
        title: a few words of plain text.
        lead: what there is to see, one or two sentences of plain text.
        body: HTML, in which everything that is data is escaped already (:func:`html.escape`).
    """

    anchor: str
    title: str
    lead: str
    body: str


def page(title: str, lead: str, sections: Sequence[Section]) -> str:
    """A whole HTML document, light or dark as the reader's system is, with plotly.js inside it, once.

    Args:
        title: plain text, the name of a run, say.
        lead: the most important thing, one sentence of plain text.
        sections: in the order of the page; its navigation lists them.

    Example:
        >>> text = page("demo", "It learned <everything>.", [Section("end", "The end", "No more.", "<p>Bye.</p>")])
        >>> "It learned &lt;everything&gt;." in text, '<section id="end"' in text
        (True, True)
    """
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        loader=FunctionLoader(_part), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html").render(
        title=title, lead=lead, sections=sections, css=_part("page.css"), js=_part("page.js"), plotly=_plotly()
    )


def _part(name: str) -> str:
    return resources.files("ramify.show.report").joinpath(name).read_text(encoding="utf-8")


def _plotly() -> str:
    from plotly.offline import get_plotlyjs  # type: ignore[import-untyped,unused-ignore]

    script: str = get_plotlyjs()
    return script
