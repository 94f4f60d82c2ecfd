"""The frame of a report: one HTML document that needs nothing else, neither beside it nor from the network.

All HTML and the prose of the pages stand in ``templates/`` beside this file, where Jinja escapes every value.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Generic, TypeVar

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from ramify.show import words

_T = TypeVar("_T")


@dataclass(frozen=True)
class ReportPart(Generic[_T]):
    """A section of a page, made of what is known, ``T``.

    Attributes:
        anchor: lower-case letters, digits and hyphens.
        title: its heading.
        make: its HTML, as :func:`html` gives it.
        lacks: why it cannot be made, as a sentence that stands in its place; empty where it can.
    """

    anchor: str
    title: str
    make: Callable[[_T], Markup]
    lacks: Callable[[_T], str] = lambda known: ""

    def body(self, known: _T) -> Markup:
        """Its HTML, or the reason why there is none."""
        why = self.lacks(known)
        return html("missing", why) if why else self.make(known)


def page(title: str, lead: str, parts: Sequence[ReportPart[_T]], known: _T) -> str:
    """A whole HTML document, light or dark as the reader's system is, with plotly.js inside it, once.

    Args:
        title: such as the name of a run.
        lead: the most important result, in one sentence.
        parts: its sections, in their order; its navigation lists them.
        known: what they are made of.

    Example:
        >>> text = page("demo", "It learned <everything>.", [ReportPart("end", "The end", Markup)], "Bye.")
        >>> "It learned &lt;everything&gt;." in text, '<section id="end"' in text
        (True, True)
    """
    from plotly.offline import get_plotlyjs  # type: ignore[import-untyped,unused-ignore]

    template = _environment().get_template("page.html")
    return template.render(title=title, lead=lead, parts=parts, known=known, plotly=Markup(get_plotlyjs()))  # nosec B704 - plotly's own script


def html(macro: str, *values: object, **named: object) -> Markup:
    """A piece of a page: a macro on ``values``, each of which is escaped.

    Args:
        macro: of ``templates/macros.html``, or of another template, as ``run.setup`` of ``templates/run.html``.

    Example:
        >>> html("missing", "No policy & no curve.")
        Markup('<p class="missing">No policy &amp; no curve.</p>')
    """
    template, _, name = macro.rpartition(".")
    made = getattr(_environment().get_template(f"{template or 'macros'}.html").module, name)(*values, **named)
    assert isinstance(made, Markup)
    return made


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FunctionLoader(_text), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    filters = (words.percent, words.count, words.short, words.plural, words.duration)
    environment.filters |= {function.__name__: function for function in filters}
    environment.globals["inline"] = lambda name: Markup(_text(name))  # nosec B704 - a file of this package
    return environment


def _text(name: str) -> str:
    return resources.files("ramify.show.report").joinpath("templates", name).read_text(encoding="utf-8")
