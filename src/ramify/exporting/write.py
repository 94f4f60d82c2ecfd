"""Exports a network with its exit policy to files that work without ramify.

Every file is first run on test pictures of the run and compared with the network; one that differs is not written.
"""

import io
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ramify.answer.card import (
    CARD,
    KEY,
    ExportCard,
    ExportedFiles,
    Quantization,
    Shape,
    card_text,
    is_exported,
    with_checksums,
)
from ramify.answer.needs import need
from ramify.answer.runtime import Runtime
from ramify.data.fetch import Progress
from ramify.data.pictures import Part
from ramify.errors import ConfigError, InputError
from ramify.exporting.check import (
    INT8_SLACK,
    RELATIVE,
    TOLERANCE,
    EarlyCheck,
    Staged,
    accuracies,
    check_early,
    compare_logits,
    logits_of,
    runner,
)
from ramify.exporting.graphs import EarlyExit, plain
from ramify.exporting.join import join_stages
from ramify.exporting.onnx import (
    ALL_EXITS,
    EARLY_EXIT,
    OPSET,
    Graphs,
    example,
    quiet,
    stage_file,
    to_program,
    to_stages,
)
from ramify.exporting.quantize import CALIBRATION, quantize_stages
from ramify.exporting.subject import CheckedFile, Checks, Subject, Written
from ramify.files import replace_folder, write_atomic
from ramify.nn.branching import Branching
from ramify.run.checkpoint import is_checkpoint
from ramify.run.choice import choose_policy
from ramify.run.evaluate import all_logits, to_float
from ramify.run.folder import is_run
from ramify.run.pictures import parts_of_run
from ramify.run.readback import describe, relabel
from ramify.run.saved import config_of, read_saved

CHECKED = 500
"""Test pictures that every file is run on, or as many as there are."""

ALL_PROGRAM, EARLY_PROGRAM = "all_exits.pt2", "early_exit.pt2"
STAGES = "stages"
"""Name of all stage graphs together, in the table."""


@dataclass(frozen=True)
class Export:
    """What was written, and the results of checking it.

    Attributes:
        folder: where it was written.
        card: its ``ramify.json``.
        pictures: how many test pictures every file was run on.
        files: those that were run.
        early: results of the early-exit file.
        runtime: results of :class:`ramify.answer.runtime.Runtime` on the folder; None where there are no stages.
    """

    folder: str
    card: ExportCard
    pictures: int
    files: tuple[CheckedFile, ...]
    early: EarlyCheck
    runtime: EarlyCheck | None


def export(
    run: str | Path,
    out: str | Path | None = None,
    *,
    to: str = "onnx",
    quantize: Literal["int8"] | None = None,
    threshold: float | None = None,
    overwrite: bool = False,
    overrides: Sequence[str] = (),
    progress: Progress | None = None,
) -> Export:
    """Write the network of ``run`` as ONNX graphs or PyTorch programs, checked against the network.

    Files are run on up to 500 test pictures in batches, and on the first 64 one at a time. In float32, logits and
    confidences are those of the network to within 1e-4, or 1e-6 of the largest logit where that is more. An int8
    export is a network of its own; its graphs are compared with each other.

    Args:
        run: the folder of the run, or of a saved network, for which ``data.source`` is among the ``overrides``.
        out: the folder to write; None: ``onnx``, ``onnx-int8`` or ``torch`` in the run's.
        to: a name in :data:`EXPORTERS`. ``onnx`` writes ``all_exits.onnx``, ``early_exit.onnx`` and ``stages/0.onnx``
            and so on, ``torch`` writes ``all_exits.pt2`` and ``early_exit.pt2``; for inputs and outputs see
            :class:`ramify.exporting.onnx.Graphs`.
        quantize: ``int8`` for weights and activations of 8 bits, with ranges from 512 training pictures; ONNX only.
        threshold: in [0, 1]; a picture leaves where the confidence reaches it, in place of calibrated thresholds.
        overwrite: replace an export that is there.
        overrides: ``data.*`` keys, where the pictures lie elsewhere now.
        progress: called with how far a download is.

    Raises:
        InputError: ``out`` holds something, a package is missing, an argument is out of range, or the pictures are not
            what the network was trained on.
        CheckpointError: the network cannot be read.
        RunError: a file does not compute what the network computes, or the folder cannot be written.
    """
    if to not in EXPORTERS:
        raise InputError(f"to: got {to!r}; accepted: {', '.join(EXPORTERS)}, hub (ramify.write_hub)")
    if quantize is not None and (quantize != "int8" or to != "onnx"):
        raise InputError(f"quantize: got {quantize!r} with to={to!r}; accepted: 'int8' with to='onnx'")
    run = Path(run)
    out = run / (f"{to}-{quantize}" if quantize else to) if out is None else Path(out)
    _check_out(out, overwrite)
    need("export", *EXPORTERS[to].packages)
    subject = _read(run, threshold, overrides, progress)
    write = EXPORTERS[to].write if quantize is None else _int8_graphs
    contents, card, checks = write(subject)
    replace_folder(out, with_checksums(contents))
    return Export(str(out), card, len(subject.images), checks.files, checks.early, checks.runtime)


def _read(run: Path, threshold: float | None, overrides: Sequence[str], progress: Progress | None) -> Subject:
    foreign = [text for text in overrides if not text.startswith("data.")]
    if foreign:
        raise ConfigError(*(f"got {text!r}; accepted: data.* here" for text in foreign))
    config = config_of(run, overrides)
    network, card = read_saved(run)
    chosen = choose_policy(card, threshold)
    channels, height, width = network.input_shape
    parts, _ = parts_of_run(run, config, progress, (channels, height, width))
    test = relabel(parts.test, parts.classes, card, config.data.source)
    if not len(test):
        raise InputError(f"{config.data.source}: got none of the test pictures of {run.name}; accepted: some of them")
    checked = evenly(test, CHECKED).images
    return Subject(
        name=run.name,
        network=network,
        card=card,
        twin=plain(network),
        chosen=chosen,
        exits=describe(run).exits,
        images=to_float(checked).contiguous(),
        logits=all_logits(network, checked),
        test=test,
        train=parts.train,
    )


def evenly(part: Part, count: int) -> Part:
    """Up to ``count`` evenly spaced pictures of ``part``: sources may be sorted by class.

    Example:
        >>> evenly(Part(torch.zeros(10, 1, 8, 8), torch.arange(10)), 4).labels.tolist()
        [0, 3, 6, 9]
    """
    return part[torch.linspace(0, len(part) - 1, min(count, len(part))).round().long()]


def _float_graphs(subject: Subject) -> Written:
    graphs = join_stages(to_stages(subject.twin, subject.input_shape), subject.chosen.policy)
    card = subject.card_for(_onnx_files(graphs), "float32", OPSET)
    contents = _with_cards(graphs, card)
    return contents, card, _check_graphs(contents, card, subject, subject.network, subject.logits)


def _int8_graphs(subject: Subject) -> Written:
    stages = to_stages(subject.twin, subject.input_shape)
    before = Staged([stage.SerializeToString() for stage in stages])
    # The loss of accuracy is relative to these stages, so they must be the network.
    compare_logits("the stages", logits_of(before, subject.images), subject.logits)
    training = to_float(evenly(subject.train, CALIBRATION).images).contiguous()
    quantized = quantize_stages(stages, training)
    graphs = join_stages(quantized, subject.chosen.policy)
    after = Staged([stage.SerializeToString() for stage in quantized])

    def accuracy(network: Branching) -> tuple[float, ...]:
        # Pictures are uint8, and made float a few at a time.
        batches = [to_float(batch).contiguous() for batch in subject.test.images.split(512)]
        return accuracies(torch.cat([logits_of(network, batch) for batch in batches], dim=1), subject.test.labels)

    quantization = Quantization(len(training), len(subject.test), accuracy(before), accuracy(after))
    card = replace(subject.card_for(_onnx_files(graphs), "int8", OPSET), quantization=quantization)
    contents = _with_cards(graphs, card)
    logits = logits_of(after, subject.images)
    return contents, card, _check_graphs(contents, card, subject, after, logits, INT8_SLACK)


def _programs(subject: Subject) -> Written:
    card = subject.card_for(ExportedFiles(ALL_PROGRAM, EARLY_PROGRAM, ()), "float32", None)
    policy, inputs = subject.chosen.policy, (example(subject.input_shape),)
    shapes: dict[str, tuple[torch.nn.Module, Shape]] = {
        ALL_PROGRAM: (subject.twin, "all_exits"),
        EARLY_PROGRAM: (EarlyExit(subject.twin, policy), "early_exit"),
    }
    contents = {CARD: card_text(card).encode()}
    programs: dict[str, torch.nn.Module] = {}
    with quiet():
        for name, (module, shape) in shapes.items():
            contents[name] = _packed(to_program(module, inputs), card_text(card.part(shape)))
            programs[name] = torch.export.load(io.BytesIO(contents[name])).module()
    difference = compare_logits(ALL_PROGRAM, logits_of(programs[ALL_PROGRAM], subject.images), subject.logits)
    early = check_early(EARLY_PROGRAM, programs[EARLY_PROGRAM], subject.images, subject.logits, policy, subject.network)
    files = (
        CheckedFile(ALL_PROGRAM, len(contents[ALL_PROGRAM]), difference),
        CheckedFile(EARLY_PROGRAM, len(contents[EARLY_PROGRAM]), early.difference),
    )
    return contents, card, Checks(files, early, None)


@dataclass(frozen=True)
class Exporter:
    """A value of ``to``.

    Attributes:
        write: makes the files of the folder, with ``ramify.json``, and runs them.
        packages: optional packages that it needs.
    """

    write: Callable[[Subject], Written]
    packages: tuple[str, ...] = ()


EXPORTERS: dict[str, Exporter] = {
    "onnx": Exporter(_float_graphs, ("onnx", "onnxscript", "onnxruntime")),
    "torch": Exporter(_programs),
}
"""Exporters by their name in ``ramify export --to``; ``hub`` is :mod:`ramify.exporting.hub`."""


def _packed(program: torch.export.ExportedProgram, text: str) -> bytes:
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                # It has source paths of this machine.
                node.meta.pop("stack_trace", None)
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={CARD: text})
    return file.getvalue()


def _onnx_files(graphs: Graphs) -> ExportedFiles:
    return ExportedFiles(ALL_EXITS, EARLY_EXIT, tuple(stage_file(at) for at in range(len(graphs.stages))))


def _with_cards(graphs: Graphs, card: ExportCard) -> dict[str, bytes]:
    """The files of a folder; every graph has its part of the card in its metadata."""
    parts = {ALL_EXITS: card.part("all_exits"), EARLY_EXIT: card.part("early_exit")}
    parts |= {stage_file(at): card.part("stage", at) for at in range(len(graphs.stages))}
    contents = {CARD: card_text(card).encode()}
    for name, model in graphs.files.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = KEY, card_text(parts[name])
        contents[name] = model.SerializeToString()
    return contents


def _check_graphs(
    contents: Mapping[str, bytes],
    card: ExportCard,
    subject: Subject,
    network: Branching,
    logits: Tensor,
    slack: float | None = None,
) -> Checks:
    """Run all three shapes, and the runtime on the folder, and compare them with ``network`` and its ``logits``.

    ``slack`` is accepted beyond the rounding of float32.
    """
    policy, images = subject.chosen.policy, subject.images
    run_all = runner(contents[ALL_EXITS])
    of_logits = RELATIVE if slack is None else slack
    whole = compare_logits(ALL_EXITS, logits_of(lambda batch: run_all(batch)[0], images), logits, of_logits)
    # Logits that differ by d make confidences that differ by d / 2 at most; the early-exit graph may round apart again.
    of_confidence = TOLERANCE if slack is None else max(slack, whole)
    with tempfile.TemporaryDirectory() as folder:
        for name, content in contents.items():
            write_atomic(Path(folder, name), content)
        runtime = Runtime(folder, threads=torch.get_num_threads())
    staged = logits_of(lambda batch: torch.from_numpy(runtime.logits(batch.numpy())), images)
    parts = compare_logits(STAGES, staged, logits, of_logits)

    def run_runtime(batch: Tensor) -> tuple[Tensor, ...]:
        answers = runtime.predict(batch.numpy())
        ran = torch.tensor([int(count > 0) for count in answers.ran])
        return (*map(torch.from_numpy, (answers.classes, answers.confidence, answers.exits)), ran)

    early = check_early(EARLY_EXIT, runner(contents[EARLY_EXIT]), images, logits, policy, network, of_confidence)
    by_runtime = check_early("the runtime", run_runtime, images, logits, policy, network, of_confidence)
    files = (
        CheckedFile(ALL_EXITS, len(contents[ALL_EXITS]), whole),
        CheckedFile(EARLY_EXIT, len(contents[EARLY_EXIT]), early.difference),
        CheckedFile(STAGES, sum(len(contents[name]) for name in card.files.stages), parts),
    )
    return Checks(files, early, by_runtime)


def _check_out(out: Path, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise InputError(f"out: got {out}, a file; accepted: a folder, or a name that is free")
    if is_run(out) or is_checkpoint(out):
        raise InputError(f"out: got {out}, which holds a run or a network; accepted: another folder")
    if not out.exists() or not any(out.iterdir()):
        return
    if not is_exported(out):
        raise InputError(f"out: got {out}, a folder that holds something else; accepted: another one")
    if not overwrite:
        raise InputError(
            f"out: got {out}, an export that exists; accepted: another folder, or --overwrite to replace it"
        )
