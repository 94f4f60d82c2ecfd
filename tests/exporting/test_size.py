"""The size of an export, told before it is written."""

from pathlib import Path

import pytest

from ramify.data.sources import load_pictures
from ramify.exporting.size import int8_bytes
from ramify.exporting.write import export
from ramify.run.checkpoint import read_model
from ramify.training.run import train
from tests.conftest import tiny


@pytest.mark.slow
def test_it_is_that_of_the_file_but_for_its_card(tmp_path: Path) -> None:
    config = tiny("train.epochs=3", f"runs_dir={tmp_path}", "name=run")
    train(config)
    export(tmp_path / "run", quantize="int8")
    size = (tmp_path / "run" / "onnx-int8" / "all_exits.onnx").stat().st_size
    network, _ = read_model(tmp_path / "run" / "best")
    found = int8_bytes(network, load_pictures(config.data).test)
    assert 0 <= size - found < 3000
