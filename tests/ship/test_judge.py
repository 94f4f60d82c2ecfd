"""What the graphs make of logits is what the policy makes of them, bit for bit."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ramify.ops.policy import Criterion, Policy, follow
from ramify.ship.judge import State, judge

CRITERIA: tuple[Criterion, ...] = ("max_probability", "margin", "entropy", "patience")

policies = st.builds(
    Policy,
    thresholds=st.tuples(*[st.none() | st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]) | st.floats(0, 1)] * 3),
    criterion=st.sampled_from(CRITERIA),
    temperatures=st.none() | st.tuples(*[st.floats(0.1, 10)] * 4),
)


def drawn(seed: int, scale: float) -> Tensor:
    """Logits ``[4, 30, 5]``, some of them not finite, whose exits often agree."""
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(4, 30, 5, generator=random) + 2 * torch.randn(1, 30, 5, generator=random)
    logits[1, 0, 2] = math.nan
    logits[2, 1, 2] = math.inf
    return scale * logits


@given(policies, st.integers(0, 1000), st.sampled_from([0.3, 3.0, 300.0]))
def test_judging_exit_by_exit_is_following_the_policy(policy: Policy, seed: int, scale: float) -> None:
    logits = drawn(seed, scale)
    state = State()
    for at in range(policy.exits):
        state = judge(policy, at, logits[at], state)
    expected = follow(policy, logits)
    assert state.classes is not None
    assert state.exits is not None
    assert torch.equal(state.exits, expected.exits)
    assert torch.equal(state.classes, expected.classes)
    assert state.confidence is not None
    assert torch.equal(state.confidence, expected.confidence)
