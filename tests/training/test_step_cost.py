"""What a training step is made of, counted: a clock tells of a busy machine, a count of kernels only of the code."""

from collections import Counter
from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ramify.config.rules import Config, NetworkConfig
from ramify.nn.masked import masked_layers
from ramify.nn.network import Network
from ramify.ops.exits.policy import Policy
from ramify.run.distributed import ALONE
from ramify.run.events import Event, StepDone
from ramify.training.distillation import Guidance
from ramify.training.prepare import prepare_run
from ramify.training.run import train
from ramify.training.state import begin, to_channels_last
from ramify.training.step import Step, records
from tests.conftest import tiny

WAITS = ("_local_scalar_dense", "item", "nonzero", "is_nonzero")
"""What makes a program wait for its device."""


class Kernels(TorchDispatchMode):
    """Counts what is handed to the device."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen = Counter[str]()

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        self.seen[str(func).split(".")[1]] += 1
        return func(*args, **(kwargs or {}))


def kernels_of_a_step(kind: str, cells: int) -> Counter[str]:
    """Forward and backward of a whole network in bfloat16, as a run computes them."""
    structure = tuple(int(i % 2 == 1) for i in range(cells))
    config = NetworkConfig(kind=kind, structure=structure, channels=4, input_shape=(3, 16, 16), classes=5)
    network = to_channels_last(Network(config, stages=config.exits), torch.device("cpu")).train()
    images = torch.rand(8, 3, 16, 16).contiguous(memory_format=torch.channels_last)
    kernels = Kernels()
    with kernels:
        with torch.autocast("cpu", torch.bfloat16):
            logits: Tensor = network(images)
        logits.float().square().mean().backward()
    return kernels.seen


@pytest.mark.parametrize("kind", ["iterative", "dense"])
def test_a_deeper_network_costs_as_many_kernels_more_as_it_has_cells(kind: str) -> None:
    four, six, eight = (kernels_of_a_step(kind, cells).total() for cells in (4, 6, 8))
    assert eight - six == six - four
    # Two cells and an exit.
    assert six - four <= {"iterative": 115, "dense": 160}[kind]


@pytest.mark.parametrize("kind", ["iterative", "dense"])
def test_each_layer_is_computed_once(kind: str) -> None:
    cells = 4
    seen = kernels_of_a_step(kind, cells)
    assert seen["convolution"] == seen["convolution_backward"] == 1 + 2 * cells
    # A dense trunk is joined once for each cell. The first cell projects nothing; each other one joins two weights,
    # and their gradients come apart again.
    assert seen["cat"] == (cells + 2 * (cells - 1) if kind == "dense" else 0)
    assert not [name for name in WAITS if seen[name]]


def test_nothing_waits_for_the_device_within_an_epoch() -> None:
    """From the first step of an epoch to its last, no figure is read."""
    waits: list[int] = []
    kernels = Kernels()

    def watch(event: Event) -> None:
        if isinstance(event, StepDone):
            waits.append(sum(kernels.seen[name] for name in WAITS))

    with kernels:
        train(tiny("name=watched", "train.epochs=3", "growth.epochs=[2,3]", "data.limit=160"), [watch])
    steps = len(waits) // 3
    for epoch in range(3):
        within = waits[epoch * steps : (epoch + 1) * steps]
        assert len(set(within)) == 1, within


def test_the_optimizer_takes_a_kernel_for_each_group_and_not_for_each_tensor() -> None:
    config, where, parts = prepare_run(Config.model_validate(tiny("name=fused").model_dump()), ALONE)
    state = begin(config, where, parts)
    for parameter in state.network.parameters():
        parameter.grad = torch.ones_like(parameter)
    kernels = Kernels()
    with kernels:
        state.optimizer.step()
    assert kernels.seen["_fused_sgd_"] == len(state.optimizer.param_groups)
    assert kernels.seen["add_"] == kernels.seen["mul_"] == 0


def test_all_that_is_drawn_is_sent_before_the_first_step() -> None:
    """Each transfer within an epoch would wait for a GPU: a step draws nothing, and makes no tensor of numbers."""
    seen: list[Counter[str]] = []
    kernels = Kernels()

    def watch(event: Event) -> None:
        if isinstance(event, StepDone) and event.epoch == 1:
            seen.append(kernels.seen.copy())

    with kernels:
        train(tiny("name=drawn", "train.epochs=3", "growth.epochs=[2,3]"), [watch])
    within = seen[-1] - seen[0]
    for name in ("rand", "randint", "randperm", "lift_fresh", "pin_memory"):
        assert within[name] == 0, name


def judging(policy: Policy, exits: int) -> int:
    """How many kernels a picture costs beyond those of the stages that answer it."""
    config = NetworkConfig(kind="full_ic", structure=(1,) * (exits - 1), channels=4, input_shape=(1, 8, 8), classes=5)
    network = Network(config, stages=exits).eval()
    picture = torch.rand(1, 1, 8, 8)
    kernels = Kernels()
    with kernels:
        ran = network.predict(picture, policy).ran
    bare = Kernels()
    with torch.inference_mode(), bare:
        trunk = network.enter(picture)
        for stage in network.stages[: sum(ran)]:
            trunk, _ = stage(trunk)
    return kernels.seen.total() - bare.seen.total()


def test_judging_one_picture_takes_few_kernels_and_none_where_the_policy_knows() -> None:
    last = judging(Policy((None, None, None)), 4)
    assert judging(Policy((None,)), 2) == last  # an exit that lets none go costs nothing
    assert judging(Policy((0.0, 0.5, 0.5)), 4) <= last + 1
    undecided = judging(Policy((1.0, None, None)), 4)
    assert undecided - last <= 12
    assert judging(Policy((1.0, 1.0, None)), 4) - undecided == undecided - last


def test_a_step_is_recorded_on_cuda_alone() -> None:
    assert records(torch.device("cuda", 0))
    assert not records(torch.device("cpu"))


def test_the_graph_of_a_step_has_no_breaks() -> None:
    config = NetworkConfig(kind="dense", structure=(0, 1, 0), channels=4, input_shape=(3, 16, 16), classes=5)
    network = Network(config, stages=2).train()
    found = torch._dynamo.explain(network)(torch.rand(4, 3, 16, 16))
    assert (found.graph_count, found.graph_break_count) == (1, 0)


def test_a_run_trains_channels_last_and_grows_so() -> None:
    config, where, parts = prepare_run(Config.model_validate(tiny("name=layout").model_dump()), ALONE)
    state = begin(config, where, parts)
    Step(state, Guidance(state, parts.train, None)).renew(state)
    for layer in masked_layers(state.network).values():
        if layer.weight.dim() == 4:
            assert layer.weight.is_contiguous(memory_format=torch.channels_last)
