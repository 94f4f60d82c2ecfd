"""The frame of a report: one HTML document that needs nothing else, neither beside it nor from the network.

All HTML stands in ``templates/`` beside this file, where Jinja escapes every value.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Generic, TypeVar

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from ramify.show import words


@dataclass(frozen=True)
class ReportSection:
    """One section of a page.

    Attributes:
        anchor: unique on the page, of lower-case letters, digits and hyphens.
        title: a few words.
        lead: what there is to see, one or two sentences.
        body: HTML, as :func:`html` makes it.
    """

    anchor: str
    title: str
    lead: str
    body: Markup


_T = TypeVar("_T")


@dataclass(frozen=True)
class ReportPart(Generic[_T]):
    """How a section is made of what is known, ``T``.

    Attributes:
        anchor, title: of the :class:`ReportSection`.
        make: its lead and its body.
        lacks: why it cannot be made, as a sentence that stands in its place; empty where it can.
    """

    anchor: str
    title: str
    make: Callable[[_T], tuple[str, Markup]]
    lacks: Callable[[_T], str] = lambda known: ""

    def section(self, known: _T) -> ReportSection:
        """The section of what is known."""
        why = self.lacks(known)
        lead, body = ("", html("missing", why)) if why else self.make(known)
        return ReportSection(self.anchor, self.title, lead, body)


def page(title: str, lead: str, sections: Sequence[ReportSection]) -> str:
    """A whole HTML document, light or dark as the reader's system is, with plotly.js inside it, once.

    Args:
        title: the name of a run, say.
        lead: the most important thing, in one sentence.
        sections: in the order of the page; its navigation lists them.

    Example:
        >>> end = ReportSection("end", "The end", "No more.", html("prose", "Bye."))
        >>> text = page("demo", "It learned <everything>.", [end])
        >>> "It learned &lt;everything&gt;." in text, '<section id="end"' in text
        (True, True)
    """
    from plotly.offline import get_plotlyjs  # type: ignore[import-untyped,unused-ignore]

    template = _environment().get_template("page.html")
    return template.render(title=title, lead=lead, sections=sections, plotly=Markup(get_plotlyjs()))  # nosec B704 - plotly's own script


def html(macro: str, *values: object) -> Markup:
    """A piece of a page: a macro of ``templates/macros.html`` on ``values``, each of which is escaped.

    Example:
        >>> html("missing", "No policy & no curve.")
        Markup('<p class="missing">No policy &amp; no curve.</p>')
    """
    made = getattr(_environment().get_template("macros.html").module, macro)(*values)
    assert isinstance(made, Markup)
    return made


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FunctionLoader(_text), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters |= {"percent": words.percent, "count": words.count, "short": words.short, "plural": words.plural}
    made.globals["inline"] = lambda name: Markup(_text(name))  # nosec B704 - a file of this package
    return made


def _text(name: str) -> str:
    return resources.files("ramify.show.report").joinpath("templates", name).read_text(encoding="utf-8")
