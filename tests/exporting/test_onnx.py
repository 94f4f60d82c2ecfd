"""The graphs that were written: three shapes of one network, which run what they say and carry nothing else."""

import json
import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

from ramify.answer.card import parse_onnx
from ramify.answer.runtime import Runtime
from ramify.exporting.check import TOLERANCE, logits_of, runner
from ramify.exporting.onnx import JUDGED
from ramify.exporting.write import Export
from ramify.ops.exits.policy import follow
from ramify.run.saved import load, load_policy


@pytest.fixture(scope="module")
def folder(exported: Export) -> Path:
    return Path(exported.folder)


def test_all_three_shapes_are_the_network_on_500_pictures(demo: Path, folder: Path, digits: Tensor) -> None:
    network, policy = load(demo), load_policy(demo)
    assert policy is not None
    logits = logits_of(network, digits)
    run_all, run_early = (runner((folder / name).read_bytes()) for name in ("all_exits.onnx", "early_exit.onnx"))
    staged = Runtime(folder)
    for some in (digits[:1], digits[:7], digits):
        expected = logits[:, : len(some)]
        assert (run_all(some)[0] - expected).abs().max() <= TOLERANCE
        assert (torch.from_numpy(staged.logits(some.numpy())) - expected).abs().max() <= TOLERANCE
    outputs, prediction = run_early(digits), follow(policy, logits)
    near = (prediction.confidence - outputs[1]).abs() > TOLERANCE  # left elsewhere, with a confidence at its threshold
    assert int(near.sum()) <= 1
    assert torch.equal(outputs[0][~near], prediction.classes[~near])
    assert torch.equal(outputs[2][~near], prediction.exits[~near])
    assert len(prediction.exits.unique()) == 3, "the pictures leave at every exit, or this test shows little"


def executed(path: Path, picture: Tensor, folder: Path) -> int:
    """How many convolutions ONNX Runtime ran for one picture, by its own profile."""
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    session.run(None, {"images": picture.numpy()})
    events = json.loads(Path(session.end_profiling()).read_text())
    return sum("Conv" in event.get("args", {}).get("op_name", "") for event in events)


def test_stages_behind_the_answer_are_not_executed(folder: Path, digits: Tensor, tmp_path: Path) -> None:
    early = folder / "early_exit.onnx"
    exits = runner(early.read_bytes())(digits)[2]
    alone = [digits[int((exits == at).nonzero()[0, 0])][None] for at in range(3)]
    run = runner(early.read_bytes())
    assert [run(picture)[3].tolist() for picture in alone] == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    counts = [executed(early, picture, tmp_path) for picture in alone]
    # The stem and one cell, two cells more, and in the last stage there is none; two layers a cell.
    assert counts[0] < counts[1] == counts[2] == executed(folder / "all_exits.onnx", alone[0], tmp_path)


def test_a_file_carries_no_path_of_the_machine_and_no_weight_in_vain(folder: Path) -> None:
    for path in folder.rglob("*.onnx"):
        content = path.read_bytes()
        assert not re.search(rb"/(home|tmp|work|usr|root)/|\.py\b", content), path
        model = parse_onnx(content, str(path))
        onnx.checker.check_model(model, full_check=True)
        assert [entry.key for entry in model.metadata_props] == ["ramify"]
        first, *others = model.graph.input
        assert first.name == ("trunk" if path.parent.name == "stages" and path.stem != "0" else "images")
        assert first.type.tensor_type.shape.dim[0].dim_param == "batch"
        stage = path.parent.name == "stages"
        assert {value.name for value in others} <= ({"threshold", "seen"} if stage else set())
        assert [value.name for value in model.graph.output][-3:] == list(JUDGED) or not stage
        used = {name for node in model.graph.node for name in node.input}
        assert {weight.name for weight in model.graph.initializer} <= used


def test_every_weight_that_was_pruned_is_zero_in_the_file(demo: Path, folder: Path) -> None:
    model = parse_onnx((folder / "all_exits.onnx").read_bytes(), "all_exits.onnx")
    weights = [onnx.numpy_helper.to_array(each) for each in model.graph.initializer]
    zeros = sum(int((each == 0).sum()) for each in weights if each.ndim == 4)
    masks = [buffer for name, buffer in load(demo).named_buffers() if name.endswith("mask") and buffer.dim() == 4]
    assert zeros >= sum(int((~mask).sum()) for mask in masks) > 0
    assert np.isfinite(np.concatenate([each.ravel() for each in weights if each.dtype == np.float32])).all()
