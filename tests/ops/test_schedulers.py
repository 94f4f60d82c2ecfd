"""PyTorch's schedulers go on after a growth, and drive the new parameters as the rest."""

from collections.abc import Callable

import pytest
import torch
from torch.optim import lr_scheduler as torch_schedulers
from torch.optim.lr_scheduler import LRScheduler

from ramify.config.rules import NetworkConfig
from ramify.errors import InputError
from ramify.nn.network import Network
from ramify.ops.growing.grow import grow
from ramify.ops.loss import exit_losses
from ramify.ops.surgery import parameter_groups

S = torch_schedulers
Make = Callable[[torch.optim.Optimizer], LRScheduler]
KINDS: dict[str, Make] = {
    "LambdaLR": lambda o: S.LambdaLR(o, lambda step: 0.9**step),
    "MultiplicativeLR": lambda o: S.MultiplicativeLR(o, lambda step: 0.9),
    "CosineAnnealingLR": lambda o: S.CosineAnnealingLR(o, 9),
    "CosineAnnealingWarmRestarts": lambda o: S.CosineAnnealingWarmRestarts(o, 5),
    "CyclicLR": lambda o: S.CyclicLR(o, 0.001, 0.1, step_size_up=4),
    "OneCycleLR": lambda o: S.OneCycleLR(o, 0.1, total_steps=12),
    "MultiStepLR": lambda o: S.MultiStepLR(o, [2, 4]),
    "PolynomialLR": lambda o: S.PolynomialLR(o, 9),
    "SequentialLR": lambda o: S.SequentialLR(o, [S.LinearLR(o), S.LambdaLR(o, lambda step: 0.8**step)], [3]),
    "ChainedScheduler": lambda o: S.ChainedScheduler([S.LambdaLR(o, lambda step: 0.9**step), S.ExponentialLR(o, 0.9)]),
}


def rates(
    make: Callable[[torch.optim.Optimizer], LRScheduler], grouped: bool, grows: bool, hand_over: bool
) -> list[float]:
    """The rates after each of six steps, all groups having the same one; growth comes before the third and fifth."""
    config = NetworkConfig(kind="iterative", structure=(1, 1, 0), channels=4, input_shape=(1, 8, 8), classes=4)
    network = Network(config, stages=1 if grows else 3, seed=0)
    parameters = parameter_groups(network, 1e-4) if grouped else network.parameters()
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    scheduler = make(optimizer)
    images, labels = torch.rand(4, 1, 8, 8), torch.arange(4)
    found: list[float] = []
    for step in range(6):
        if grows and step in (2, 4):
            grow(network, optimizer, schedulers=[scheduler] if hand_over else ())
        exit_losses(network(images), labels).sum().backward()
        optimizer.step()
        scheduler.step()
        now = {round(float(group["lr"]), 9) for group in optimizer.param_groups}
        assert len(now) == 1, f"step {step}: {[group['lr'] for group in optimizer.param_groups]}"
        found += now
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_every_group_follows_the_schedule_through_growth(kind: str) -> None:
    for grouped, hand_over in ((True, False), (False, True)):
        assert rates(KINDS[kind], grouped, True, hand_over) == rates(KINDS[kind], grouped, False, False)


def test_a_scheduler_with_lists_of_its_own_is_named_before_anything_changes() -> None:
    class Own(S.LambdaLR):
        def __init__(self, optimizer: torch.optim.Optimizer) -> None:
            self.scales = [1.0] * len(optimizer.param_groups)
            super().__init__(optimizer, lambda step: 1.0)

    config = NetworkConfig(kind="iterative", structure=(1, 0), channels=4, input_shape=(1, 8, 8), classes=4)
    network = Network(config, seed=0)
    optimizer = torch.optim.SGD(parameter_groups(network, 0), lr=0.1)
    scheduler = Own(optimizer)
    with pytest.raises(InputError, match=r"got Own, whose list scales"):
        grow(network, optimizer)
    assert (len(network.stages), len(optimizer.param_groups)) == (1, 2)
    with pytest.raises(InputError, match="of another optimizer"):
        grow(network, torch.optim.SGD(network.parameters(), lr=0.1), schedulers=[scheduler])
