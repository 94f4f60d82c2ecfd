"""The live view, drawn to a recorded terminal."""

import io

import pytest
from rich.console import Console

from ramify.run.events import Event, Finished
from ramify.show.terminal.live import BAR, SPARK_WIDTH, LiveView, exit_depths, growth_bar, sparkline
from ramify.training.run import train
from tests.conftest import tiny


def screens(*overrides: str) -> list[str]:
    """What the view shows after each event of a run."""
    console = Console(file=io.StringIO(), force_terminal=True, width=100, height=30, color_system=None)
    view = LiveView(console)
    shown: list[str] = []

    def watch(event: Event) -> None:
        view(event)
        sheet = Console(file=io.StringIO(), width=100, color_system=None)
        sheet.print(view.render())
        assert isinstance(sheet.file, io.StringIO)
        shown.append(sheet.file.getvalue())

    with view.live:
        watching = train(tiny(*overrides), [watch])
    assert Finished(watching)
    return shown


def test_the_view_shows_every_exit_and_when_the_next_ones_grow() -> None:
    first, *_, last = screens()
    assert "grows at epoch 2" in first
    assert "grows at epoch 3" in first
    assert "grows at epoch" not in last
    assert "epoch   4/4" in last
    assert "100 %" in last
    assert last.count("▲") == 2
    assert "best at epoch" in last


@pytest.mark.parametrize("kind", ["full", "full_ic", "dense"])
def test_every_kind_is_shown(kind: str) -> None:
    last = screens(f"network.kind={kind}")[-1]
    rows = [line for line in last.splitlines() if " cell" in line and "%" in line]
    assert len(rows) == (1 if kind == "full" else 3)


@pytest.mark.parametrize("done", [0, 0.5, 7, 39.9, 40])
def test_the_bar_fills_from_left_to_right(done: float) -> None:
    pieces = growth_bar(done, 40, (6, 11))
    assert len(pieces) == BAR
    lit = [style != "bright_black" for _, style in pieces]
    assert lit == sorted(lit, reverse=True)
    assert sum(lit) == pytest.approx(BAR * done / 40, abs=1)
    assert [mark for mark, _ in pieces].count("▲") == 2


@pytest.mark.parametrize(
    ("accuracies", "epochs", "line"),
    [({}, 5, ""), ({1: 0.0, 2: 0.5, 3: 0.75, 4: 0.875, 5: 1.0}, 5, "▁▁▂▃█"), ({3: 0.5}, 5, "··▁  ")],
)
def test_a_sparkline_rises_as_the_error_is_halved(accuracies: dict[int, float], epochs: int, line: str) -> None:
    assert sparkline(accuracies, epochs) == line


def test_sparklines_of_long_runs_are_thinned_to_one_width() -> None:
    lines = {len(sparkline(dict.fromkeys(range(first, 301), 0.9), 300)) for first in (1, 100, 299)}
    assert lines == {SPARK_WIDTH}


def test_depths_of_the_exits() -> None:
    assert exit_depths(tiny("network.structure=[0,1,0,1,1]", "growth.epochs=[2,3,4]")) == [2, 4, 5, 5]
