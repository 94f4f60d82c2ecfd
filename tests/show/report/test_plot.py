"""A plot's data survive their way into a page, whatever strings they hold."""

import base64
import csv
import io
import json
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ramify.show.report.page import ReportPart, html, page
from ramify.show.report.plot import Table, Value, exit_color, json_text, plot, plotly_text, scatter
from ramify.show.words import csv_lines

TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=20) | st.sampled_from(
    ["</script><script>alert(1)</script>", '"quoted"', "a'b", "<b>&amp;</b>", "ünï, çødé", "=1+1", "<!--"]
)
NUMBERS = st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False)
TABLES = st.lists(st.tuples(TEXTS, NUMBERS | st.none()), max_size=6).map(
    lambda rows: Table(("name", "value"), tuple(rows))
)


class Reader(HTMLParser):
    """What a browser would make of a page: its tags, and the text of each script."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.scripts: list[str] = []
        self.words = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            self.scripts.append(data)
        else:
            self.words += data


@given(TABLES)
def test_csv_and_json_read_back(table: Table) -> None:
    [head, *rows] = csv.reader(io.StringIO(csv_lines(table.columns, table.rows), newline=""))
    assert tuple(head) == tuple(table.columns)
    read: list[tuple[Value, ...]] = [(name, None if value == "" else float(value)) for name, value in rows]
    assert read == [(name, value if value is None else float(value)) for name, value in table.rows]
    assert [tuple(row.values()) for row in json.loads(json_text(table))] == list(table.rows)


@given(TEXTS, TABLES)
def test_no_string_breaks_out_of_a_plot(text: str, table: Table) -> None:
    drawn = plot("a-plot", table, [scatter("lines", [1], [2], None, name=text)], {"yaxis_title_text": text})
    made = html("plot", drawn, text)
    read = Reader(made)
    assert read.tags.count("script") == 1
    assert "b" not in read.tags
    [script] = read.scripts
    record = json.loads(script)
    assert record["data"][0]["name"] == text
    assert record["layout"]["yaxis"]["title"]["text"] == text
    assert "template" not in record["layout"]
    found = re.search(r'download="a-plot.csv" href="data:text/csv;base64,([^"]*)"', made)
    assert found is not None
    assert base64.b64decode(found[1]).decode() == csv_lines(table.columns, table.rows)


@settings(max_examples=20)  # each writes megabytes
@given(TEXTS, TEXTS)
def test_no_string_breaks_out_of_a_page(title: str, lead: str) -> None:
    made = page(title, lead, [ReportPart("one", title, lambda words: html("prose", words))], lead)
    made = made.replace(made[made.index("<script>") : made.rindex("</script>")], "<script>")  # megabytes of plotly.js
    read = Reader(made)
    assert read.tags.count("section") == read.tags.count("h1") == 1
    assert not {"b", "img", "iframe"} & set(read.tags)
    assert title.strip() in read.words
    assert lead.strip() in read.words


def test_a_page_asks_the_network_for_nothing() -> None:
    made = page("title", "lead", [], None)
    assert made.count("Plotly.react") == 1
    head = made[: made.index("<script>")]
    assert "default-src 'none'" in head
    assert not re.search(r"(src|href)=\"(?!data:|#)", head)


def test_a_figure_of_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="nonsense"):
        plot("a-plot", Table((), ()), [{"type": "scatter", "nonsense": 1}], {})


def test_numbers_that_are_none_are_empty_and_not_a_number_is_null() -> None:
    table = Table(("x", "y"), ((None, float("nan")),))
    assert "<td></td>" in html("table", table)
    assert json_text(table) == '[{"x": null, "y": null}]'


def luminance(colour: str) -> float:
    """Relative luminance, as WCAG 2 defines it."""
    shares = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("exits", [1, 2, 3, 4, 7, 27])
def test_the_colours_of_exits_differ_and_stand_out_from_both_papers(exits: int) -> None:
    colours = [exit_color(exit_, exits) for exit_ in range(exits)]
    assert len(set(colours)) == exits
    for colour in colours:
        light, dark = (1.05 / (luminance(colour) + 0.05), (luminance(colour) + 0.05) / (luminance("#14171b") + 0.05))
        assert min(light, dark) > 2.5
    # The order can be told by lightness alone.
    assert [luminance(each) for each in colours] == sorted((luminance(each) for each in colours), reverse=True)


@given(TEXTS)
def test_plotly_shows_a_text_as_it_is(text: str) -> None:
    assert "<" not in plotly_text(text)
    assert Reader(f"<p>{plotly_text(text)}</p>").words == text
