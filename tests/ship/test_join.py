"""Graphs of stages put together answer as the policy says, whatever its criterion."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ramify.ops.policy import Criterion, Policy, confidences, follow
from ramify.run.saved import load
from ramify.ship.check import TOLERANCE, check_early, logits_of, runner, session
from ramify.ship.export import Export
from ramify.ship.graphs import OneJudgement
from ramify.ship.join import join
from ramify.ship.needs import parse_onnx
from ramify.ship.onnx import to_onnx

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "policy",
    [Policy((0.5, None), "patience"), Policy((None, 0.9), temperatures=(1.0, 0.7, 1.0))],
    ids=["patience", "max_probability"],
)
def test_joined_stages_are_the_network_and_its_policy(
    demo: Path, exported: Export, digits: Tensor, policy: Policy
) -> None:
    paths = [Path(exported.folder, name) for name in exported.card.files.stages]
    joined = join([parse_onnx(path.read_bytes(), str(path)) for path in paths], policy)
    network = load(demo)
    logits = logits_of(network, digits)
    run_all = runner(joined.all_exits.SerializeToString())
    assert (run_all(digits)[0] - logits).abs().max() <= TOLERANCE
    run_early = runner(joined.early_exit.SerializeToString())

    def run(images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        classes, confidence, exits, ran = run_early(images)
        return classes, confidence, exits, ran

    found = check_early("joined", run, digits, logits, policy, network)
    assert found.ties <= 1
    first = 0 if policy.thresholds[0] is not None else 1
    left = follow(policy, logits[:, :64]).exits
    assert found.executed == (64, *(int((left >= at).sum()) if at > first else 64 for at in (1, 2)))


@pytest.mark.parametrize("criterion", ["margin", "entropy"])
def test_a_criterion_is_the_same_number_in_onnx_runtime(criterion: Criterion) -> None:
    policy = Policy((0.5,), criterion, (0.7, 1.0))
    asked = OneJudgement(policy, 0)
    assert asked.given == ()
    assert asked.gives == ("classes", "confidence", "exits", "stays", "go")
    graph = to_onnx(asked, (torch.zeros(2, 4),), ["logits"], asked.gives)
    logits = 3 * torch.randn(2, 50, 4, generator=torch.Generator().manual_seed(0))
    classes, confidence, exits, stays, go = session(graph.SerializeToString()).run(None, {"logits": logits[0].numpy()})
    expected = confidences(logits, criterion, policy.temperatures)[0].numpy()
    assert np.abs(confidence - expected).max() <= 1e-6
    assert (classes == logits[0].argmax(dim=1).numpy()).all()
    assert not exits.any()
    assert (stays == (confidence < np.float32(0.5))).all()
    assert bool(go) == bool(stays.any())
