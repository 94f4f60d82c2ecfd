"""What is said to be the same for all pictures is, and what is masked away is found."""

import torch
from torch import Tensor, nn

from ramify.nn.constants import LayerInput, constants
from ramify.nn.masked import MaskedConv2d, MaskedLinear, masked_layers
from ramify.ops.surgery import set_masks
from tests.ops.networks import build, chain, every_narrow, pictures_for


def heard(network: nn.Module, pictures: Tensor) -> dict[str, LayerInput]:
    """Of each layer which inputs were the same for these pictures, and which were 0."""
    found: dict[str, LayerInput] = {}

    def listen(layer: nn.Module, read: tuple[Tensor, ...]) -> None:
        rows = read[0].movedim(1, 1).flatten(2) if read[0].dim() > 2 else read[0][:, :, None]
        same = torch.isclose(rows, rows[:1], rtol=0, atol=1e-12).all(dim=2).all(dim=0)
        found[names[layer]] = LayerInput(same, (rows == 0).all(dim=2).all(dim=0))

    names: dict[nn.Module, str] = {layer: name for name, layer in masked_layers(network).items()}
    hooks = [layer.register_forward_pre_hook(listen) for layer in names]
    with torch.no_grad():
        network(pictures)
    for hook in hooks:
        hook.remove()
    return found


@every_narrow
def test_what_is_called_constant_is_so_for_every_picture(name: str) -> None:
    network = chain(name).double()
    draw = torch.Generator().manual_seed(3)
    layers = masked_layers(network)
    masks = {key: torch.rand(layer.mask.shape, generator=draw) < 0.5 for key, layer in layers.items()}
    for key, mask in masks.items():
        if ".exit" not in key:
            mask[torch.rand(len(mask), generator=draw) < 0.3] = False
    set_masks(network, masks)
    pictures = pictures_for(network, 12).double()
    found, truth = constants(network, pictures[:1]), heard(network, pictures)
    assert found.inputs.keys() == layers.keys()
    for key, (constant, zero) in found.inputs.items():
        assert not (constant & ~truth[key].constant).any(), key
        assert torch.equal(zero, constant & truth[key].zero), key
    answers = network(pictures).detach()
    known = ~found.output.isnan()
    same = torch.isclose(found.output, answers, rtol=0, atol=1e-12 * float(answers.abs().max()))
    assert same[known.expand_as(same)].all()
    assert any(constant.any() for constant, _ in found.inputs.values())


def test_nothing_of_a_whole_network_is_constant() -> None:
    network = build("dense")
    found = constants(network, pictures_for(network, 1))
    assert not any(constant.any() or zero.any() for constant, zero in found.inputs.values())
    assert found.output.isnan().all()
    assert pictures_for(network, 1).isfinite().all()


class Paths(nn.Module):
    """What a dead channel gives goes along several paths to as many layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = MaskedConv2d(1, 3, 3)
        self.norm = nn.BatchNorm2d(3)
        self.closed, self.product, self.compared = (MaskedConv2d(3, 2, 1) for _ in range(3))
        self.head = MaskedLinear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x))
        silent = torch.relu(x)
        product = x * silent[:, :1]  # of a constant and of what depends
        compared = torch.where(x > 0, torch.ones_like(x), torch.zeros_like(x))
        sum_of_all = self.closed(silent) + self.product(product) + self.compared(compared)
        logits: Tensor = self.head(sum_of_all.amax(dim=(2, 3)))
        return logits


def test_dead_channels_are_followed_along_every_path() -> None:
    network = Paths().eval()
    first = network.first.mask.clone()
    first[:2] = False
    set_masks(network, {"first": first})
    with torch.no_grad():
        network.norm.bias.copy_(torch.tensor([-1.0, 2.0, 0.5]))
    found = constants(network, torch.rand(1, 1, 6, 6)).inputs
    assert found["first"].constant.tolist() == [False]
    assert (found["closed"].constant.tolist(), found["closed"].zero.tolist()) == (
        [True, True, False],
        [True, False, False],
    )
    # Zero times anything is zero.
    assert found["product"].zero.tolist() == [True, True, True]
    # A comparison with what depends says neither yes nor no, and nothing is claimed of what is made of it.
    assert not found["compared"].constant.any()
    assert found["head"].constant.tolist() == [False, False]


def test_a_layer_that_is_used_twice_reads_what_both_uses_do() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = MaskedConv2d(2, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            again: Tensor = self.layer(torch.relu(self.layer(x)))
            return again

    network = Twice().eval()
    set_masks(network, {"layer": torch.tensor([[True, True], [False, False]])[..., None, None]})
    found = constants(network, torch.rand(1, 2, 4, 4))
    assert found.inputs["layer"].constant.tolist() == [False, False]  # the pictures themselves do
    assert found.output[0, 1].tolist() == torch.zeros(4, 4).tolist()
    assert found.output[0, 0].isnan().all()


def test_masked_weights_read_nothing_and_a_part_can_be_asked_for() -> None:
    network = nn.Sequential(MaskedConv2d(2, 2, 1, bias=True), nn.Flatten(), MaskedLinear(8, 1)).eval()
    layer = network[0]
    assert isinstance(layer, MaskedConv2d)
    assert layer.bias is not None
    with torch.no_grad():
        layer.mask[0] = False
        layer.bias.copy_(torch.tensor([0.25, 0.5]))
    part = constants(network, torch.rand(1, 2, 2, 2), network[0])
    assert part.output[0, 0].tolist() == [[0.25, 0.25], [0.25, 0.25]]
    assert part.output[0, 1].isnan().all()
    assert list(part.inputs) == ["0"]
    assert constants(network, torch.rand(1, 2, 2, 2)).inputs["2"].constant.tolist() == [True] * 4 + [False] * 4
