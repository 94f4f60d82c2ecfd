"""The tables of classes and the CSV files say what was measured."""

import csv
from pathlib import Path

import pytest
import torch
from rich.console import Console

from ramify.errors import InputError
from ramify.run.classes import ClassResults, class_results
from ramify.show.terminal.classes import chosen_results, class_tables, matrix_table, write_csv

LOGITS = torch.tensor([[[2.0, 0.0], [1.0, 0.0], [0.0, 3.0]], [[2.0, 0.0], [0.0, 1.0], [4.0, 0.0]]])
RESULTS = class_results(LOGITS, torch.tensor([0, 1, 1]), ['a,"b"', "dog"], torch.tensor([0, 1, 1]), ["x", "y", "z"])


def shown(results: ClassResults) -> str:
    console = Console(width=100, color_system=None)
    with console.capture() as capture:
        console.print(class_tables(results))
        console.print(matrix_table(results))
    return capture.get()


def test_an_exit_is_chosen_by_its_number() -> None:
    assert chosen_results(RESULTS) is RESULTS[2]
    assert chosen_results(RESULTS, "policy") is RESULTS[2]
    assert chosen_results(RESULTS, "1") is RESULTS[0]
    with pytest.raises(InputError, match=r"--confusion: got '3'; accepted: 1, 2, policy$"):
        chosen_results(RESULTS, "3")
    with pytest.raises(InputError, match="a policy comes from ramify calibrate"):
        chosen_results(RESULTS[:2], "policy")


def test_the_tables_name_classes_and_files() -> None:
    text = shown(RESULTS[1])
    for word in ("precision", "recall", "dog", "50.0 %", "z", "98.2 %", "Confusion matrix of exit 2"):
        assert word in text


def test_the_files_hold_every_exit(tmp_path: Path) -> None:
    write_csv(tmp_path, RESULTS)
    assert len(list(tmp_path.iterdir())) == 9
    with (tmp_path / "confusion-exit-2.csv").open() as file:
        assert list(csv.reader(file)) == [["true class", 'a,"b"', "dog"], ['a,"b"', "1", "0"], ["dog", "1", "1"]]
    with (tmp_path / "mistakes-policy.csv").open() as file:
        assert list(csv.reader(file))[1][:3] == ["z", "dog", 'a,"b"']
