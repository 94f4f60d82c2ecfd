"""How tests touch channels so that they go, or just stay, and what compaction must leave."""

import copy
from collections.abc import Sequence

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from ramify.nn.branching import Branching
from ramify.nn.graph import ChannelGroup
from ramify.nn.masked import MaskedConv2d, MaskedLinear, masked_layers
from ramify.nn.network import Network, existing_cells
from ramify.ops.pruning.channels import mask_channels, silence
from ramify.ops.pruning.compact import compact
from ramify.ops.surgery import set_masks
from tests.ops.networks import Norm, biased, norms, pictures_for, rectified, relays, without_makers

WAYS = ("lost", "unread", "silent", "constant")
"""How a channel is touched: masked and silenced; its readers masked alone; its makers masked alone, with batch norms
or biases that then give nothing, or something. All go but the last, and even that where no reader gets it."""

RELAYED = (*WAYS, "relayed", "unfiltered", "unfiltered constant")
"""Of a channel that readers get through a batch norm as well: it is silent, but that gives something; the convolution
before that is masked, and the batch norm gives nothing, or something. Of these the second goes, and the others where
nothing reaches a reader all the same."""

GOING = {"lost", "unread", "silent", "unfiltered"}


def touch(network: Network, group: ChannelGroup, way: str) -> None:
    """Make a channel one that goes, or one that just does not."""
    if way == "lost":
        lose(network, [group])
        return
    masks = {name: layer.mask.clone() for name, layer in masked_layers(network).items()}
    if way == "unread":
        for name, at, _ in group.readers:
            masks[name][:, list(at)] = False
    elif way.startswith("unfiltered"):
        for name, at, _ in group.filters:
            masks[name][list(at)] = False
    else:
        masks = without_makers(network, [group])
        # Each batch norm gives 1 where it reads 0, but for the last, which makes the sum -0.5 or 0.5.
        shifted = [*norms(group), *biased(network, group)]
        others = len(shifted) - 1
        values = [1.0] * others + [(0.5 if way == "constant" else -0.5) - others]
        for norm, value in zip(shifted, values if shifted else [], strict=True):
            set_constant(network, norm, value)
        if way != "constant" and not rectified(network, group):
            for norm in norms(group):  # without a ReLU only 0 is nothing
                network.get_submodule(norm.name).get_parameter("weight").data[norm.place] = 0
                network.get_submodule(norm.name).get_parameter("bias").data[norm.place] = 0
    for norm in relays(group):
        # A batch norm without parameters has no ReLU behind it: only 0 is nothing there.
        nothing = -0.5 if isinstance(network.get_submodule(norm.name), nn.BatchNorm2d) else 0.0
        set_constant(network, norm, 0.5 if way in ("relayed", "unfiltered constant") else nothing)
    set_masks(network, masks)


def lose(network: Branching, lost: Sequence[ChannelGroup]) -> None:
    set_masks(network, mask_channels(network, lost))
    silence(network, *lost)


def set_constant(network: Network, norm: Norm, value: float) -> None:
    """Let a batch norm, or a layer with a bias, give ``value`` where it reads 0."""
    module, place = network.get_submodule(norm.name), norm.place
    if isinstance(module, MaskedConv2d | MaskedLinear):
        assert module.bias is not None
        module.bias.data[place] = value
        return
    assert isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)
    assert module.running_mean is not None
    assert module.running_var is not None
    with torch.no_grad():
        deviation = (module.running_var[place] + module.eps).sqrt()
        if module.affine:
            module.bias[place] = value + module.running_mean[place] * module.weight[place] / deviation
        else:
            module.running_mean[place] = -value * deviation


def goes(network: Network, group: ChannelGroup, way: str) -> bool:
    """Whether a channel that was touched does not matter; where only a constant is left of it, any picture shows."""
    return way in GOING or not reaches(network, group)


def reaches(network: Network, group: ChannelGroup) -> bool:
    """Whether any weight of a reader gets anything but 0 of a channel, for some pictures."""
    reached: list[bool] = []

    def listen(layer: nn.Module, read: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, MaskedConv2d | MaskedLinear)
        weights, nonzero = layer.mask.transpose(0, 1).flatten(1).any(dim=1), read[0].movedim(1, 0).flatten(1).any(dim=1)
        reached.append(bool((weights & nonzero)[at[layer]].any()))

    layers = masked_layers(network)
    at = {layers[reader.name]: list(reader.at) for reader in group.readers}
    hooks = [layer.register_forward_pre_hook(listen) for layer in at]
    with torch.no_grad():
        network(pictures_for(network))
    for hook in hooks:
        hook.remove()
    return any(reached)


def widths(network: Network, small: Network) -> dict[str, tuple[int, int, int, int]]:
    """Of each cell the inner channels before and after, and the outputs before and after."""
    return {
        name: (old.inner_channels, new.inner_channels, old.out_channels, new.out_channels)
        for (_, name, old), (_, _, new) in zip(existing_cells(network), existing_cells(small), strict=True)
    }


def same_answers(one: Network, other: Network) -> None:
    """The same logits: in float64 to the last digits, in float32 but for rounding."""
    assert one.config.input_shape is not None
    pictures = torch.rand(6, *one.config.input_shape, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        rounded = [copy.deepcopy(network).float().eval()(pictures) for network in (one, other)]
        exact = [copy.deepcopy(network).double().eval()(pictures.double()) for network in (one, other)]
    scale = float(exact[0].abs().max().clamp(min=1))
    torch.testing.assert_close(rounded[0], rounded[1], rtol=0, atol=1e-5 * scale)
    torch.testing.assert_close(exact[0], exact[1], rtol=0, atol=1e-12 * scale)


def check_slices(network: Network, data: st.DataObject) -> None:
    draw = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    share = data.draw(st.sampled_from([0.1, 0.5, 0.9]))
    set_masks(
        network,
        {name: torch.rand(layer.mask.shape, generator=draw) < share for name, layer in masked_layers(network).items()},
    )
    small = compact(network)[0]
    same_answers(network, small)
    old, new = network.state_dict(), small.state_dict()
    assert old.keys() == new.keys()
    for name, value in new.items():
        if value.shape == old[name].shape:
            assert torch.equal(value, old[name])
        else:
            assert value.numel() < old[name].numel()
            assert torch.isin(value.float(), old[name].float()).all()
        assert value.data_ptr() != old[name].data_ptr()
    for name, layer in masked_layers(small).items():
        assert not layer.weight[~layer.mask].any(), name
    assert not compact(small)[1].changed
