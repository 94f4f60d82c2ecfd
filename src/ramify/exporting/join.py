"""Graphs of stages put together: each with what the policy makes of it, all to one, and to one that stops early.

The exit policy is exported for each exit alone and stays in float32, whatever the stages are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from ramify.answer.card import NEVER
from ramify.exporting.graphs import AllJudgements, OneJudgement
from ramify.exporting.onnx import EARLY_OUTPUTS, JUDGED, Graphs, to_onnx
from ramify.ops.exits.policy import Policy

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

ANSWERS = ("classes", "confidence", "exits", "stays")


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


def join_stages(stages: "Sequence[ModelProto]", policy: Policy) -> Graphs:
    """All three shapes, from the graphs of the stages alone; see :class:`ramify.exporting.onnx.Graphs`."""
    judged = judged_stages(stages, policy)
    return Graphs(all_exits(stages), _early_exit(stages, judged, policy), judged)


def judged_stages(stages: "Sequence[ModelProto]", policy: Policy) -> "tuple[ModelProto, ...]":
    """The stages, each with what ``policy`` makes of its exit; see :class:`ramify.exporting.onnx.Graphs`."""
    from onnx import TensorProto, helper

    classes = stages[0].graph.output[-1].type.tensor_type.shape.dim[1].dim_value
    shape: list[str | int] = ["batch", classes]
    found: list[ModelProto] = []
    judges = [OneJudgement(policy, at) for at in range(len(stages))]
    for at, (stage, asked, judgement) in enumerate(zip(stages, judges, judgements(judges, classes), strict=True)):
        body = _Body()
        body.add(stage, "", {})
        body.add(judgement, "policy/", {f"{name}{at}": name for name in (*asked.inputs, *JUDGED)})
        kinds = {"seen": ([at, *shape], TensorProto.FLOAT), "threshold": ([], TensorProto.FLOAT)}
        inputs = [helper.make_tensor_value_info(n, kinds[n][1], kinds[n][0]) for n in asked.inputs if n in kinds]
        outputs = [*stage.graph.output]
        for name, kind in zip(JUDGED, (TensorProto.INT64, TensorProto.FLOAT, TensorProto.BOOL), strict=True):
            outputs.append(helper.make_tensor_value_info(name, kind, ["batch"]))
        found.append(_model(body, [stage], [*stage.graph.input, *inputs], outputs))
    return tuple(found)


def judgements(asked: Sequence[OneJudgement], classes: int) -> "list[ModelProto]":
    """A graph for each of ``asked``, of which the i-th has i behind the names of its inputs and outputs.

    They are exported together, as a call of the exporter takes seconds, and then taken apart.
    """
    from onnx.utils import Extractor

    given: list[torch.Tensor] = []
    inputs: list[str] = []
    axes: dict[str, int] = {}
    for at, each in enumerate(asked):
        own = {
            "seen": torch.zeros(each.at, 2, classes),
            "logits": torch.zeros(2, classes),
            "threshold": torch.tensor(0.5),
        }
        given += [own[name] for name in each.inputs]
        inputs += [f"{name}{at}" for name in each.inputs]
        axes |= {f"seen{at}": 1, f"logits{at}": 0}
    outputs = [f"{name}{at}" for at in range(len(asked)) for name in JUDGED]
    whole = to_onnx(AllJudgements(asked), tuple(given), inputs, outputs, axes)
    found = []
    for at, each in enumerate(asked):
        names = [f"{name}{at}" for name in each.inputs], [f"{name}{at}" for name in JUDGED]
        found.append(Extractor(whole).extract_model(*names))
    return found


def all_exits(stages: "Sequence[ModelProto]") -> "ModelProto":
    """The graph of all exits, from those of the stages."""
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
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)]
    return _model(body, stages, [stages[0].graph.input[0]], outputs)


def _early_exit(stages: "Sequence[ModelProto]", judged: "Sequence[ModelProto]", policy: Policy) -> "ModelProto":
    from onnx import helper

    body, found = _from(0, "images", (), {}, judged, policy)
    ends = [helper.make_node("Identity", [name], [wanted]) for name, wanted in zip(found, EARLY_OUTPUTS, strict=True)]
    body.nodes.extend(ends)
    return _model(body, stages, [stages[0].graph.input[0]], _answer_types(EARLY_OUTPUTS, policy.exits))


def _from(
    at: int, trunk: str, seen: tuple[str, ...], state: dict[str, str], judged: "Sequence[ModelProto]", policy: Policy
) -> tuple[_Body, list[str]]:
    """Stage ``at`` and those behind it, and the names of the answers that they give.

    ``seen`` are the names of the logits of earlier exits, and ``state`` of what is known of the pictures so far, empty
    where no exit has been asked.
    """
    from onnx import helper, numpy_helper

    body, exits = _Body(), policy.exits
    names = {"images": trunk, "trunk": trunk, "before": seen[-1] if seen else ""}
    names |= {"seen": f"seen{at}", "threshold": f"threshold{at}", "trunk_out": f"trunk{at}"}
    names |= {name: f"{name}{at}" for name in ("logits", *JUDGED)}
    if policy.remembers and at:
        for name in seen:
            body.nodes.append(helper.make_node("Unsqueeze", [name, f"first_axis{at}"], [f"{name}/exit{at}"]))
        body.nodes.append(helper.make_node("Concat", [f"{name}/exit{at}" for name in seen], [f"seen{at}"], axis=0))
        body.weights.append(numpy_helper.from_array(np.zeros(1, np.int64), f"first_axis{at}"))
    body.add(judged[at], f"stage{at}/", names)
    last, known = at + 1 == exits, policy.known(at)
    if not last:
        threshold = policy.thresholds[at]
        value = np.array(NEVER if threshold is None else threshold, np.float32)
        body.weights.append(numpy_helper.from_array(value, f"threshold{at}"))
    if known is not False:
        state = _merged(body, at, state)
    if last:
        body.nodes.append(_ran(at, exits))
        return body, [*(state[name] for name in ANSWERS[:3]), f"ran{at}"]
    deeper, found = _from(at + 1, f"trunk{at}", (*seen, f"logits{at}"), state, judged, policy)
    if known is False:
        return _Body(body.nodes + deeper.nodes, body.weights + deeper.weights), found
    stopped = [f"{name}_here{at}" for name in ANSWERS[:3]]
    stop = _Body(
        [helper.make_node("Identity", [state[name]], [here]) for name, here in zip(ANSWERS, stopped, strict=False)]
    )
    stop.nodes.append(_ran(at, exits))
    outputs = [f"{name}_behind{at}" for name in EARLY_OUTPUTS]
    body.nodes += [
        helper.make_node("Cast", [state["stays"]], [f"stays_number{at}"], to=6),  # int32
        helper.make_node("ReduceMax", [f"stays_number{at}"], [f"go_number{at}"], keepdims=0),
        helper.make_node("Cast", [f"go_number{at}"], [f"go{at}"], to=9),  # bool
        helper.make_node(
            "If",
            [f"go{at}"],
            outputs,
            then_branch=_graph(deeper, f"from_stage{at + 1}", [], _answer_types(found, exits)),
            else_branch=_graph(stop, f"stop_at_exit{at}", [], _answer_types([*stopped, f"ran{at}"], exits)),
        ),
    ]
    return body, outputs


def _merged(body: _Body, at: int, state: dict[str, str]) -> dict[str, str]:
    """The names of the answers so far, exit ``at`` included: it counts for the pictures that have stayed."""
    from onnx import helper, numpy_helper

    body.weights.append(numpy_helper.from_array(np.array(at, np.int64), f"number{at}"))
    body.nodes += [
        helper.make_node("Not", [f"leaves{at}"], [f"undecided{at}"]),
        helper.make_node("Mul", [f"classes{at}", f"none{at}"], [f"no_exit{at}"]),
        helper.make_node("Add", [f"no_exit{at}", f"number{at}"], [f"exit{at}"]),
    ]
    body.weights.append(numpy_helper.from_array(np.array(0, np.int64), f"none{at}"))
    here = {"classes": f"classes{at}", "confidence": f"confidence{at}", "exits": f"exit{at}", "stays": f"undecided{at}"}
    if not state:
        return here
    found = {name: f"{name}_so_far{at}" for name in ANSWERS}
    for name in ANSWERS[:3]:
        body.nodes.append(helper.make_node("Where", [state["stays"], here[name], state[name]], [found[name]]))
    body.nodes.append(helper.make_node("And", [state["stays"], here["stays"]], [found["stays"]]))
    return found


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


def _model(
    body: _Body,
    stages: "Sequence[ModelProto]",
    inputs: "Sequence[ValueInfoProto]",
    outputs: "Sequence[ValueInfoProto]",
) -> "ModelProto":
    import onnx
    from onnx import helper

    opsets = {entry.domain: entry.version for stage in stages for entry in stage.opset_import}
    model = helper.make_model(
        _graph(body, "ramify", inputs, outputs),
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in opsets.items()],
        ir_version=max(stage.ir_version for stage in stages),
    )
    onnx.checker.check_model(model)
    return model
