"""Graphs of stages put together answer as the policy says, whatever its criterion."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ramify.answer.runtime import opened
from ramify.exporting.graphs import OneJudgement
from ramify.exporting.join import judgements
from ramify.ops.exits.fit import mixture, scores
from ramify.ops.exits.policy import CRITERIA, Combine, Fallback, Policy, answers


def drawn_policy(criterion: str, logits: Tensor, labels: Tensor) -> Policy:
    """By ``criterion``, with another way to combine answers and another fallback for some."""
    combine: Combine = "mean" if criterion == "margin" else "weighted" if criterion == "gain" else "last"
    fallback: Fallback = "most_confident" if criterion in ("entropy", "correctable") else "last"
    temperatures = (0.7, 1.0, 1.5)
    weights = mixture(logits, labels, temperatures) if combine == "weighted" else None
    base = Policy((0.5, 0.6), temperatures=temperatures, combine=combine, weights=weights, fallback=fallback)
    return replace(base, criterion=criterion, coefficients=scores(base, criterion, logits, labels) or None)


def test_every_criterion_is_the_same_number_in_onnx_runtime() -> None:
    draw = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(3, 50, 4, generator=draw)
    labels = torch.randint(4, (50,), generator=draw)
    # Each behind another exit, and two at the last one, of which one may answer with an earlier exit.
    cases = [(criterion, 1) for criterion in CRITERIA] + [("max_probability", 2), ("entropy", 2)]
    policies = [drawn_policy(criterion, logits, labels) for criterion, _ in cases]
    graphs = judgements([OneJudgement(policy, at) for policy, (_, at) in zip(policies, cases, strict=True)], 4)
    for i, (graph, policy, (_, at)) in enumerate(zip(graphs, policies, cases, strict=True)):
        classes, sure = answers(policy, logits)
        values = {"seen": logits[:at].numpy(), "logits": logits[at].clone().numpy(), "threshold": np.float32(0.5)}
        feed = {f"{name}{i}": np.asarray(values[name]) for name in OneJudgement(policy, at).inputs}
        session = opened(graph.SerializeToString(), "graph", 1)
        answer, confidence, leaves = session.run(None, feed)
        assert (answer == classes[at].numpy()).all()
        assert np.abs(confidence - sure[at].numpy()).max() <= 2e-6
        assert (leaves == (confidence >= np.float32(0.5) if at < 2 else np.ones(50, bool))).all()
        if policy.criterion == "entropy" and at == 1:
            feed[f"logits{i}"][0, 3] = np.nan
            assert session.run(None, feed)[1][0] == 0
