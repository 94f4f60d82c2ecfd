"""The page that compares runs: its figures, what it says of odd runs, and how it behaves in a browser."""

import base64
import json
import re
import shutil
import statistics
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from ramify.config.rules import resolve
from ramify.errors import CheckpointError, InputError
from ramify.run.calibrate import calibrate_run
from ramify.run.events import EpochDone, Event
from ramify.run.folder import METRICS, read_summary
from ramify.show.groups import Run, grouped, read_run
from ramify.show.report.compare import comparison_html, comparison_page, lead_sentence
from ramify.training.run import train
from tests.conftest import edit_config, tiny
from tests.show.report.browser import Watched, chromium, needs_chromium, opened
from tests.show.report.comparing import made, settings

ITERATIVE = resolve(settings())
STATIC = resolve(settings("network.kind=full_ic"))
DENSE = resolve(settings("network.kind=dense"))

ANCHORS = ["groups", "exits", "work", "epochs", "weights", "time", "static", "configurations"]


class Killed(BaseException):
    """Stands for kill -9."""


def words(page: str) -> str:
    """What a reader sees of a page, in one line."""
    body = re.sub(r"<(script|style)\b.*?</\1>", " ", page[page.index("<body") :], flags=re.DOTALL)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", body)))


def told(*runs: Run) -> str:
    return words(comparison_html(grouped(runs)))


def data(page: str, name: str) -> list[dict[str, object]]:
    """What the page offers for download as ``<name>.json``."""
    found = re.search(rf'download="{name}\.json" href="data:application/json;base64,([^"]+)"', page)
    assert found is not None
    records: list[dict[str, object]] = json.loads(base64.b64decode(found[1]))
    return records


def three(accuracy: float = 0.9) -> list[Run]:
    return [made(ITERATIVE, seed, (0.5, 0.6, 0.7, accuracy + seed / 100)) for seed in range(3)]


def test_the_first_sentence_tells_every_group_in_order() -> None:
    runs = [*three(0.90), *(made(STATIC, seed, (0, 0, 0, 0.95 - seed / 100)) for seed in range(3)), made(DENSE, 9)]
    sentence = lead_sentence(grouped(runs)).replace("\N{NO-BREAK SPACE}", " ")
    assert sentence == (
        "Test pictures right at the last exit: dense 97.0 %, full_ic 94.0 ± 1.0 % and iterative 91.0 ± 1.0 % (mean ± "
        "one standard deviation over the seeds)."
    )
    many = [made(settings(f"network.channels={width}"), accuracy=(0, 0, 0, width / 100)) for width in range(10, 16)]
    assert lead_sentence(grouped(many)).replace("\N{NO-BREAK SPACE}", " ") == (
        "Of 6 groups, 15 channels has the highest mean accuracy at the last exit, 15.0 %, and 10 channels the lowest, "
        "10.0 %."
    )


def test_the_page_does_not_depend_on_the_order_of_runs() -> None:
    runs = [*three(), *(made(STATIC, seed) for seed in range(3)), made(DENSE)]
    assert comparison_html(grouped(runs)) == comparison_html(grouped(runs[::-1]))


def test_nothing_is_said_to_be_significant() -> None:
    text = told(*three(), *(made(STATIC, seed) for seed in range(3)))
    assert "3 seeds, paired" in text
    assert not re.search(r"signific|better|worse|beats|confiden", text)


def test_names_are_text_wherever_they_stand() -> None:
    evil = "</script><img src=x onerror=alert(1)>&amp;\"'"
    config = ITERATIVE.model_copy(update={"data": ITERATIVE.data.model_copy(update={"source": f"/pictures of {evil}"})})
    runs = [made(ITERATIVE), made(config, name=evil, unmeasured=evil, machine=evil), made(config, 1, finished=False)]
    page = comparison_html(grouped(runs))
    assert "<img src=x" not in page
    assert "alert(1)" in words(page)
    assert page.count("</script>") == page.count("<script")
    assert page.count("<figure") == page.count("</figure>")


def test_what_is_missing_is_said() -> None:
    shallow = made(ITERATIVE, 4, (0.5, 0.6))
    text = told(*three(), shallow, made(ITERATIVE, 5, finished=False, name="hurried"), made(DENSE, 1))
    assert "hurried has not finished (epoch 2 of 4)" in text
    assert "One finished run, and so no deviation and no error bars: dense." in text
    assert "iterative: its runs ended with 2 or 4 exits" in text
    assert "No run has a calibrated exit policy" in text
    assert "none of these runs is its matched static baseline" in text


def test_policies_are_told_with_their_goals() -> None:
    runs = [made(ITERATIVE, 0, policy=0.9), made(ITERATIVE, 1), made(STATIC, 0, policy=0.8, goal="to cost at most 1 k")]
    text = told(*runs, made(STATIC, 1, unmeasured="the pictures are gone"))
    assert "calibrated for different goals: to cost at most 1 k; to lose at most 1 point." in text
    assert "Without a calibrated exit policy: run-1 (" in text
    assert "run-1: its policy was not measured (the pictures are gone)." in text


@pytest.mark.parametrize("key", ["source=mnist", "labels=mine.csv", "group='(.)'", "fold=[1,5]"])
def test_different_pictures_are_not_compared(key: str) -> None:
    other = resolve(settings(f"data.{key}"))
    text = told(made(ITERATIVE), made(other))
    assert "groups of runs on different pictures: their accuracies cannot be compared" in text
    assert "highest" not in text


def test_times_of_different_machines_are_not_compared() -> None:
    text = told(made(ITERATIVE, 0, machine="a laptop"), made(ITERATIVE, 1, machine="a server"))
    assert (
        "different machines and cannot be compared: a laptop, float32, 1 thread; a server, float32, 1 thread." in text
    )


@pytest.mark.parametrize(
    "runs",
    [
        [made(ITERATIVE)],
        [made(ITERATIVE, finished=False), made(ITERATIVE, 1, finished=False)],
        [made(resolve(settings("network.kind=full")), seed, (0.9,)) for seed in range(2)],
        [made(ITERATIVE, 0, name="twice"), made(ITERATIVE, 0, name="again")],
        [made(settings(f"network.channels={width}")) for width in range(4, 24)],
    ],
    ids=["one run", "none finished", "one exit", "one seed twice", "twenty groups"],
)
def test_odd_runs_have_a_page(runs: list[Run]) -> None:
    page = comparison_html(grouped(runs))
    assert re.findall(r'<section id="([a-z]+)"', page) == ANCHORS
    assert "nan" not in words(page).lower().split()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three networks, two seeds each; all but the dense ones have a policy."""
    folder = tmp_path_factory.mktemp("runs")
    found: list[Path] = []
    for kind in ("iterative", "full_ic", "dense"):
        for seed in range(2):
            config = tiny(f"runs_dir={folder}", f"name={kind}-{seed}", f"network.kind={kind}", f"seed={seed}")
            found.append(Path(train(config).folder))
            if kind != "dense":
                calibrate_run(found[-1], max_drop=0.2)
    return found


@pytest.fixture(scope="module")
def page(runs: list[Path]) -> str:
    return comparison_page(runs)


def test_means_are_those_of_the_summaries(runs: list[Path], page: str) -> None:
    found = {record["group"]: record for record in data(page, "groups")}
    assert list(found) == ["dense", "full_ic", "iterative"]
    for kind, record in found.items():
        tops = [
            summary.exits[-1].test.top1
            for run in runs
            if (summary := read_summary(run)) is not None and summary.kind == kind and summary.exits[-1].test
        ]
        assert len(tops) == 2
        assert record["last exit"] == pytest.approx(statistics.fmean(tops))
        assert record["last exit, deviation"] == pytest.approx(statistics.stdev(tops))
        assert (record["policy"] is None) == (kind == "dense")
    points = data(page, "accuracy-against-macs")
    assert {record["answering"] for record in points} == {"exit 1", "exit 2", "last exit", "calibrated policy"}
    text = words(page)
    assert "iterative against full_ic The same network, all of it trained from the first epoch on." in text
    assert "Without a calibrated exit policy: dense-0, dense-1" in text


def test_runs_that_are_gone_unfinished_or_damaged(runs: list[Path], tmp_path: Path) -> None:
    def kill(event: Event) -> None:
        if isinstance(event, EpochDone) and event.epoch == 2:
            raise Killed

    with pytest.raises(Killed):
        train(tiny(f"runs_dir={tmp_path}", "name=cut"), [kill])
    empty = tmp_path / "empty"
    empty.mkdir()
    shutil.copy(runs[0] / "config.yaml", empty)
    # Twice the same folder is one run.
    text = words(comparison_page([runs[0], runs[0], tmp_path / "cut", empty]))
    assert "2 runs in 1 group" in text
    assert "Left out, as they have not trained for an epoch yet: empty." in text
    assert re.search(r"cut has not finished \(epoch \d of 4\)", text)
    with pytest.raises(InputError, match="has no checkpoint yet"):
        comparison_page([empty])
    (tmp_path / "cut" / METRICS).write_text('{"epoch": 1}\n')
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl: is damaged"):
        comparison_page([tmp_path / "cut"])


def test_without_its_pictures_a_policy_is_not_measured(runs: list[Path], tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(runs[0], moved)
    edit_config(moved, "source: digits", "source: gone.zip")
    found = read_run(moved)
    assert found.policy is None
    assert found.unmeasured is not None
    assert "gone.zip" in found.unmeasured
    assert found.accuracy == read_run(runs[0]).accuracy


@pytest.fixture(scope="module")
def file(page: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("page") / "comparison.html"
    found.write_text(page, encoding="utf-8")
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def watched(file: Path, browser: Browser) -> Watched:
    """The page in a wide and light window, which takes seconds to draw."""
    return opened(browser, file)


@needs_chromium
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_every_plot_is_drawn_and_nothing_goes_wrong(
    file: Path, browser: Browser, watched: Watched, width: int, scheme: str
) -> None:
    if scheme == "dark":
        watched = opened(browser, file, width, scheme)
    page = watched.page
    assert page.locator("figure.plot").count() == 7
    assert page.locator(".js-plotly-plot").count() == 7
    for plot in page.locator("figure.plot").all():
        assert plot.locator(".point, .point path").count() > 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for summary in page.locator("summary").all():
        summary.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert watched.faults == []


@needs_chromium
def test_a_keyboard_sorts_the_groups_and_hides_one(watched: Watched) -> None:
    page = watched.page
    table = page.locator("table.sortable").first

    def column(number: int) -> list[str]:
        return [
            row.locator("td").nth(number).get_attribute("data-value") or "" for row in table.locator("tbody tr").all()
        ]

    assert column(0) == ["dense", "full_ic", "iterative"]
    heading = table.locator("th", has_text="last exit").first
    heading.locator("button").focus()
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "descending"
    falling = [float(value) for value in column(2)]
    assert falling == sorted(falling, reverse=True)
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "ascending"
    assert [float(value) for value in column(2)] == sorted(falling)
    # Of policies one group has none: it is at the end both ways.
    for _ in range(2):
        table.locator("th", has_text="policy").first.locator("button").click()
        assert column(3)[-1] == ""
    entry = page.locator('.legend [data-group="1"]').first
    lines = page.locator("#plot-accuracy-of-exits .scatterlayer .trace")
    before = lines.count()
    entry.focus()
    page.keyboard.press("Space")
    assert entry.get_attribute("aria-pressed") == "false"
    assert page.locator('.legend [data-group="1"][aria-pressed="false"]').count() == 3
    assert lines.count() == before - 2
    page.keyboard.press("Space")
    assert entry.get_attribute("aria-pressed") == "true"
    assert lines.count() == before
    assert watched.faults == []
