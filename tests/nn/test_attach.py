"""Exits on classifiers of one's own: the module stays what it is, its exits learn, and prediction stops early."""

import copy
import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from ramify.errors import InputError
from ramify.nn.attach import attach_exits, exit_points
from ramify.nn.attached import Attached
from ramify.nn.branching import Judgement
from ramify.nn.exit import EXITS
from ramify.nn.masked import masked_layers
from ramify.ops.cost import cost

CLASSES = 5
PICTURES = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def vgg() -> nn.Module:
    """Nothing but ``nn.Sequential``, with ReLUs that work in place."""

    def block(channels: int, out: int) -> list[nn.Module]:
        return [nn.Conv2d(channels, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU(inplace=True), nn.MaxPool2d(2)]

    return nn.Sequential(
        *block(3, 8), *block(8, 12), *block(12, 16), nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Dropout(),
        nn.Linear(24, CLASSES),
    )  # fmt: skip


class Block(nn.Module):
    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        stride = 1 if channels == out else 2
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.shortcut = nn.Sequential()
        if channels != out:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        return F.relu(out)


class Residual(nn.Module):
    """Nested modules, with what has no weights done by functions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.layer1 = nn.Sequential(Block(8, 8), Block(8, 8))
        self.layer2 = nn.Sequential(Block(8, 12), Block(12, 12))
        self.layer3 = nn.Sequential(Block(12, 16))
        self.unused = nn.Linear(2, 2)
        self.fc = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        count = x.size(0)
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        x = F.avg_pool2d(x, 4)
        x = F.dropout(x.view(count, -1), 0.5, training=self.training)
        logits: Tensor = self.fc(x)
        return logits


class Mixing(nn.Module):
    """One layer of a mixer: parameters of its own, layer norms, and a linear layer across tokens."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.across = nn.Parameter(torch.randn(tokens, tokens) / tokens)
        self.along = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + torch.matmul(self.across, self.norm1(x))
        mixed: Tensor = x + self.along(self.norm2(x))
        return mixed


class Mixer(nn.Module):
    """Functional style: parameters and a constant in forward, depthwise convolutions, group norm, then tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.centre = torch.tensor([0.5, 0.4, 0.3])[:, None, None]
        self.scale = nn.Parameter(torch.full((3, 1, 1), 2.0))
        self.filters = nn.Parameter(torch.randn(12, 3, 4, 4) / 7)
        self.depthwise = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.norm = nn.GroupNorm(3, 12)
        self.mixing = nn.ModuleList(Mixing(16, 12) for _ in range(3))
        self.bias = nn.Parameter(torch.zeros(CLASSES))
        self.reading = nn.Parameter(torch.randn(CLASSES, 12))

    def forward(self, images: Tensor, temperature: float | None = None) -> Tensor:
        x = F.conv2d((images - self.centre) * self.scale, self.filters, stride=4)
        x = x + F.hardswish(self.norm(self.depthwise(x)))
        x = x.flatten(2).transpose(1, 2)
        for layer in self.mixing:
            x = layer(x)
        logits: Tensor = F.linear(torch.mean(x, dim=1), self.reading, self.bias)
        return logits if temperature is None else logits / temperature


def trained(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """A module whose batch norms have seen pictures, in evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = make()
        for _ in range(3):
            module(torch.rand(16, 3, 16, 16))
    return module.eval()


AT = {vgg: ("3", "6", "13"), Residual: ("conv1", "layer1.0", "layer2"), Mixer: ("mixing.0", "mixing.1", "mixing.2")}
KINDS = pytest.mark.parametrize("make", AT, ids=lambda make: make.__name__)


class Sure:
    """Who lets go what is at least so probable."""

    def __init__(self, exits: int, threshold: float) -> None:
        self.exits = exits
        self.threshold = threshold

    def judge(self, logits: Tensor) -> Judgement:
        confidence, classes = logits[-1].softmax(1).max(1)
        return Judgement(classes, confidence, (confidence >= self.threshold) | (len(logits) == self.exits))

    def known(self, at: int) -> bool | None:
        return True if at == self.exits - 1 else None


def attached(make: Callable[[], nn.Module], freeze: bool = False, seed: int = 0) -> Attached:
    return attach_exits(trained(make, seed), AT[make], example=PICTURES[:1], freeze=freeze, seed=seed)


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
    for point in exit_points(module, PICTURES[:1]):
        network = attach_exits(module, [point.name], example=PICTURES[:1], exit=exit_name)
        assert network(PICTURES).shape == (2, 6, CLASSES)
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
        (vgg, ["features"], r"at: got 'features'; accepted: names of submodules that forward calls, the nearest '.+'"),
        (Residual, ["layer4"], r"at: got 'layer4'; accepted: .* the nearest 'layer\d'"),
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
        (vgg, [], r"at: got \[\]; accepted: a list of names"),
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


def test_weights_of_other_types_get_exits_of_their_type() -> None:
    module = trained(vgg).to(torch.bfloat16)
    network = attach_exits(module, ["3"], example=PICTURES[:1].bfloat16())
    assert network(PICTURES.bfloat16()).dtype == torch.bfloat16
