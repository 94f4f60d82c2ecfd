"""The average is the closed form of its definition, and has every stage, width and mask of the network it follows."""

import pytest
import torch

from ramify.config.rules import NetworkConfig
from ramify.nn.masked import masked_layers
from ramify.nn.network import Network
from ramify.ops.average import Average, average_decay
from ramify.ops.growing.grow import grow
from ramify.ops.growing.widen import widen
from ramify.ops.pruning.prune import apply_pruning, plan_pruning, prune
from ramify.ops.surgery import revived

CONFIG = NetworkConfig(structure=(1, 0, 1), channels=4, input_shape=(1, 8, 8), classes=10)
SEEN = "stem.norm.num_batches_tracked"
FIRST, LATER = "stem.conv.weight", "stages.1.cells.0.conv1.weight"


def move(network: Network, seed: int) -> None:
    """Weights and statistics wander, masked weights stay."""
    draw = torch.Generator().manual_seed(seed)
    masks = {f"{name}.weight": layer.mask for name, layer in masked_layers(network).items()}
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.is_floating_point() and name not in ("mean", "std"):
                value.add_(torch.rand(value.shape, generator=draw))
                value.mul_(masks.get(name, torch.ones(())))


def closed_form(start: torch.Tensor, along: list[torch.Tensor], decay: float) -> torch.Tensor:
    """``sum_t w_t x_t`` with the weight that each value has in the end."""
    decays = [average_decay(decay, t) for t in range(len(along))]
    weights = [1 - d for d in decays]
    for t in range(len(along)):
        for later in decays[t + 1 :]:
            weights[t] *= later
    assert sum(weights) < 1
    found = start.double() * (1 - sum(weights))
    for weight, value in zip(weights, along, strict=True):
        found = found + weight * value.double()
    return found


@pytest.mark.parametrize("decay", [0.5, 0.999])
def test_it_is_its_closed_form_also_of_batch_norm(decay: float) -> None:
    network = Network(CONFIG, seed=0)
    average = Average.of(network, decay)
    names = (FIRST, "stem.norm.weight", "stem.norm.running_mean", "stem.norm.running_var")
    along: dict[str, list[torch.Tensor]] = {name: [network.state_dict()[name].clone()] for name in names}
    follow = average.following(network)
    for step in range(30):
        move(network, step)
        network.get_buffer(SEEN).add_(1)
        follow()
        for name in names:
            along[name].append(network.state_dict()[name].clone())
    for name in names:
        expected = closed_form(along[name][0], along[name][1:], decay).float()
        torch.testing.assert_close(average.network.state_dict()[name], expected, rtol=1e-4, atol=1e-5)
    assert average.network.get_buffer(SEEN).item() == 30
    assert torch.equal(average.network.std, network.std)


def test_the_decay_rises_to_what_is_asked_for() -> None:
    found = [average_decay(0.99, t) for t in range(2000)]
    assert found == sorted(found)
    assert (found[0], found[-1]) == (0.1, 0.99)


def test_a_stage_that_comes_later_is_followed_and_soon_forgets_its_birth() -> None:
    network = Network(CONFIG, seed=0)
    average = Average.of(network, 0.999)
    follow = average.following(network)
    for _ in range(500):
        follow()
    growth = grow(network, seed=1, followers=[average.network])
    average.renew(network, [growth.stage])
    assert average.updates == [500, 0]
    assert torch.equal(average.network.get_parameter(LATER), network.get_parameter(LATER))
    born = network.get_parameter(LATER).detach().clone()
    follow = average.following(network)
    along = []
    for step in range(20):
        move(network, step)
        follow()
        along.append(network.get_parameter(LATER).detach().clone())
    assert average.updates == [520, 20]
    expected = closed_form(born, along, 0.999).float()
    torch.testing.assert_close(average.network.get_parameter(LATER).detach(), expected, rtol=1e-4, atol=1e-5)


def test_masks_hold_in_the_average() -> None:
    network = Network(CONFIG, stages=3, seed=0)
    average = Average.of(network, 0.9)
    prune(network, 0.3, "magnitude", followers=[average.network])
    follow = average.following(network)
    for step in range(10):
        move(network, step)
        follow()
    ours = masked_layers(average.network)
    for name, layer in masked_layers(network).items():
        assert torch.equal(ours[name].mask, layer.mask)
    assert revived(average.network) == 0
    assert revived(network) == 0


def test_widening_is_followed() -> None:
    network = Network(CONFIG, stages=3, seed=0)
    average = Average.of(network, 0.9)
    for step in range(5):
        move(network, step)
        average.following(network)()
    widening = widen(network, 1, 2, seed=0, followers=[average.network])
    average.renew(network, [widening.stage])
    assert average.updates == [5, 0, 5]
    assert average.network.plans == network.plans
    assert torch.equal(average.network.get_parameter(LATER), network.get_parameter(LATER))
    average.following(network)()


def test_a_stage_that_is_redrawn_begins_again() -> None:
    network = Network(CONFIG, stages=3, seed=0)
    average = Average.of(network, 0.9)
    move(network, 0)
    plan = plan_pruning(network, {1: 0.5}, "magnitude", reinit=True, seed=3)
    apply_pruning(network, plan, followers=[average.network])
    average.renew(network, plan.stages)
    assert torch.equal(average.network.get_parameter(LATER), network.get_parameter(LATER))
    assert not torch.equal(average.network.get_parameter(FIRST), network.get_parameter(FIRST))
