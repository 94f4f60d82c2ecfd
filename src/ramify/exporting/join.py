"""Joins the graphs of stages: each with the exit policy, all into one, and into one that stops early.

The exit policy is exported for each exit alone and stays in float32, also behind int8 stages.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import onnx
import torch
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper
from onnx.utils import Extractor

from ramify.answer.card import NEVER
from ramify.exporting.graphs import AllJudgements, OneJudgement
from ramify.exporting.onnx import EARLY_OUTPUTS, JUDGED, Graphs, to_onnx
from ramify.ops.exits.policy import Policy

ANSWERS = ("classes", "confidence", "exits", "stays")


@dataclass
class _Body:
    """Nodes and weights of a graph to be built."""

    nodes: list[NodeProto] = field(default_factory=list)
    weights: list[TensorProto] = field(default_factory=list)

    def add(self, model: ModelProto, prefix: str, names: Mapping[str, str]) -> None:
        """Add the content of ``model``, a graph without branches; ``names`` renames its inputs and outputs."""

        def renamed(name: str) -> str:
            return names.get(name, prefix + name) if name else name

        graph = copy.deepcopy(model.graph)
        for node in graph.node:
            node.name = prefix + node.name
            node.input[:] = [renamed(name) for name in node.input]
            node.output[:] = [renamed(name) for name in node.output]
        for weight in graph.initializer:
            weight.name = renamed(weight.name)
        self.nodes += graph.node
        self.weights += graph.initializer


def join_stages(stages: Sequence[ModelProto], policy: Policy) -> Graphs:
    """All three shapes from the graphs of the stages; see :class:`ramify.exporting.onnx.Graphs`."""
    judged = judged_stages(stages, policy)
    body, names = _from(0, "images", (), {}, judged, policy)
    body.nodes += [helper.make_node("Identity", [name], [out]) for name, out in zip(names, EARLY_OUTPUTS, strict=True)]
    early = _model(body, stages, [stages[0].graph.input[0]], _answer_types(EARLY_OUTPUTS, policy.exits))
    return Graphs(all_exits(stages), early, judged)


def judged_stages(stages: Sequence[ModelProto], policy: Policy) -> tuple[ModelProto, ...]:
    """The stages, each followed by the decision of ``policy``; see :class:`ramify.exporting.onnx.Graphs`."""
    classes = _classes(stages)
    models: list[ModelProto] = []
    judges = [OneJudgement(policy, at) for at in range(len(stages))]
    for at, (stage, judge, judgement) in enumerate(zip(stages, judges, judgements(judges, classes), strict=True)):
        body = _Body()
        body.add(stage, "", {})
        body.add(judgement, "policy/", {f"{name}{at}": name for name in (*judge.inputs, *JUDGED)})
        shapes: dict[str, list[str | int]] = {"seen": [at, "batch", classes], "threshold": []}
        inputs = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name])
            for name in judge.inputs
            if name in shapes
        ]
        kinds = zip(JUDGED, (TensorProto.INT64, TensorProto.FLOAT, TensorProto.BOOL), strict=True)
        outputs = [helper.make_tensor_value_info(name, kind, ["batch"]) for name, kind in kinds]
        models.append(_model(body, [stage], [*stage.graph.input, *inputs], [*stage.graph.output, *outputs]))
    return tuple(models)


def judgements(judges: Sequence[OneJudgement], classes: int) -> list[ModelProto]:
    """A graph for each of ``judges``; the inputs and outputs of the i-th have i after their names.

    They are exported together and then taken apart, as a call of the exporter takes seconds.
    """
    examples: list[torch.Tensor] = []
    inputs = [[f"{name}{at}" for name in judge.inputs] for at, judge in enumerate(judges)]
    outputs = [[f"{name}{at}" for name in JUDGED] for at in range(len(judges))]
    axes: dict[str, int] = {}
    for at, judge in enumerate(judges):
        tensors = {
            "seen": torch.zeros(judge.at, 2, classes),
            "logits": torch.zeros(2, classes),
            "threshold": torch.tensor(0.5),
        }
        examples += [tensors[name] for name in judge.inputs]
        axes |= {f"seen{at}": 1, f"logits{at}": 0}
    whole = to_onnx(AllJudgements(judges), tuple(examples), [*chain(*inputs)], [*chain(*outputs)], axes)
    return [Extractor(whole).extract_model(*names) for names in zip(inputs, outputs, strict=True)]


def _classes(stages: Sequence[ModelProto]) -> int:
    return int(stages[0].graph.output[-1].type.tensor_type.shape.dim[1].dim_value)


def all_exits(stages: Sequence[ModelProto]) -> ModelProto:
    """The graph of all exits, from the graphs of the stages."""
    body, trunk = _Body(), "images"
    for at, stage in enumerate(stages):
        # In a cascade a stage also reads the logits before it.
        inputs = zip(stage.graph.input, [trunk, f"logits{at - 1}"], strict=False)
        outputs = zip(stage.graph.output, [f"trunk{at}", f"logits{at}"][-len(stage.graph.output) :], strict=True)
        body.add(stage, f"stage{at}/", {value.name: name for value, name in (*inputs, *outputs)})
        trunk = f"trunk{at}"
        body.nodes.append(helper.make_node("Unsqueeze", [f"logits{at}", "first_axis"], [f"exit{at}"]))
    body.weights.append(numpy_helper.from_array(np.zeros(1, np.int64), "first_axis"))
    body.nodes.append(helper.make_node("Concat", [f"exit{at}" for at in range(len(stages))], ["logits"], axis=0))
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [len(stages), "batch", _classes(stages)])
    return _model(body, stages, [stages[0].graph.input[0]], [logits])


def _from(
    at: int, trunk: str, seen: tuple[str, ...], state: dict[str, str], judged: Sequence[ModelProto], policy: Policy
) -> tuple[_Body, list[str]]:
    """Stage ``at`` and all later ones, and the names of their answers.

    ``seen`` are the names of the logits of earlier exits, ``state`` those of the answers so far, empty at first.
    """
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
    deeper, answers = _from(at + 1, f"trunk{at}", (*seen, f"logits{at}"), state, judged, policy)
    if known is False:
        return _Body(body.nodes + deeper.nodes, body.weights + deeper.weights), answers
    copies = [helper.make_node("Identity", [state[name]], [f"{name}_here{at}"]) for name in ANSWERS[:3]]
    stopped = _answer_types([*(f"{name}_here{at}" for name in ANSWERS[:3]), f"ran{at}"], exits)
    outputs = [f"{name}_behind{at}" for name in EARLY_OUTPUTS]
    body.nodes += [
        helper.make_node("Cast", [state["stays"]], [f"stays_number{at}"], to=TensorProto.INT32),
        helper.make_node("ReduceMax", [f"stays_number{at}"], [f"go_number{at}"], keepdims=0),
        helper.make_node("Cast", [f"go_number{at}"], [f"go{at}"], to=TensorProto.BOOL),
        helper.make_node(
            "If",
            [f"go{at}"],
            outputs,
            then_branch=helper.make_graph(
                deeper.nodes, f"from_stage{at + 1}", [], _answer_types(answers, exits), deeper.weights
            ),
            else_branch=helper.make_graph([*copies, _ran(at, exits)], f"stop_at_exit{at}", [], stopped),
        ),
    ]
    return body, outputs


def _merged(body: _Body, at: int, state: dict[str, str]) -> dict[str, str]:
    """The names of the answers so far, with exit ``at`` for the pictures that have not left before."""
    for name, number in (("number", at), ("none", 0)):
        body.weights.append(numpy_helper.from_array(np.array(number, np.int64), f"{name}{at}"))
    body.nodes += [
        helper.make_node("Not", [f"leaves{at}"], [f"undecided{at}"]),
        helper.make_node("Mul", [f"classes{at}", f"none{at}"], [f"no_exit{at}"]),
        helper.make_node("Add", [f"no_exit{at}", f"number{at}"], [f"exit{at}"]),
    ]
    here = {"classes": f"classes{at}", "confidence": f"confidence{at}", "exits": f"exit{at}", "stays": f"undecided{at}"}
    if not state:
        return here
    merged = {name: f"{name}_so_far{at}" for name in ANSWERS}
    for name in ANSWERS[:3]:
        body.nodes.append(helper.make_node("Where", [state["stays"], here[name], state[name]], [merged[name]]))
    body.nodes.append(helper.make_node("And", [state["stays"], here["stays"]], [merged["stays"]]))
    return merged


def _ran(at: int, exits: int) -> NodeProto:
    """The stages that are executed up to exit ``at``: a constant of its branch."""
    return helper.make_node("Constant", [], [f"ran{at}"], value_ints=[int(stage <= at) for stage in range(exits)])


def _answer_types(names: Sequence[str], exits: int) -> list[ValueInfoProto]:
    kinds = [TensorProto.INT64, TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT64]
    shapes: list[list[str | int]] = [["batch"], ["batch"], ["batch"], [exits]]
    return [helper.make_tensor_value_info(*value) for value in zip(names, kinds, shapes, strict=True)]


def _model(
    body: _Body,
    stages: Sequence[ModelProto],
    inputs: Sequence[ValueInfoProto],
    outputs: Sequence[ValueInfoProto],
) -> ModelProto:
    opsets = {entry.domain: entry.version for stage in stages for entry in stage.opset_import}
    model = helper.make_model(
        helper.make_graph(body.nodes, "ramify", inputs, outputs, body.weights),
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in opsets.items()],
        ir_version=max(stage.ir_version for stage in stages),
    )
    onnx.checker.check_model(model)
    return model
