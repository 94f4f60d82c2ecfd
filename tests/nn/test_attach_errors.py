"""Modules and places that cannot have exits are refused in a sentence."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import ramify
from ramify.errors import InputError
from ramify.nn.attach import attach_exits
from ramify.nn.masked import masked_layers
from tests.nn.modules import CLASSES, PICTURES, Residual, trained, vgg


class Given(nn.Module):
    """A module with this forward."""

    def __init__(self, forward: Callable[["Given", Tensor], object]) -> None:
        super().__init__()
        self.conv, self.other, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Linear(4, CLASSES)
        self.does = forward

    def forward(self, x: Tensor) -> object:
        return self.does(self, x)


def logits_of(self: Given, x: Tensor) -> Tensor:
    logits: Tensor = self.fc(self.other(F.relu(self.conv(x))).mean((2, 3)))
    return logits


def branches(self: Given, x: Tensor) -> Tensor:
    return logits_of(self, x) if x.mean() > 0 else logits_of(self, -x)


def deepens_in_training(self: Given, x: Tensor) -> Tensor:
    if self.training:
        x = x + torch.randn_like(x)
    return logits_of(self, x)


def draws(self: Given, x: Tensor) -> Tensor:
    return logits_of(self, x) + torch.rand(CLASSES)


def carries_two(self: Given, x: Tensor) -> Tensor:
    deep = self.conv(x)
    return self.fc(deep.mean((2, 3))) + x.mean((1, 2, 3))[:, None]  # type: ignore[no-any-return]


def mixes_up_pictures(self: Given, x: Tensor) -> Tensor:
    x = self.other(self.conv(x).flatten(0, 1)[:, None].expand(-1, 4, -1, -1))
    return self.fc(x.view(-1, 4, 4, 14, 14).mean((1, 3, 4)))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("make", "at", "sentence"),
    [
        (vgg, ["features"], r"at: got 'features'; accepted: submodules that forward calls \(nearest: .+\)"),
        (Residual, ["layer4"], r"at: got 'layer4'; accepted: .* \(nearest: layer\d\)"),
        (Residual, ["unused"], r"at: got 'unused', which forward does not call"),
        (
            Residual,
            ["layer2.0.conv1"],
            r"at: got 'layer2.0.conv1', whose output is not all that the layers behind it read; "
            r"accepted: 'layer1' before it or 'layer2.0' behind it",
        ),
        (vgg, ["1"], r"'1', whose output is changed in place by the layer behind it; accepted: '0' before it or '2'"),
        (vgg, ["16"], r"'16', whose output has nothing that multiplies behind it; accepted: '15' before it$"),
        (Residual, ["layer1", "layer1.1"], r"at: got 'layer1' and 'layer1.1', which are the same place"),
        (vgg, ["0", "0"], r"at: got '0' and '0', which are the same place"),
        (vgg, [0.0], r"at: got \[0.0\]; accepted: fractions above 0 and below 1"),
        (vgg, [0.5, 1.5], r"at: got \[0.5, 1.5\]; accepted: fractions above 0 and below 1"),
        (vgg, [float("nan")], r"at: got \[nan\]; accepted: fractions"),
        (vgg, [0.4, 0.41], r"at: got \[0.4, 0.41\]; accepted: fractions nearest to different places, .* at 0.\d\d, 0"),
        (vgg, ["3", 0.5], r"at: got \['3', 0.5\]; accepted: a list of names of submodules, or a list of fractions"),
        (vgg, "37", r"at: got '37'; accepted: a list of names"),
    ],
)
def test_places_that_do_not_exist_are_refused(make: Callable[[], nn.Module], at: list[str], sentence: str) -> None:
    module = trained(make)
    with pytest.raises(InputError, match=sentence) as error:
        attach_exits(module, at, example=PICTURES[:1])
    assert len(error.value.problems) == 1


@pytest.mark.parametrize(
    ("forward", "sentence"),
    [
        (branches, r"got Given, which torch.fx cannot trace \(symbolically traced variables cannot .* control flow\)"),
        (deepens_in_training, r"takes other steps in training mode \(.*\); accepted: .* or freeze=True"),
        (draws, r"gives other logits once it is traced"),
        (carries_two, r"got Given, in which there is no place for an exit"),
        (lambda self, x: (logits_of(self, x), x), r"which gives a tuple for 4 pictures; accepted: .* logits \[B, C\]"),
        (lambda self, x: self.other(self.conv(x)), r"which gives \[4, 4, 14, 14\] for 4 pictures"),
        (lambda self, x: self.fc(x.mean((2, 3)).repeat(1, 2)[:, :4]), r"there is no place for an exit"),
    ],
)
def test_modules_that_cannot_have_exits_are_refused(forward: Callable[[Given, Tensor], object], sentence: str) -> None:
    module = Given(forward).train()
    state = copy.deepcopy(module.state_dict())
    with pytest.raises(InputError, match=rf"^module: .*{sentence}"):
        attach_exits(module, ["conv"], example=PICTURES[:2])
    assert all(each.training for each in module.modules())
    assert all(torch.equal(module.state_dict()[name], value) for name, value in state.items())
    assert not masked_layers(module)


def test_layers_that_share_a_parameter_are_refused_and_one_that_is_called_twice_is_not() -> None:
    module = Given(lambda self, x: self.fc(self.other(self.other(self.conv(x))).mean((2, 3))))
    assert attach_exits(module, ["conv"], example=PICTURES)(PICTURES).shape == (2, len(PICTURES), CLASSES)
    module = Given(logits_of)
    module.add_module("tied", nn.Conv2d(4, 4, 1))
    module.get_submodule("tied").weight = module.other.weight
    with pytest.raises(InputError, match=r"^module: got Given, whose tied\.weight is other\.weight as well; accepted:"):
        attach_exits(module, ["conv"], example=PICTURES)


def test_stages_that_share_a_layer_are_refused() -> None:
    first, second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
    with pytest.raises(InputError, match=r"^stages: got stage 3, whose weight is of an earlier stage"):
        ramify.branches(nn.Identity(), [first, second, first], example=PICTURES, classes=CLASSES)


def test_steps_of_training_alone_do_not_matter_once_frozen() -> None:
    module = Given(deepens_in_training).train()
    network = attach_exits(module, ["conv"], example=PICTURES, freeze=True)
    assert torch.equal(network(PICTURES)[-1], module.eval()(PICTURES))


def test_a_place_must_carry_the_pictures_apart() -> None:
    with pytest.raises(InputError, match=r"'other', whose output does not have the pictures as its first dimension"):
        attach_exits(Given(mixes_up_pictures), ["other"], example=PICTURES)


def test_what_does_not_fit_the_module_is_refused() -> None:
    module = trained(vgg)
    with pytest.raises(InputError, match=r"^example: got \[1, 1, 16, 16\] float32 on cpu, .*; accepted: one or more"):
        attach_exits(module, ["3"], example=PICTURES[:1, :1])
    with pytest.raises(InputError, match=r"^classes: got 7; accepted: 5"):
        attach_exits(module, ["3"], example=PICTURES[:1], classes=7)
    with pytest.raises(
        InputError, match=r"^exit: got 'best'; accepted: average, both, conv, global, max, mixed, normed, scaled"
    ):
        attach_exits(module, ["3"], example=PICTURES[:1], exit="best")
