import io

import pytest
import torch
from rich.console import Console, RenderableType

from ramify.ops.exits.analysis import Analysis, CurvePoint, analyze
from ramify.show.terminal.analysis import (
    CLASSES,
    ROWS,
    agreement_table,
    analysis_tables,
    class_table,
    curve_table,
    exit_figures_table,
    readable_points,
)


def text(item: RenderableType, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(item)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def made(exits: int = 3, classes: int = 10, pictures: int = 400, timed: bool = False, policy: bool = False) -> Analysis:
    """An analysis of random logits that the true class stands out of, the more the deeper the exit."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.randint(classes, (pictures,), generator=draw)
    logits = torch.randn(exits, pictures, classes, generator=draw)
    ease = 4 * torch.rand(pictures, generator=draw)
    for i in range(exits):
        logits[i, torch.arange(pictures), labels] += ease * (i + 1) / exits + 1
    return analyze(
        2 * logits,
        labels,
        [9_000_000 * (i + 1) for i in range(exits)],
        [f"class {i}" for i in range(classes)],
        [0.5 * (i + 1) for i in range(exits)] if timed else None,
        labels % exits if policy else None,
    )


def rows(shown: str) -> list[list[str]]:
    """The words of each line."""
    return [line.split() for line in shown.splitlines()]


def curve(*figures: tuple[float, float]) -> list[CurvePoint]:
    """Points of these accuracies and MACs."""
    return [CurvePoint(accuracy, macs, None, (1.0,), i) for i, (accuracy, macs) in enumerate(figures)]


@pytest.mark.parametrize("exits", [1, 2, 7, 8, 9, 12, 15])
@pytest.mark.parametrize("classes", [2, 100])
def test_everything_fits_80_columns_uncut(exits: int, classes: int) -> None:
    shown = text(analysis_tables(made(exits, classes, timed=True)))
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_the_figures_of_each_exit_are_shown() -> None:
    analysis = made(timed=True)
    shown = text(exit_figures_table(analysis))
    for i, accuracy in enumerate(analysis.accuracy):
        figures = accuracy, analysis.averaged[i], analysis.reliability[i].error
        told = [str(i + 1), *(f"{100 * figure:.1f} %" for figure in figures), f"{9 * (i + 1)}.0 M"]
        told += [f"{100 * (i + 1) / 3:.1f} %", f"{0.5 * (i + 1):.2f} ms"]
        assert " ".join(told).split() in rows(shown)


def test_latency_is_shown_only_where_it_was_measured() -> None:
    assert "latency" in text(analysis_tables(made(timed=True)))
    assert "latency" not in text(analysis_tables(made()))


def test_one_exit_is_no_early_exit() -> None:
    shown = text(analysis_tables(made(exits=1)))
    assert "The only exit, on 400 pictures" in shown
    for title in ("Leaving early", "Overthinking", "Confusion score", "Agreement", "Classes"):
        assert title not in shown
        assert title in text(analysis_tables(made(exits=2)))


def test_the_curve_shows_the_best_of_each_budget() -> None:
    points = curve((0.5, 100), (0.7, 150), (0.6, 160), (0.8, 220), (0.8, 240), (0.75, 300))
    found = readable_points(points, rows=4)  # within 100, 200 and 300, and the last exit
    assert [(point.accuracy, point.macs) for point in found] == [(0.5, 100), (0.7, 150), (0.8, 220), (0.75, 300)]


def test_a_curve_of_equal_costs_is_its_best_and_its_last_point() -> None:
    assert readable_points(curve((0.5, 100), (0.7, 100), (0.6, 100)))[0].accuracy == 0.7
    assert len(readable_points(curve((0.5, 100), (0.7, 100), (0.6, 100)))) == 2


@pytest.mark.parametrize("exits", [2, 5, 9])
def test_the_curve_runs_from_the_first_exit_to_the_last_and_the_oracle(exits: int) -> None:
    analysis = made(exits)
    lines = rows(text(curve_table(analysis)))
    points = readable_points(analysis.curve)
    assert len(points) <= ROWS
    first, last, oracle = (next(line for line in lines if line[:1] == [name]) for name in ("0", "above", "oracle"))
    assert first[1] == f"{100 * analysis.accuracy[0]:.1f}"
    assert last[2:6] == [f"{100 * analysis.accuracy[-1]:.1f}", "%", "100.0", "%"]
    assert last[-1] == "100"
    assert oracle[1] == f"{100 * analysis.oracle.accuracy:.1f}"


def test_neighbours_share_a_column_where_exits_are_many() -> None:
    header = rows(text(curve_table(made(exits=13))))[0]
    assert header[-5:] == ["1-3", "4-6", "7-9", "10-12", "13"]


def test_what_is_wasted_and_destroyed_is_said() -> None:
    analysis = made()
    found = analysis.overthinking
    shown = " ".join(text(analysis_tables(analysis)).split())
    assert f"{100 * found.wasteful:.1f} % wasteful" in shown
    assert f"{100 * found.destructive:.1f} % destructive" in shown
    assert f"{found.wasted_macs / 1e6:.1f} M MACs a picture" in shown
    assert analysis.confusion_score is not None
    assert analysis.confusion_score.auroc is not None
    assert f"{analysis.confusion_score.auroc:.3f} AUROC of the confusion score" in shown


@pytest.mark.parametrize(("label", "word"), [(0, "wrong"), (1, "right")])
def test_nothing_to_tell_apart_is_said(label: int, word: str) -> None:
    logits = torch.tensor([[[1.0, 0.0]], [[2.0, 0.0]]])
    shown = text(analysis_tables(analyze(logits, torch.tensor([label]), [1, 2], ["a", "b"])))
    assert f"the last exit gets nothing {word}" in shown
    assert "None" not in shown
    assert "nan" not in shown


def test_agreement_shows_each_pair_of_exits() -> None:
    analysis = made()
    lines = rows(text(agreement_table(analysis)))
    alike = [[f"{100 * share:.1f}" for share in row] for row in analysis.agreement]
    kept = [f"{100 * (row[-1] or 0):.1f}" for row in analysis.shared]
    assert ["1", alike[0][1], alike[0][2], kept[0], "%"] in lines
    assert ["2", alike[1][0], alike[1][2], kept[1], "%"] in lines
    assert ["3", alike[2][0], alike[2][1]] in lines


def test_classes_go_from_the_cheapest_to_the_dearest() -> None:
    analysis = made(policy=True)
    shown = text(analysis_tables(analysis))
    assert "Classes, leaving by the policy" in shown
    assert "Classes, leaving at the first right exit" in text(analysis_tables(made()))
    costs = [float(line[3]) for line in rows(text(class_table(analysis))) if line[:1] == ["class"] and "%" in line]
    assert len(costs) == 10
    assert costs == sorted(costs)


def test_of_many_classes_the_extremes_are_shown() -> None:
    lines = rows(text(class_table(made(classes=30, pictures=2000))))
    assert sum("%" in line for line in lines) == CLASSES
    assert lines[12] == ["(10", "more)"]


def test_a_class_without_pictures_is_left_out_and_names_are_taken_as_they_are() -> None:
    names = ["[red]box[/red]", "a name that is far too long for a table", "nobody"]
    analysis = analyze(torch.eye(3)[:2].expand(2, 2, 3), torch.tensor([0, 1]), [1, 2], names)
    shown = text(class_table(analysis))
    assert "[red]box[/red]" in shown
    assert "a name that is fa…" in shown
    assert "nobody" not in shown
