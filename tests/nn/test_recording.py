"""Operations are seen as PyTorch dispatches them, and can be computed otherwise."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ramify.nn.recording import Operation, OperationRecorder, flat_tensors, run


def recorded(compute: nn.Module, *given: Tensor) -> list[Operation]:
    found: list[Operation] = []
    with torch.inference_mode(), OperationRecorder(found.append):
        compute(*given)
    return found


def test_operations_are_as_large_as_they_are_called() -> None:
    network = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(12, 2)
    )
    found = recorded(network.eval(), torch.rand(1, 2, 4, 4))
    assert [operation.name for operation in found] == ["conv2d", "batch_norm", "relu", "flatten", "linear"]
    assert [operation.pointwise for operation in found] == [False, False, True, False, False]


def test_arguments_are_found_by_name_wherever_they_were_given() -> None:
    layer = nn.Conv2d(2, 4, 3, stride=2, groups=2)
    (operation,) = recorded(layer, torch.rand(1, 2, 5, 5))
    assert operation.tensor("weight") is layer.weight
    assert operation.number("groups") == 2
    assert list(flat_tensors(operation.argument("bias"))) == [layer.bias]
    assert operation.argument("dilation") == [1, 1]  # by default
    assert operation.argument("nothing of that name") is None
    assert len(operation.tensors) == 3


def test_an_operation_can_be_repeated_on_other_tensors() -> None:
    class Joined(nn.Module):
        def forward(self, one: Tensor, other: Tensor) -> Tensor:
            return torch.cat((one, other), dim=1)

    one, other = torch.rand(2, 3, 2), torch.rand(2, 1, 2)
    (operation,) = recorded(Joined(), one, other)
    assert operation.tensors == [one, other]
    repeated = operation.on(lambda value: -value)
    assert isinstance(repeated, Tensor)
    assert torch.equal(repeated, -torch.cat((one, other), dim=1))


def test_outputs_are_those_of_the_function_that_computes_them() -> None:
    def compute(operation: Operation) -> object:
        output = run(operation)
        return -output if operation.name == "relu" and isinstance(output, Tensor) else output

    found: list[Operation] = []
    with torch.inference_mode(), OperationRecorder(found.append, compute):
        value = F.relu(torch.tensor([1.0, -1.0])) + 1
    assert value.tolist() == [0, 1]
    assert [operation.name for operation in found][-2:] == ["relu", "add"]
    assert found[-1].output is value


def test_functions_of_single_elements_are_known_as_such() -> None:
    for activation in (
        nn.Hardswish,
        nn.Hardsigmoid,
        nn.SiLU,
        nn.GELU,
        nn.ELU,
        nn.ReLU6,
        nn.Mish,
        nn.LogSigmoid,
        nn.SELU,
    ):
        (operation,) = recorded(activation(), torch.rand(2, 2))
        assert operation.pointwise, activation
    for other in (nn.Softmax(dim=1), nn.AvgPool2d(2), nn.GLU(dim=1)):
        assert not recorded(other, torch.rand(1, 2, 2, 2))[0].pointwise
