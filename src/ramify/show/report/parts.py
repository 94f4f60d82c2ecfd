"""Small pieces of HTML that the sections share."""

from html import escape


def prose(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{escape(text)}</p>"


def missing(text: str) -> str:
    """The sentence that stands where something cannot be shown.

    Example:
        >>> missing("No policy & no curve.")
        '<p class="missing">No policy &amp; no curve.</p>'
    """
    return f'<p class="missing">{escape(text)}</p>'


def wide(label: str, html: str) -> str:
    """``html`` in a frame of its own that scrolls sideways where the page is too narrow, by keyboard, too."""
    return f'<div class="wide" tabindex="0" role="region" aria-label="{escape(label)}">{html}</div>'
