"""``ramify.json`` is believed only where it makes sense, and it leads nowhere out of its folder."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ramify.errors import InputError
from ramify.ship.exported import CARD, is_exported, read_exported

GOOD: dict[str, Any] = {
    "format": 1,
    "name": "demo",
    "precision": "float32",
    "input_shape": [1, 8, 8],
    "classes": ["0", "1"],
    "exits": [{"cells": i, "macs": 10 * i, "weights": i, "valid": None, "test": 0.5} for i in (1, 2)],
    "policy": {"thresholds": [0.9], "criterion": "margin", "temperatures": None, "told": "policy: calibrated"},
    "files": {"stages": ["stages/0.onnx", "stages/1.onnx"]},
}


def written(folder: Path, document: object) -> Path:
    (folder / CARD).write_text(document if isinstance(document, str) else json.dumps(document))
    return folder


def test_what_is_there_is_read(tmp_path: Path) -> None:
    assert not is_exported(tmp_path)
    found = read_exported(written(tmp_path, GOOD))
    assert is_exported(tmp_path)
    assert (found.name, found.thresholds, found.exits[1].macs) == ("demo", (0.9,), 20)
    asked = found.at_threshold(0.25)
    assert (asked.thresholds, asked.criterion, asked.temperatures) == ((0.25,), "max_probability", None)
    with pytest.raises(InputError, match=r"threshold: got 2; accepted: a number in \[0, 1\]"):
        found.at_threshold(2)


WRONG: list[tuple[str, object]] = [
    ("format", 2),
    ("input_shape", [1, 8]),
    ("input_shape", [1, 0, 8]),
    ("classes", ["0"]),
    ("classes", [0, 1]),
    ("exits", GOOD["exits"][:1]),
    ("exits", [{"cells": 1}, {"cells": 2}]),
    ("policy.thresholds", [1.5]),
    ("policy.thresholds", [True]),
    ("policy.thresholds", []),
    ("policy.temperatures", [1.0]),
    ("policy.temperatures", [0, 1]),
    ("policy.criterion", "luck"),
    ("files.stages", ["stages/0.onnx"]),
    ("files.stages", ["/etc/passwd", "stages/1.onnx"]),
    ("files.stages", ["../0.onnx", "stages/1.onnx"]),
    ("files.stages", ["..\\0.onnx", "stages/1.onnx"]),
    ("files", None),
]


@pytest.mark.parametrize(("key", "value"), WRONG, ids=[f"{key}={value}"[:40] for key, value in WRONG])
def test_what_makes_no_sense_is_refused(tmp_path: Path, key: str, value: object) -> None:
    document = json.loads(json.dumps(GOOD))
    *above, name = key.split(".")
    (document[above[0]] if above else document)[name] = value
    with pytest.raises(InputError, match=r"ramify\.json: .*accepted: "):
        read_exported(written(tmp_path, document))


@settings(max_examples=40)
@given(
    st.text()
    | st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x))
)
def test_anything_else_is_refused_too(tmp_path_factory: pytest.TempPathFactory, document: object) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / CARD).write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    with pytest.raises(InputError, match="is damaged"):
        read_exported(folder)


def test_a_folder_of_programs_and_one_without_anything_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is missing; accepted: a folder of ramify export --to onnx"):
        read_exported(tmp_path)
    programs = {**GOOD, "files": {"stages": []}}
    with pytest.raises(InputError, match="holds PyTorch programs; accepted: a folder of ramify export --to onnx"):
        read_exported(written(tmp_path, programs))
