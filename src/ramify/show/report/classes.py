"""How each class does: its figures, the confusion matrix of every exit and of the policy, and the surest mistakes."""

from html import escape

from ramify.run.classes import ClassResults, Mistake
from ramify.run.readback import Answers
from ramify.show.report.facts import Facts
from ramify.show.report.page import Section
from ramify.show.report.parts import missing, wide
from ramify.show.report.pictures import png, side
from ramify.show.report.plot import Plot, Table, Value, downloads_html, figure, plot_html, plotly_text
from ramify.show.words import count, percent

SHOWN = 12
"""Mistakes that are shown as pictures."""

NUMBERED = 20
"""Classes up to which the matrix has its numbers written in."""

CELLS = 40_000
"""Cells of all matrices up to which every exit has its own; of more, the last exit and the policy have one."""

SHADES = [[0, "rgba(58,111,216,0)"], [0.02, "rgba(58,111,216,0.14)"], [1, "rgba(58,111,216,1)"]]
"""From no picture of a class to all of them."""


def classes_section(facts: Facts) -> Section:
    """Precision, recall, confusion, mistakes."""
    title = "Classes"
    if facts.measured is None or facts.answers is None or not facts.measured.results:
        return Section("classes", title, "", missing(facts.unmeasured or "The classes were not measured."))
    results = facts.measured.results
    chosen = results[-1]
    measured = [each for each in chosen.classes if each.recall is not None]
    hardest = min(measured, key=lambda each: each.recall or 0.0)
    lead = (
        f"As {chosen.title} answers, the hardest class is {hardest.name}: {percent(hardest.recall or 0.0)} of its "
        f"{count(hardest.count)} pictures are found."
    )
    body = _figures(chosen) + plot_html(_matrices(results)) + _mistakes(facts.answers, chosen)
    return Section("classes", title, lead, body)


def _figures(chosen: ClassResults) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(each.name)}</th>'
        + "".join(
            f'<td class="number">{cell}</td>'
            for cell in (count(each.count), percent(each.accuracy), _share(each.precision), _share(each.recall))
        )
        + "</tr>"
        for each in chosen.classes
    )
    heads = ("pictures", "accuracy", "precision", "recall")
    table = Table(
        ("class", *heads),
        tuple((each.name, each.count, each.accuracy, each.precision, each.recall) for each in chosen.classes),
    )
    html = (
        '<table><thead><tr><th scope="col">class</th>'
        + "".join(f'<th scope="col" class="number">{head}</th>' for head in heads)
        + f"</tr></thead><tbody>{rows}</tbody></table>"
    )
    if len(chosen.classes) > NUMBERED:
        html = f"<details><summary>All {len(chosen.classes)} classes</summary>{html}</details>"
    return (
        "<p>Precision: of what is taken for the class, the share that is. Recall: of the pictures of the class, the "
        "share that is found.</p>" + wide("Classes", html) + downloads_html("classes", table)
    )


def _share(value: float | None) -> str:
    return "" if value is None else percent(value)


def _matrices(results: tuple[ClassResults, ...]) -> Plot:
    """A heat map for each exit and the policy, of which a menu shows one."""
    names = [each.name for each in results[0].classes]
    drawn = results
    if len(results) * len(names) ** 2 > CELLS:
        drawn = tuple(each for each in results if each.exit is None or each.exit + 1 == _exits(results))
    labels = [plotly_text(name if len(name) <= 18 else f"{name[:17]}…") for name in names]
    traces: list[dict[str, object]] = []
    for at, each in enumerate(drawn):
        shares = [[number / max(sum(row), 1) for number in row] for row in each.matrix]
        trace: dict[str, object] = {
            "type": "heatmap",
            "name": each.title,
            "x": list(range(len(names))),
            "y": list(range(len(names))),
            "z": shares,
            "customdata": [list(row) for row in each.matrix],
            "zmin": 0,
            "zmax": 1,
            "colorscale": SHADES,
            "showscale": False,
            "xgap": 1,
            "ygap": 1,
            "visible": at == len(drawn) - 1,
            "hovertemplate": "true %{y}, answer %{x}<br>%{customdata} pictures, %{z:.1%} of the class<extra></extra>",
        }
        if len(names) <= NUMBERED:
            trace["text"] = [[str(number) if number else "" for number in row] for row in each.matrix]
            trace["texttemplate"] = "%{text}"
        traces.append(trace)
    buttons = [
        {
            "label": each.title,
            "method": "restyle",
            "args": [{"visible": [other == at for other in range(len(drawn))]}],
        }
        for at, each in enumerate(drawn)
    ]
    side_ = min(760, 150 + 34 * len(names))
    axis = {
        "tickmode": "array",
        "tickvals": list(range(len(names))),
        "ticktext": labels,
        "showgrid": False,
        "zeroline": False,
    }
    layout = {
        "height": side_ + 70,
        "xaxis": {**axis, "title": {"text": "answer"}, "tickangle": -40, "constrain": "domain"},
        "yaxis": {
            **axis,
            "title": {"text": "true class"},
            "autorange": "reversed",
            "scaleanchor": "x",
            "constrain": "domain",
        },
        "margin": {"t": 50, "l": 120, "b": 110},
        "updatemenus": [
            {
                "buttons": buttons,
                "active": len(drawn) - 1,
                "x": 0,
                "xanchor": "left",
                "y": 1.0,
                "yanchor": "bottom",
                "pad": {"b": 8},
            }
        ],
    }
    rows: tuple[tuple[Value, ...], ...] = tuple(
        (each.title, name, *row) for each in drawn for name, row in zip(names, each.matrix, strict=True)
    )
    caption = (
        "A row is a true class, a column an answer: what is off the diagonal is confused. The menu changes the exit."
    )
    if len(drawn) < len(results):
        caption += " There are too many classes to draw every exit; ramify evaluate --csv writes all of them."
    return Plot("confusion-matrix", figure(traces, layout), Table(("answered by", "true class", *names), rows), caption)


def _exits(results: tuple[ClassResults, ...]) -> int:
    return max((each.exit or 0) + 1 for each in results)


def _mistakes(answers: Answers, chosen: ClassResults) -> str:
    title = "<h3>The surest mistakes</h3>"
    if not chosen.mistakes:
        return title + missing("There is none: every picture is answered right.")
    cards = "".join(_card(answers, each) for each in chosen.mistakes[:SHOWN])
    rows = tuple((m.file or m.picture, m.label, m.answer, m.confidence, m.exit + 1) for m in chosen.mistakes)
    table = Table(("file", "class", "answer", "confidence", "exit"), rows)
    return f'{title}<div class="mistakes">{cards}</div>{downloads_html("mistakes", table)}'


def _card(answers: Answers, mistake: Mistake) -> str:
    (image,) = answers.test[mistake.picture : mistake.picture + 1].images
    width, height = side(image)
    name = picture_name(answers, mistake.picture)
    return (
        f'<figure class="mistake"><img src="{png(image)}" width="{width}" height="{height}" alt="{escape(name)}">'
        f"<figcaption><b>{escape(mistake.label)}</b>, taken for <b>{escape(mistake.answer)}</b> at exit "
        f"{mistake.exit + 1}, {percent(mistake.confidence)} sure<br><small>{escape(name)}</small></figcaption></figure>"
    )


def picture_name(answers: Answers, picture: int) -> str:
    """The file of a picture; its number where that is not known."""
    return answers.names[picture] if answers.names else f"picture {picture}"
