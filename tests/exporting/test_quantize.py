"""int8: as accurate to within a point, smaller, and one network in all three shapes."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ramify.answer.card import parse_onnx, read_card
from ramify.answer.runtime import Runtime
from ramify.data.sources import load_pictures
from ramify.exporting.check import runner
from ramify.exporting.quantize import int8_bytes
from ramify.exporting.write import Export
from ramify.run.saved import config_of, load
from tests.conftest import CommandLine


def test_int8_is_as_accurate_to_within_a_point_and_as_small_as_said(
    ramify: CommandLine, demo: Path, exported: Export, digits: Tensor, tmp_path: Path
) -> None:
    folder = tmp_path / "int8"
    result = ramify("export", str(demo), "--quantize", "int8", "--json", "--out", str(folder))
    assert (result.code, result.err) == (0, "")
    card = read_card(folder)
    quantization = card.quantization
    assert quantization is not None
    assert json.loads(result.out)["card"]["quantization"]["after"] == list(quantization.after)
    assert (card.precision, len(quantization.before), len(quantization.after)) == ("int8", 3, 3)
    assert quantization.calibration_pictures == 512
    assert quantization.before == pytest.approx([at.test for at in card.exits])
    assert quantization.before[-1] > 0.8, "the digits were learned, or this shows nothing"
    assert all(
        abs(after - before) <= 0.01 for before, after in zip(quantization.before, quantization.after, strict=True)
    )

    # It is int8: the weights of layers are, and the logits are not those of float32.
    model = parse_onnx((folder / "all_exits.onnx").read_bytes(), "")
    assert sum(weight.data_type == 3 for weight in model.graph.initializer) >= 5
    staged = torch.from_numpy(Runtime(folder).logits(digits.numpy()))
    whole = runner((folder / "all_exits.onnx").read_bytes())(digits)[0]
    exact = runner(Path(exported.folder, "all_exits.onnx").read_bytes())(digits)[0]
    assert (whole - staged).abs().max() <= 0.02 * staged.abs().max()
    assert 1e-3 < (staged - exact).abs().max() < 0.3 * exact.abs().max()

    size = (folder / "all_exits.onnx").stat().st_size
    assert 0 <= size - int8_bytes(load(demo), load_pictures(config_of(demo).data).test) < 3000
