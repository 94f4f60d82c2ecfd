"""Graphs of stages put together: to one of all exits, and to one that stops early.

For stages that are quantized one by one. What stands between them, the exit policy, is exported for each exit alone and
stays in float32.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from ramify.ops.policy import Policy
from ramify.ship.graphs import OneJudgement
from ramify.ship.onnx import EARLY_OUTPUTS, Graphs, to_onnx

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

ANSWERS = ("classes", "confidence", "exits")


@dataclass
class _Body:
    """Operations and weights that are becoming a graph."""

    nodes: "list[NodeProto]" = field(default_factory=list)
    weights: "list[TensorProto]" = field(default_factory=list)

    def add(self, model: "ModelProto", prefix: str, names: Mapping[str, str]) -> None:
        """The content of ``model``, a graph without branches, with ``names`` for its inputs and outputs."""
        from onnx import NodeProto, TensorProto

        def renamed(name: str) -> str:
            return names.get(name, prefix + name) if name else name

        for node in model.graph.node:
            copy = NodeProto()
            copy.CopyFrom(node)
            copy.name = prefix + node.name
            copy.input[:] = [renamed(name) for name in node.input]
            copy.output[:] = [renamed(name) for name in node.output]
            self.nodes.append(copy)
        for weight in model.graph.initializer:
            twin = TensorProto()
            twin.CopyFrom(weight)
            twin.name = renamed(weight.name)
            self.weights.append(twin)


def join(stages: "Sequence[ModelProto]", policy: Policy) -> Graphs:
    """All three shapes, from the graphs of the stages; see :class:`ramify.ship.onnx.Graphs`."""
    return Graphs(_all_exits(stages), _early_exit(stages, policy), tuple(stages))


def _all_exits(stages: "Sequence[ModelProto]") -> "ModelProto":
    from onnx import TensorProto, helper, numpy_helper

    body, trunk = _Body(), "images"
    for at, stage in enumerate(stages):
        body.add(stage, f"stage{at}/", _ends(stage, at, trunk))
        trunk = f"trunk{at}"
        body.nodes.append(helper.make_node("Unsqueeze", [f"logits{at}", "first_axis"], [f"exit{at}"]))
    body.weights.append(numpy_helper.from_array(torch.zeros(1, dtype=torch.int64).numpy(), "first_axis"))
    body.nodes.append(helper.make_node("Concat", [f"exit{at}" for at in range(len(stages))], ["logits"], axis=0))
    classes = stages[0].graph.output[-1].type.tensor_type.shape.dim[1].dim_value
    shape = [len(stages), "batch", classes]
    return _model(body, stages, [helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)])


def _early_exit(stages: "Sequence[ModelProto]", policy: Policy) -> "ModelProto":
    from onnx import helper

    judges: list[tuple[OneJudgement, ModelProto | None]] = []
    classes = stages[0].graph.output[-1].type.tensor_type.shape.dim[1].dim_value
    for at in range(policy.exits):
        asked = OneJudgement(policy, at)
        judges.append((asked, _judge_graph(asked, classes) if asked.gives else None))
    body, found = _from(0, "images", {}, stages, judges)
    ends = [helper.make_node("Identity", [name], [wanted]) for name, wanted in zip(found, EARLY_OUTPUTS, strict=True)]
    body.nodes.extend(ends)
    return _model(body, stages, _answer_types(EARLY_OUTPUTS, policy.exits))


def _judge_graph(asked: OneJudgement, classes: int) -> "ModelProto":
    kinds = {"confidence": torch.float32, "stays": torch.bool}
    given = [torch.zeros(2, dtype=kinds.get(name, torch.int64)) for name in asked.given]
    return to_onnx(
        asked, (torch.zeros(2, classes), *given), ["logits", *asked.given], [f"{name}_out" for name in asked.gives]
    )


def _from(
    at: int,
    trunk: str,
    state: dict[str, str],
    stages: "Sequence[ModelProto]",
    judges: "Sequence[tuple[OneJudgement, ModelProto | None]]",
) -> tuple[_Body, list[str]]:
    """Stage ``at`` and those behind it, and the names of the answers that they give.

    ``state`` holds, by their names in :class:`~ramify.ship.judge.State`, the names of what the exits before gave.
    """
    from onnx import helper

    body = _Body()
    body.add(stages[at], f"stage{at}/", _ends(stages[at], at, trunk))
    asked, graph = judges[at]
    if graph is not None:
        gives = {name: f"{name}{at}" for name in asked.gives}
        ends = {"logits": f"logits{at}"} | {name: state[name] for name in asked.given}
        body.add(graph, f"policy{at}/", ends | {f"{name}_out": given for name, given in gives.items()})
        state = state | gives
    exits = len(stages)
    if at + 1 == exits:
        body.nodes.append(_ran(at, exits))
        return body, [*(state[name] for name in ANSWERS), f"ran{at}"]
    if "go" not in asked.gives:
        deeper, found = _from(at + 1, f"trunk{at}", state, stages, judges)
        return _Body(body.nodes + deeper.nodes, body.weights + deeper.weights), found
    deeper, found = _from(at + 1, f"trunk{at}", state, stages, judges)
    stopped = [f"{name}_here{at}" for name in ANSWERS]
    stop = _Body(
        [helper.make_node("Identity", [state[name]], [here]) for name, here in zip(ANSWERS, stopped, strict=True)]
    )
    stop.nodes.append(_ran(at, exits))
    outputs = [f"{name}_behind{at}" for name in EARLY_OUTPUTS]
    body.nodes.append(
        helper.make_node(
            "If",
            [state["go"]],
            outputs,
            then_branch=_graph(deeper, f"from_stage{at + 1}", [], _answer_types(found, exits)),
            else_branch=_graph(stop, f"stop_at_exit{at}", [], _answer_types([*stopped, f"ran{at}"], exits)),
        )
    )
    return body, outputs


def _ends(stage: "ModelProto", at: int, trunk: str) -> dict[str, str]:
    """The names of what goes into a stage and comes out; in a cascade the logits before it go in as well."""
    outputs = [f"trunk{at}", f"logits{at}"][-len(stage.graph.output) :]
    inputs = zip(stage.graph.input, [trunk, f"logits{at - 1}"], strict=False)
    return {value.name: name for value, name in inputs} | {
        value.name: name for value, name in zip(stage.graph.output, outputs, strict=True)
    }


def _ran(at: int, exits: int) -> "NodeProto":
    """The stages that were executed where an answer comes from exit ``at``: a constant of its branch."""
    from onnx import helper

    return helper.make_node("Constant", [], [f"ran{at}"], value_ints=[int(stage <= at) for stage in range(exits)])


def _answer_types(names: Sequence[str], exits: int) -> "list[ValueInfoProto]":
    from onnx import TensorProto, helper

    kinds = [TensorProto.INT64, TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT64]
    shapes: list[list[str | int]] = [["batch"], ["batch"], ["batch"], [exits]]
    return [helper.make_tensor_value_info(*each) for each in zip(names, kinds, shapes, strict=True)]


def _graph(
    body: _Body, name: str, inputs: "Sequence[ValueInfoProto]", outputs: "Sequence[ValueInfoProto]"
) -> "GraphProto":
    from onnx import helper

    return helper.make_graph(body.nodes, name, inputs, outputs, body.weights)


def _model(body: _Body, stages: "Sequence[ModelProto]", outputs: "Sequence[ValueInfoProto]") -> "ModelProto":
    import onnx
    from onnx import helper

    opsets = {entry.domain: entry.version for stage in stages for entry in stage.opset_import}
    model = helper.make_model(
        _graph(body, "ramify", [stages[0].graph.input[0]], outputs),
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in opsets.items()],
        ir_version=max(stage.ir_version for stage in stages),
    )
    onnx.checker.check_model(model)
    return model
