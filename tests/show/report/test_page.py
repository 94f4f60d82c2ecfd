"""The page of a real run, as a person meets it in a browser."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from ramify.run.calibrate import calibrate_run
from ramify.show.report.facts import read_facts
from ramify.show.report.write import report
from ramify.training.run import train
from tests.conftest import tiny
from tests.show.report.browser import Watched, chromium, needs_chromium, opened

pytestmark = needs_chromium

PRUNED = ("prune.enabled=true", "prune.epochs=[4]", "prune.policy=normal", "prune.keep_ratio=0.5", "train.epochs=5")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    done = Path(train(tiny(f"runs_dir={folder}", "name=shown", *PRUNED)).folder)
    calibrate_run(done, max_drop=0.2)
    report(done)
    return done


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def watched(run: Path, browser: Browser) -> Watched:
    """The page in a wide and light window, which takes seconds to draw: who changes it puts it back."""
    return opened(browser, run / "report.html")


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_every_plot_is_drawn_and_nothing_goes_wrong(
    run: Path, browser: Browser, watched: Watched, width: int, scheme: str
) -> None:
    if scheme == "dark":
        watched = opened(browser, run / "report.html", width, scheme)
    page = watched.page
    plots = page.locator("figure.plot").count()
    assert plots == 9
    # plotly draws each plot in three layers.
    assert page.locator(".js-plotly-plot .main-svg").count() >= plots
    assert page.locator(".js-plotly-plot").count() == plots
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert watched.faults == []
    ink = page.evaluate("getComputedStyle(document.querySelector('.canvas .xtitle')).fill")
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(numbers(ink)) > sum(numbers(paper))) == (scheme == "dark")


def numbers(colour: str) -> list[int]:
    return [int(each) for each in colour.partition("(")[2].rstrip(")").split(",")[:3]]


def test_the_system_turns_dark_while_the_page_is_open(watched: Watched) -> None:
    title = "getComputedStyle(document.querySelector('.canvas .xtitle')).fill"
    before = watched.page.evaluate(title)
    watched.page.emulate_media(color_scheme="dark")
    # The page forbids what Playwright's own waiting for a condition needs.
    for _ in range(100):
        if watched.page.evaluate(title) != before:
            break
        watched.page.wait_for_timeout(50)
    assert watched.page.evaluate(title) != before
    assert watched.faults == []
    watched.page.emulate_media(color_scheme="light")


def test_the_sections_come_in_their_order(watched: Watched) -> None:
    page = watched.page
    anchors = [each.get_attribute("id") for each in page.query_selector_all("main > section")]
    assert anchors == [
        "network",
        "epochs",
        "cost",
        "classes",
        "leaving",
        "overthinking",
        "reliability",
        "density",
        "effort",
        "setup",
    ]
    links = [each.get_attribute("href") for each in page.query_selector_all("nav a")]
    assert links == [f"#{anchor}" for anchor in anchors]
    assert page.locator(".network .cell .bar").count() == 3


def test_downloads_hold_the_figures(run: Path, watched: Watched) -> None:
    page = watched.page
    found = {}
    for kind in ("csv", "json"):
        with page.expect_download() as download:
            page.click(f'a[download="accuracy-by-epoch.{kind}"]')
        found[kind] = download.value.path().read_text()
    expected = [
        (done.epoch, i + 1, each.train.top1, each.valid.top1 if each.valid else None)
        for done in read_facts(run).epochs
        for i, each in enumerate(done.exits)
    ]
    columns = ("epoch", "exit", "train accuracy", "valid accuracy")
    rows = list(csv.DictReader(io.StringIO(found["csv"])))
    assert [tuple(float(row[name]) for name in columns) for row in rows] == expected
    assert [tuple(row[name] for name in columns) for row in json.loads(found["json"])] == expected


def test_a_keyboard_reaches_the_tables(run: Path, watched: Watched) -> None:
    page = watched.page
    summary = page.locator("#plot-accuracy-by-epoch summary")
    summary.focus()
    page.keyboard.press("Enter")
    table = page.locator("#plot-accuracy-by-epoch table")
    assert table.is_visible()
    assert table.locator("tbody tr").count() == sum(len(done.exits) for done in read_facts(run).epochs)
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"
    page.keyboard.press("Enter")
    assert not table.is_visible()
