"""Early exits: who leaves where, what ran, and that a batch answers as its pictures do one by one."""

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from ramify.config.rules import NetworkConfig
from ramify.errors import InputError
from ramify.nn.network import Network
from ramify.ops.cost import place_exits
from ramify.ops.exits.policy import Policy, follow

PICTURES = 40


def network(kind: str = "full_ic", **more: object) -> Network:
    config = NetworkConfig.model_validate(
        {"kind": kind, "structure": (1, 0, 1, 0), "channels": 4, "input_shape": (1, 8, 8), "classes": 5, **more}
    )
    made = Network(config, stages=config.exits, seed=3)
    with torch.no_grad():
        made.train()(pictures())  # batch norm that knows the pictures
        for name, parameter in made.named_parameters():
            if name.endswith("exit.linear.weight"):  # sharper answers, so that confidences spread
                parameter.mul_(6)
    return made.eval()


def pictures(count: int = PICTURES, shape: tuple[int, int, int] = (1, 8, 8)) -> Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(1))


def counted(net: Network, run: list[tuple[str, int]]) -> None:
    """Note for every cell on how many pictures it ran."""

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor], Tensor], None]:
        return lambda _, given, __: run.append((name, len(given[0])))

    for index, stage in enumerate(net.stages):
        for i, cell in enumerate(stage.get_submodule("cells").children()):
            cell.register_forward_hook(hook(f"{index}.{i}"))


@pytest.mark.parametrize("kind", ["dense", "iterative", "full_ic"])
@pytest.mark.parametrize("criterion", ["max_probability", "margin", "entropy", "patience"])
def test_a_batch_answers_as_its_pictures_do_one_by_one(kind: str, criterion: str) -> None:
    net, images = network(kind), pictures()
    thresholds = {"patience": (1 / 3, 2 / 3), "entropy": (0.08, 0.05)}.get(criterion, (0.5, 0.4))
    policy = Policy(thresholds, criterion, (1.5, 0.8, 1.0))
    together = net.predict(images, policy)
    assert len(set(together.exits.tolist())) > 1 or criterion == "patience"
    for i in range(PICTURES):
        alone = net.predict(images[i : i + 1], policy)
        assert alone.classes.item() == together.classes[i]
        assert alone.exits.item() == together.exits[i]
        assert alone.confidence.item() == pytest.approx(together.confidence[i].item(), abs=1e-5)


@pytest.mark.parametrize("kind", ["dense", "full_ic"])
def test_only_the_undecided_are_computed(kind: str) -> None:
    net, images = network(kind), pictures()
    run: list[tuple[str, int]] = []
    counted(net, run)
    answer = net.predict(images, Policy((0.5, 0.4)))
    left = Counter(answer.exits.tolist())
    reached = [PICTURES - sum(left[before] for before in range(exit_)) for exit_ in range(3)]
    assert 0 < left[0] < PICTURES
    assert list(answer.ran) == reached
    assert reached[2] > 0
    assert run == [(name, reached[int(name[0])]) for name in ("0.0", "1.0", "1.1", "2.0")]


def test_one_picture_stops_at_its_exit() -> None:
    net = network()
    run: list[tuple[str, int]] = []
    counted(net, run)
    answer = net.predict(pictures(1), Policy((0.0, 0.0)))
    assert answer.exits.tolist() == [0]
    assert answer.ran == (1, 0, 0)
    assert [name for name, _ in run] == ["0.0"]


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), min_size=2, max_size=2), st.integers(0, 7))
def test_stored_logits_give_the_same_answers(thresholds: list[float | None], count: int) -> None:
    net, images = network(), pictures(count)
    policy = Policy(tuple(thresholds))
    with torch.no_grad():
        offline = follow(policy, net(images))
    online = net.predict(images, policy)
    assert torch.equal(offline.exits, online.exits)
    assert torch.equal(offline.classes, online.classes)
    assert offline.ran == online.ran


def test_published_architectures_answer_early() -> None:
    config = place_exits(NetworkConfig(cells="mobilenet", kind="full_ic", input_shape=(3, 16, 16), classes=4))
    net = Network(config, seed=0).eval()
    images = pictures(6, (3, 16, 16))
    middle = net(images).softmax(dim=2).amax(dim=2)[0].median().item()
    answer = net.predict(images, Policy((middle,) + (None,) * 5))
    assert answer.ran[0] == 6
    assert 0 < answer.ran[1] < 6
    assert answer.ran[6] == answer.ran[1]


def test_the_mode_and_the_statistics_stay() -> None:
    net = network().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net.predict(pictures(), Policy((0.5, 0.5)))
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_a_policy_for_another_number_of_exits_is_refused() -> None:
    with pytest.raises(InputError, match="got one for 2 exits; accepted: for 3"):
        network().predict(pictures(), Policy((0.5,)))


def test_a_grown_network_answers_with_the_exits_it_has() -> None:
    config = NetworkConfig(structure=(1, 1, 0), channels=4, input_shape=(1, 8, 8), classes=5)
    net = Network(config, seed=0)
    assert net.predict(pictures(), Policy(())).ran == (PICTURES,)
    net.append_stage(0)
    assert net.predict(pictures(), Policy((None,))).exits.unique().tolist() == [1]
    assert isinstance(net, nn.Module)
