"""Exports of networks of every shape: a stage of a cascade needs the logits before it."""

import pytest
import torch

from ramify.exporting.check import Staged, compare_logits, logits_of, runner
from ramify.exporting.graphs import EarlyExit, OneStage, plain
from ramify.exporting.join import all_exits, join_stages
from ramify.exporting.onnx import to_stages
from ramify.exporting.quantize import quantize_stages
from ramify.ops.exits.policy import Policy
from tests.ops.shapes import SHAPES, pictures, shaped


@pytest.mark.parametrize("name", list(SHAPES))
def test_stages_one_by_one_give_what_the_network_gives(name: str) -> None:
    network = shaped(name)
    images = pictures(network)
    expected = network(images).detach()
    scale = float(expected.abs().max().clamp(min=1))
    ready = plain(network)
    torch.testing.assert_close(ready(images), expected, rtol=0, atol=1e-5 * scale)
    tensors, logits = (images,), []
    for at in range(len(network.stages)):
        stage = OneStage(ready, at)
        outputs = stage(*tensors[: len(stage.inputs)])
        tensors = outputs if isinstance(outputs, tuple) else (outputs,)
        logits.append(tensors[-1])
    torch.testing.assert_close(torch.stack(logits), expected, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize(("name", "structure"), [("compact cascade", (1, 1, 0)), ("dense strided", (1, 0))])
def test_graphs_give_what_the_network_gives(name: str, structure: tuple[int, ...]) -> None:
    network = shaped(name, structure=structure)
    images = pictures(network, 24)
    expected = network(images).detach()
    sure = expected.softmax(dim=2).amax(dim=2)
    # Between two confidences: at one of them, rounding would decide.
    middle = sure.sort(dim=1).values[:-1, 11:13].mean(dim=1)
    policy = Policy(thresholds=tuple(middle.tolist()))
    ready = plain(network)
    raw = to_stages(ready)
    graphs = join_stages(raw, policy)
    contents = [stage.SerializeToString() for stage in raw]
    whole = runner(graphs.all_exits.SerializeToString())
    compare_logits("all exits", logits_of(lambda batch: whole(batch)[0], images), expected)
    stages = Staged(contents)
    compare_logits("the stages", logits_of(stages, images), expected)
    prediction = network.predict(images, policy)
    assert torch.equal(stages.predict(images, policy).exits, prediction.exits)
    for run in (EarlyExit(ready, policy), runner(graphs.early_exit.SerializeToString())):
        classes, _, exits, _ = run(images)
        assert torch.equal(classes, prediction.classes)
        assert torch.equal(exits, prediction.exits)
    quantized = quantize_stages(raw, images)
    small = logits_of(Staged([stage.SerializeToString() for stage in quantized]), images)
    int8 = runner(all_exits(quantized).SerializeToString())
    compare_logits("int8", logits_of(lambda batch: int8(batch)[0], images), small)
    assert float((small - expected).abs().mean()) < 0.2 * float(expected.abs().max())
