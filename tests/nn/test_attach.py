"""Exits on classifiers of one's own: the module stays what it is, its exits learn, and prediction stops early."""

import copy
import itertools
import json
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from ramify.errors import InputError
from ramify.nn.attach import attach_exits, exit_points
from ramify.nn.branching import Judgement
from ramify.nn.data_form import description, from_description
from ramify.nn.exit import EXITS
from ramify.nn.masked import masked_layers
from ramify.ops.cost import cost
from tests.nn.modules import AT, CLASSES, KINDS, PICTURES, Mixer, Residual, attached, trained, vgg


class Sure:
    """Pictures leave whose most probable class has the probability ``threshold``."""

    def __init__(self, exits: int, threshold: float) -> None:
        self.exits = exits
        self.threshold = threshold

    def judge(self, logits: Tensor) -> Judgement:
        confidence, classes = logits[-1].softmax(1).max(1)
        return Judgement(classes, confidence, (confidence >= self.threshold) | (len(logits) == self.exits))

    def known(self, at: int) -> bool | None:
        return True if at == self.exits - 1 else None


@KINDS
def test_the_last_exit_is_the_module_itself(make: Callable[[], nn.Module]) -> None:
    module = trained(make)
    for images in (PICTURES, PICTURES[:1]):
        wanted = module(images)
        network = attach_exits(module, AT[make], example=PICTURES[:2])
        logits = network(images)
        assert logits.shape == (4, len(images), CLASSES)
        assert torch.equal(logits[-1], wanted)
        assert [point.name for point in network.points] == list(AT[make])


@KINDS
@pytest.mark.parametrize("exit_name", sorted(EXITS))
def test_every_exit_fits_every_place(make: Callable[[], nn.Module], exit_name: str) -> None:
    module = trained(make)
    points = exit_points(module, PICTURES[:1])
    network = attach_exits(module, [point.name for point in points], example=PICTURES[:1], exit=exit_name)
    logits = network(PICTURES)
    assert logits.shape == (len(points) + 1, 6, CLASSES)
    assert torch.equal(logits[-1], module(PICTURES))
    assert network.points == tuple(points)
    twin = from_description(json.loads(json.dumps(description(network))))  # as it is saved
    twin.load_state_dict(network.state_dict())
    assert torch.equal(twin(PICTURES), network.eval()(PICTURES))


@KINDS
def test_an_exit_may_stand_alone_at_any_place(make: Callable[[], nn.Module]) -> None:
    module = trained(make)
    for point in exit_points(module, PICTURES[:1]):
        network = attach_exits(module, [point.name], example=PICTURES[:1])
        assert torch.equal(network(PICTURES)[-1], module(PICTURES))
        assert network.points == (point,)


@KINDS
def test_who_leaves_at_the_first_exit_is_computed_no_further(make: Callable[[], nn.Module]) -> None:
    network = attached(make)
    ran = [0] * len(network.stages)

    def count(stage: int) -> Callable[..., None]:
        def hook(*_: object) -> None:
            ran[stage] += 1

        return hook

    for index, stage in enumerate(network.stages):
        for layer in stage.modules():
            layer.register_forward_hook(count(index))
    answer = network.predict(PICTURES, Sure(4, 0.0))
    assert answer.exits.tolist() == [0] * 6
    assert answer.ran == (6, 0, 0, 0)
    assert ran[0] > 0
    assert ran[1:] == [0, 0, 0]
    network.predict(PICTURES[:1], Sure(4, 1.1))
    assert all(ran)


@KINDS
def test_a_batch_is_answered_as_its_pictures_one_by_one(make: Callable[[], nn.Module]) -> None:
    network = attached(make)
    with torch.no_grad():
        sure = network(PICTURES).softmax(2).amax(2)[:-1].flatten().sort().values
    # Thresholds midway between confidences that are well apart, so that no rounding decides.
    apart = (sure[1:] - sure[:-1]) > 1e-4
    for threshold in ((sure[1:] + sure[:-1]) / 2)[apart][::4].tolist():
        policy = Sure(4, threshold)
        whole = network.predict(PICTURES, policy)
        assert whole.ran == tuple(int((whole.exits >= stage).sum()) for stage in range(4))
        single = [network.predict(PICTURES[i : i + 1], policy) for i in range(6)]
        assert whole.classes.tolist() == [answer.classes.item() for answer in single]
        assert whole.exits.tolist() == [answer.exits.item() for answer in single]
        torch.testing.assert_close(whole.confidence, torch.cat([answer.confidence for answer in single]))


@KINDS
def test_frozen_the_module_stays_as_it_is_while_exits_learn(make: Callable[[], nn.Module]) -> None:
    module = trained(make)
    before = copy.deepcopy(module.state_dict())
    network = attach_exits(module, AT[make], example=PICTURES[:1], freeze=True, seed=0)
    network.train()
    assert network.training
    wanted = module(PICTURES)
    labels = torch.arange(6) % CLASSES
    optimizer = torch.optim.Adam(network.exit_parameters(), lr=0.05)
    losses: list[float] = []
    for _ in range(30):
        logits = network(PICTURES)
        assert torch.equal(logits[-1], wanted)
        loss = F.cross_entropy(logits[:-1].flatten(0, 1), labels.repeat(3))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert {name for name in module.state_dict() if not name.endswith(".mask")} == before.keys()
    assert all(torch.equal(module.state_dict()[name], value) for name, value in before.items())
    assert not any(parameter.requires_grad for parameter in module.parameters())
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    assert {id(each) for each in learning} == {id(each) for each in network.exit_parameters()}


@KINDS
def test_unfrozen_everything_that_is_used_learns(make: Callable[[], nn.Module]) -> None:
    network = attached(make).train()
    F.cross_entropy(network(PICTURES).flatten(0, 1), (torch.arange(6) % CLASSES).repeat(4)).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name


@KINDS
def test_every_weight_lies_in_one_stage(make: Callable[[], nn.Module]) -> None:
    module = trained(make)
    unused = {"unused.weight", "unused.bias"}
    for point in exit_points(module, PICTURES[:1]):
        network = attach_exits(module, [point.name], example=PICTURES[:1])
        parameters = [id(each) for _, each in network.named_parameters(remove_duplicate=False)]
        assert len(set(parameters)) == len(parameters)
        used = {id(each) for name, each in module.named_parameters() if name not in unused}
        assert used < set(parameters)
        assert set(parameters) - used == {id(each) for each in network.exit_parameters()}


@KINDS
def test_state_and_copies(make: Callable[[], nn.Module]) -> None:
    first, second = attached(make, seed=1), attached(make, seed=2)
    assert not torch.equal(first(PICTURES), second(PICTURES))
    second.load_state_dict(first.state_dict(), strict=True)
    wanted = first(PICTURES)
    assert torch.equal(second(PICTURES), wanted)

    copied = copy.deepcopy(first)
    assert torch.equal(copied(PICTURES), wanted)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.zero_()
    assert torch.equal(first(PICTURES), wanted)
    assert copied.points == first.points

    assert second.to(torch.float64)(PICTURES.double()).dtype == torch.float64
    assert second.to("meta")(PICTURES.double().to("meta")).is_meta


@KINDS
def test_a_seed_fixes_the_exits(make: Callable[[], nn.Module]) -> None:
    before = torch.get_rng_state()
    first, second = attached(make), attached(make)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first(PICTURES), second(PICTURES))


@KINDS
@pytest.mark.parametrize("train", [False, True])
def test_attaching_changes_nothing_of_the_module(make: Callable[[], nn.Module], train: bool) -> None:
    module = trained(make).train(train)
    next(iter(module.children())).train(not train)
    modes, state = [each.training for each in module.modules()], copy.deepcopy(module.state_dict())
    network = attach_exits(module, AT[make], example=PICTURES[:1])
    exit_points(module, PICTURES)
    assert [each.training for each in module.modules()] == modes
    assert network.training == train
    assert all(torch.equal(module.state_dict()[name], value) for name, value in state.items())
    assert masked_layers(module)
    assert all(parameter.requires_grad for parameter in module.parameters())


@KINDS
def test_modes_reach_the_layers(make: Callable[[], nn.Module]) -> None:
    network = attached(make)
    for mode in (True, False):
        assert all(each.training == mode for each in network.train(mode).modules())
    network = attached(make, freeze=True).train()
    for stage in network.stages:
        assert not any(each.training for each in stage.get_submodule("body").modules())
        assert all(each.training for name, each in stage.named_modules() if name.startswith("exit"))
    network.predict(PICTURES, Sure(4, 0.5))
    assert not any(each.training for each in network.stages[0].get_submodule("body").modules())


def test_dropout_by_function_follows_the_mode() -> None:
    for freeze in (False, True):
        network = attached(Residual, freeze).train()
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.eval()
        first, second = network(PICTURES), network(PICTURES)
        assert torch.equal(first[:-1], second[:-1])
        assert torch.equal(first[-1], second[-1]) == freeze
        assert torch.equal(network.eval()(PICTURES), network(PICTURES))


@KINDS
def test_a_fraction_takes_the_nearest_place(make: Callable[[], nn.Module]) -> None:
    module = trained(make)
    points = exit_points(module, PICTURES[:1])
    shares = [point.share for point in points]
    assert shares == sorted(shares)
    assert shares[0] > 0
    assert shares[-1] < 1
    for fraction in (0.01, 0.2, 0.5, 0.7, 0.99):
        [point] = attach_exits(module, [fraction], example=PICTURES[:1]).points
        assert abs(point.share - fraction) == min(abs(share - fraction) for share in shares)
    middle = len(points) // 2
    asked = [points[middle].share, shares[0]]
    assert [point.share for point in attach_exits(module, asked, example=PICTURES[:1]).points] == sorted(asked)


@KINDS
def test_macs_are_those_of_a_picture_that_leaves(make: Callable[[], nn.Module]) -> None:
    network = attached(make)
    counted = [each.macs for each in cost(network)]
    for index, macs in enumerate(counted):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            trunk = PICTURES[:1]
            for stage in network.stages[: index + 1]:
                trunk, _ = stage(trunk)
        assert macs == counter.get_total_flops() // 2
    assert counted == sorted(set(counted))


def test_shares_count_multiply_accumulates() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=4), nn.Flatten(), nn.Linear(576, 2))
    macs = [3 * 4 * 9 * 14 * 14, 4 * 9 * 12 * 12, 576 * 2]
    first, second = (done / sum(macs) for done in itertools.accumulate(macs[:2]))
    points = exit_points(module, PICTURES[:3])
    assert [point.name for point in points] == ["0", "1", "2", "3"]
    assert [point.share for point in points] == pytest.approx([first, first, second, second])
    # Behind the activation, and ahead of the flattening.
    assert [point.name for point in attach_exits(module, [0.8, 0.95], example=PICTURES[:1]).points] == ["1", "2"]


def test_names_come_in_any_order_and_may_name_containers_and_functions() -> None:
    module = trained(Residual)
    network = attach_exits(module, ["layer2", "relu", "layer1.0"], example=PICTURES[:1])
    assert [point.name for point in network.points] == ["relu", "layer1.0", "layer2"]
    assert [point.shape for point in network.points] == [(8, 16, 16), (8, 16, 16), (12, 8, 8)]
    # The last child of a container, and the container.
    [point] = attach_exits(module, ["layer1.1"], example=PICTURES[:1]).points
    assert point.name == "layer1"


def test_places_of_each_style() -> None:
    # A ReLU in place leaves no place behind the batch norm; within a cell there is none.
    names = [point.name for point in exit_points(trained(vgg), PICTURES[:1])]
    assert names == ["0", "2", "3", "4", "6", "7", "8", "10", "11", "12", "13", "14", "15"]
    names = [point.name for point in exit_points(trained(Residual), PICTURES[:1])]
    assert names[:5] == ["conv1", "bn1", "relu", "add", "layer1.0"]
    assert not any("conv2" in name for name in names)
    points = {point.name: point for point in exit_points(trained(Mixer), PICTURES[:1])}
    assert points["mixing.1"].shape == (16, 12)
    assert points["mean"].shape == (12,)


def test_the_module_is_shared() -> None:
    module = trained(vgg)
    network = attach_exits(module, ["3"], example=PICTURES[:1])
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(0.5)
    assert torch.equal(network(PICTURES)[-1], module(PICTURES))


class Twice(nn.Module):
    """One layer used twice, and one place where that does not matter."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.relu(self.conv1(x)))
        x = self.relu(self.conv2(x))
        x = self.relu(self.conv2(x))
        return self.fc(x.mean((2, 3)))  # type: ignore[no-any-return]


def test_a_layer_with_weights_belongs_to_one_stage() -> None:
    module = Twice()
    names = [point.name for point in exit_points(module, PICTURES)]
    assert names == ["conv1", "net_relu", "relu()", "conv2", "relu", "mean"]
    network = attach_exits(module, ["net_relu", "relu()", "relu"], example=PICTURES)
    assert torch.equal(network(PICTURES)[-1], module(PICTURES))
    with pytest.raises(InputError, match=r"lies between two uses of the same weights"):
        attach_exits(Reusing(), ["body"], example=PICTURES)


class Reusing(Twice):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(self.conv1, self.conv2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv2(F.relu(self.body(x))).mean((2, 3)))  # type: ignore[no-any-return]


def test_weights_of_other_types_get_exits_of_their_type() -> None:
    module = trained(vgg).to(torch.bfloat16)
    network = attach_exits(module, ["3"], example=PICTURES[:1].bfloat16())
    assert network(PICTURES.bfloat16()).dtype == torch.bfloat16


class Methods(Twice):
    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x).clip(0, 6).flip(-1).swapaxes(2, 3).movedim(2, 3).cumsum(3)
        return self.fc(self.conv2(x).mean((2, 3)))  # type: ignore[no-any-return]


def test_the_usual_methods_of_tensors_are_kept() -> None:
    network = attach_exits(Methods().eval(), ["conv1"], example=PICTURES[:1])
    twin = from_description(json.loads(json.dumps(description(network))))
    twin.load_state_dict(network.state_dict())
    assert torch.equal(twin(PICTURES), network(PICTURES))


class Recurrent(nn.Module):
    """A layer that does not have its arguments as attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.lstm, self.fc = nn.Conv2d(3, 4, 4, 4), nn.LSTM(4, 4, batch_first=True), nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        outputs, _ = self.lstm(self.patches(x).flatten(2).transpose(1, 2))
        logits: Tensor = self.fc(outputs[:, -1])
        return logits


def test_a_layer_whose_arguments_are_unknown_is_named() -> None:
    network = attach_exits(Recurrent(), ["patches"], example=PICTURES[:1])
    with pytest.raises(
        InputError, match=r"^network: got one that uses the layer net\.lstm of type LSTM, whose arguments"
    ):
        description(network)
