import io

import pytest
from rich.console import Console, RenderableType

from ramify.run.summary import Summary
from ramify.show.terminal.tables import comparison_table, run_table, sentence
from ramify.training.run import train
from tests.conftest import tiny


def text(item: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=160, color_system=None)
    console.print(item)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Summary]:
    folder = tmp_path_factory.mktemp("runs")
    return [
        train(tiny(f"runs_dir={folder}", f"network.kind={kind}", f"seed={seed}"))
        for kind, seed in (("dense", 0), ("dense", 1), ("full", 0))
    ]


def test_a_run_shows_every_figure_of_its_exits(runs: list[Summary]) -> None:
    shown = text(run_table(runs[0]))
    for each in runs[0].exits:
        assert each.test is not None
        assert f"{each.kept:,}" in shown
        assert f"{100 * each.test.top1:.1f} %" in shown
    assert sentence(runs[0]) in shown


def test_runs_of_one_shape_end_with_their_mean(runs: list[Summary]) -> None:
    last = text(comparison_table(runs[:2])).rstrip().splitlines()[-1]
    tests = [run.exits[-1].test for run in runs[:2]]
    mean = sum(score.top1 for score in tests if score) / 2
    assert f"{100 * mean:.2f} ±" in last


def test_runs_of_other_recipes_have_no_common_mean(runs: list[Summary]) -> None:
    shown = text(comparison_table([runs[0], runs[2]]))
    assert "mean" not in shown
    assert runs[0].name in shown
    assert runs[2].name in shown


def test_a_table_of_several_recipes_has_a_mean_below_each_group(runs: list[Summary]) -> None:
    lines = [
        line.split()[0] for line in text(comparison_table([runs[0], runs[2], runs[1]])).splitlines() if "%" in line
    ]
    assert lines == [runs[0].name, runs[1].name, "mean", runs[2].name]
