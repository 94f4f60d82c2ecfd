"""The section on classes: figures, the confusion matrix of every exit and of the policy, and the surest mistakes."""

from collections.abc import Sequence

from markupsafe import Markup

from ramify.run.classes import ClassResults
from ramify.run.readback import TestAnswers
from ramify.show.report.facts import Facts, known
from ramify.show.report.page import html
from ramify.show.report.pictures import png, side
from ramify.show.report.plot import Plot, Table, Trace, Value, downloads, plot, plotly_text
from ramify.show.words import count, percent

_SHOWN = 12
"""Mistakes that are shown as pictures."""

_NUMBERED = 20
"""Classes up to which the matrix has its numbers written in."""

_CELLS = 40_000
"""Cells of all matrices up to which every exit has its own; of more, the last exit and the policy have one."""

_SHADES = [[0, "rgba(58,111,216,0)"], [0.02, "rgba(58,111,216,0.14)"], [1, "rgba(58,111,216,1)"]]
"""From no picture of a class to all of them."""


def classes_section(facts: Facts) -> Markup:
    """Precision, recall, confusion, mistakes."""
    measured, answers = known(facts)
    results, chosen = measured.results, measured.results[-1]
    names = [row.name for row in chosen.classes]
    hardest = min((row for row in chosen.classes if row.recall is not None), key=lambda row: row.recall or 0.0)
    figures = [(row.name, row.count, row.accuracy, row.precision, row.recall) for row in chosen.classes]
    rows = [
        (name, count(pictures), *("" if share is None else percent(share) for share in shares))
        for name, pictures, *shares in figures
    ]
    deepest = max(result.exit or 0 for result in results)
    too_many = len(results) * len(names) ** 2 > _CELLS
    drawn = [result for result in results if not too_many or result.exit in (None, deepest)]
    cards = []
    for mistake in chosen.mistakes[:_SHOWN]:
        (image,) = answers.test[mistake.picture : mistake.picture + 1].images
        cards.append((png(image), side(image), picture_name(answers, mistake.picture), mistake))
    wrong = [(it.file or it.picture, it.label, it.answer, it.confidence, it.exit + 1) for it in chosen.mistakes]
    return html(
        "run.classes",
        chosen.title,
        hardest,
        rows,
        len(rows) > _NUMBERED,
        downloads("classes", Table(("class", "pictures", "accuracy", "precision", "recall"), figures)),
        _matrices(drawn, names),
        too_many,
        cards,
        downloads("mistakes", Table(("file", "class", "answer", "confidence", "exit"), wrong)),
    )


def _matrices(results: Sequence[ClassResults], names: Sequence[str]) -> Plot:
    """A heat map for each exit and the policy, of which a menu shows one."""
    places, last = list(range(len(names))), len(results) - 1
    traces: list[Trace] = []
    for at, result in enumerate(results):
        written: Trace = {}
        if len(names) <= _NUMBERED:
            texts = [[str(number) if number else "" for number in row] for row in result.matrix]
            written = {"text": texts, "texttemplate": "%{text}"}
        traces.append(
            {
                "type": "heatmap",
                "name": result.title,
                "x": places,
                "y": places,
                "z": [[number / max(sum(row), 1) for number in row] for row in result.matrix],
                "customdata": [list(row) for row in result.matrix],
                **{"zmin": 0, "zmax": 1, "colorscale": _SHADES, "showscale": False, "xgap": 1, "ygap": 1},
                "visible": at == last,
                "hovertemplate": "true %{y}, answer %{x}<br>%{customdata} pictures, %{z:.1%} of the class"
                "<extra></extra>",
                **written,
            }
        )
    buttons = [
        {"label": result.title, "method": "restyle", "args": [{"visible": [other == at for other in range(last + 1)]}]}
        for at, result in enumerate(results)
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
    rows: list[tuple[Value, ...]] = [
        (result.title, name, *row) for result in results for name, row in zip(names, result.matrix, strict=True)
    ]
    return plot("confusion-matrix", Table(("answered by", "true class", *names), rows), traces, layout)


def picture_name(answers: TestAnswers, picture: int) -> str:
    """The file of a picture; its number where that is not known."""
    return answers.names[picture] if answers.names else f"picture {picture}"
