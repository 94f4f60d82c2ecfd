"""How each class does: its figures, the confusion matrix of every exit and of the policy, and the surest mistakes."""

from collections.abc import Sequence

from markupsafe import Markup

from ramify.run.classes import ClassResults
from ramify.run.readback import TestAnswers
from ramify.show.report.facts import Facts, known
from ramify.show.report.page import html
from ramify.show.report.pictures import png, side
from ramify.show.report.plot import Table, Trace, Value, downloads, plot, plotly_text
from ramify.show.words import count, percent

_SHOWN = 12
"""Mistakes that are shown as pictures."""

NUMBERED = 20
"""Classes up to which the matrix has its numbers written in."""

_CELLS = 40_000
"""Cells of all matrices up to which every exit has its own; of more, the last exit and the policy have one."""

_SHADES = [[0, "rgba(58,111,216,0)"], [0.02, "rgba(58,111,216,0.14)"], [1, "rgba(58,111,216,1)"]]
"""From no picture of a class to all of them."""


def not_measured(facts: Facts) -> str:
    """Why there are no figures of classes; empty where there are."""
    if facts.measured is None or facts.answers is None or not facts.measured.results:
        return facts.unmeasured or "The classes were not measured."
    return ""


def classes(facts: Facts) -> tuple[str, Markup]:
    """Precision, recall, confusion, mistakes."""
    results = known(facts).results
    assert facts.answers is not None
    chosen = results[-1]
    hardest = min((each for each in chosen.classes if each.recall is not None), key=lambda each: each.recall or 0.0)
    lead = (
        f"As {chosen.title} answers, the hardest class is {hardest.name}: {percent(hardest.recall or 0.0)} of its "
        f"{count(hardest.count)} pictures are found."
    )
    return lead, _figures(chosen) + _matrices(results) + _mistakes(facts.answers, chosen)


def _figures(chosen: ClassResults) -> Markup:
    columns = ("class", "pictures", "accuracy", "precision", "recall")
    found = [(each.name, each.count, each.accuracy, each.precision, each.recall) for each in chosen.classes]
    rows = [
        (name, count(many), *("" if share is None else percent(share) for share in shares))
        for name, many, *shares in found
    ]
    table = html("figures", columns, rows)
    if len(rows) > NUMBERED:
        table = html("details", f"All {len(rows)} classes", table)
    meaning = (
        "Precision: of what is taken for the class, the share that is. Recall: of the pictures of the class, the "
        "share that is found."
    )
    return (
        html("prose", meaning) + html("frame", "wide", "Classes", table) + downloads("classes", Table(columns, found))
    )


def _matrices(results: Sequence[ClassResults]) -> Markup:
    """A heat map for each exit and the policy, of which a menu shows one."""
    names = [each.name for each in results[0].classes]
    places = list(range(len(names)))
    deepest = max(each.exit or 0 for each in results)
    many = len(results) * len(names) ** 2 > _CELLS
    drawn = [each for each in results if not many or each.exit in (None, deepest)]
    last = len(drawn) - 1
    traces: list[Trace] = []
    for at, each in enumerate(drawn):
        written: Trace = {}
        if len(names) <= NUMBERED:
            texts = [[str(number) if number else "" for number in row] for row in each.matrix]
            written = {"text": texts, "texttemplate": "%{text}"}
        traces.append(
            {
                "type": "heatmap",
                "name": each.title,
                "x": places,
                "y": places,
                "z": [[number / max(sum(row), 1) for number in row] for row in each.matrix],
                "customdata": [list(row) for row in each.matrix],
                **{"zmin": 0, "zmax": 1, "colorscale": _SHADES, "showscale": False, "xgap": 1, "ygap": 1},
                "visible": at == last,
                "hovertemplate": "true %{y}, answer %{x}<br>%{customdata} pictures, %{z:.1%} of the class"
                "<extra></extra>",
                **written,
            }
        )
    buttons = [
        {"label": each.title, "method": "restyle", "args": [{"visible": [other == at for other in range(last + 1)]}]}
        for at, each in enumerate(drawn)
    ]
    menu = {"buttons": buttons, "active": last, "x": 0, "xanchor": "left", "y": 1.0, "yanchor": "bottom", "pad_b": 8}
    axis = {
        **{"tickmode": "array", "tickvals": places, "ticktext": [plotly_text(name, 18) for name in names]},
        **{"showgrid": False, "zeroline": False, "constrain": "domain"},
    }
    layout = {
        "height": min(760, 150 + 34 * len(names)) + 70,
        "xaxis": {**axis, "title_text": "answer", "tickangle": -40},
        "yaxis": {**axis, "title_text": "true class", "autorange": "reversed", "scaleanchor": "x"},
        "margin": {"t": 50, "l": 120, "b": 110},
        "updatemenus": [menu],
    }
    caption = (
        "A row is a true class, a column an answer: what is off the diagonal is confused. The menu changes the exit."
    )
    if many:
        caption += " There are too many classes to draw every exit; ramify evaluate --csv writes all of them."
    rows: list[tuple[Value, ...]] = [
        (each.title, name, *row) for each in drawn for name, row in zip(names, each.matrix, strict=True)
    ]
    return plot("confusion-matrix", caption, Table(("answered by", "true class", *names), rows), traces, layout)


def _mistakes(answers: TestAnswers, chosen: ClassResults) -> Markup:
    title = html("heading", "The surest mistakes")
    if not chosen.mistakes:
        return title + html("missing", "There is none: every picture is answered right.")
    cards = []
    for each in chosen.mistakes[:_SHOWN]:
        (image,) = answers.test[each.picture : each.picture + 1].images
        cards.append((png(image), side(image), picture_name(answers, each.picture), each))
    rows = [(m.file or m.picture, m.label, m.answer, m.confidence, m.exit + 1) for m in chosen.mistakes]
    table = Table(("file", "class", "answer", "confidence", "exit"), rows)
    return title + html("mistakes", cards) + downloads("mistakes", table)


def picture_name(answers: TestAnswers, picture: int) -> str:
    """The file of a picture; its number where that is not known."""
    return answers.names[picture] if answers.names else f"picture {picture}"
