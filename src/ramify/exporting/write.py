"""Exports a network with its exit policy to files that work without ramify.

Every file is first run on test pictures of the run and compared with the network; one that differs is not written.
"""

import io
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ramify.answer.card import (
    CARD,
    CARD_FORMAT,
    KEY,
    ExportCard,
    ExportedExit,
    ExportedFiles,
    ExportedPolicy,
    Precision,
    Quantization,
    Shape,
    card_text,
    is_exported,
    with_checksums,
)
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
from ramify.exporting.onnx import ALL_EXITS, EARLY_EXIT, OPSET, Graphs, quiet, stage_file, to_program, to_stages
from ramify.exporting.quantize import CALIBRATION, quantize_stages
from ramify.files import replace_folder, write_atomic
from ramify.needs import need
from ramify.nn.branching import Branching
from ramify.run.checkpoint import Card, is_checkpoint
from ramify.run.choice import ChosenPolicy, choose_policy
from ramify.run.evaluate import all_logits, to_float
from ramify.run.folder import is_run
from ramify.run.pictures import parts_of_run
from ramify.run.readback import describe, relabel
from ramify.run.saved import config_of, find_saved, read_saved
from ramify.run.summary import ExitSummary
from ramify.version import __version__

CHECKED = 500
"""Test pictures that every file is run on, or as many as there are."""

ALL_PROGRAM, EARLY_PROGRAM = "all_exits.pt2", "early_exit.pt2"
STAGES = "stages"
"""Name of all stage graphs together, in the table."""


@dataclass(frozen=True)
class CheckedFile:
    """A file that was run.

    Attributes:
        file: its name in the folder; ``stages`` stands for all stage graphs together.
        bytes: its size.
        difference: the largest difference from the network, of a logit or, for the early-exit file, of a confidence.
    """

    file: str
    bytes: int
    difference: float


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


@dataclass(frozen=True)
class Subject:
    """A network to export, and the pictures to check the export with.

    Attributes:
        name: of the run.
        folder: to be written.
        network: on the CPU, in float32 and evaluation mode, described by ``card``.
        twin: the same network in plain layers.
        chosen: the exit policy.
        exits: cost and accuracy of each exit.
        images: test pictures to run the files on, float32 ``[N, C, H, W]`` in [0, 1], with their ``logits``.
        test, train: all test and training pictures.
    """

    name: str
    folder: Path
    network: Branching
    card: Card
    twin: Branching
    chosen: ChosenPolicy
    exits: tuple[ExitSummary, ...]
    images: Tensor
    logits: Tensor
    test: Part
    train: Part

    def card_for(self, files: ExportedFiles, precision: Precision, opset: int | None) -> ExportCard:
        """The card of the folder."""
        chosen, kept = self.chosen, self.card.policy
        certificate = kept.calibration.certificate if chosen.calibrated and kept is not None else None
        channels, height, width = self.network.input_shape
        return ExportCard(
            format=CARD_FORMAT,
            ramify=__version__,
            name=self.name,
            shape="folder",
            stage=None,
            precision=precision,
            input_shape=(channels, height, width),
            mean=tuple(self.network.mean.tolist()),
            std=tuple(self.network.std.tolist()),
            classes=self.card.classes,
            exits=tuple(
                ExportedExit(
                    cells=summary.cells,
                    macs=summary.macs,
                    weights=summary.kept,
                    valid=None if summary.valid is None else summary.valid.top1,
                    test=None if summary.test is None else summary.test.top1,
                )
                for summary in self.exits
            ),
            policy=ExportedPolicy(
                **vars(chosen.policy),
                calibrated=chosen.calibrated,
                description=chosen.description,
                certificate=certificate,
            ),
            files=files,
            epoch=self.card.epoch,
            opset=opset,
            background=self.card.background,
            range=self.card.range,
        )


Written = tuple[dict[str, bytes], Export]
"""The files of a folder by name, and the results of running them."""


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
        run: the name of a run or the path of its folder; or a saved network, for which ``data.source`` is among the
            ``overrides``.
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
    run = find_saved(run)
    out = run / (f"{to}-{quantize}" if quantize else to) if out is None else Path(out)
    _check_out(out, overwrite)
    need("export", *EXPORTERS[to].packages)
    write = EXPORTERS[to].write if quantize is None else _int8_graphs
    contents, written = write(_read(run, out, threshold, overrides, progress))
    replace_folder(out, with_checksums(contents))
    return written


def _read(
    run: Path, out: Path, threshold: float | None, overrides: Sequence[str], progress: Progress | None
) -> Subject:
    foreign = [text for text in overrides if not text.startswith("data.")]
    if foreign:
        raise ConfigError(*(f"got {text!r}; accepted: data.* here" for text in foreign))
    config = config_of(run, overrides)
    network, card = read_saved(run)
    channels, height, width = network.input_shape
    parts, _ = parts_of_run(run, config, progress, (channels, height, width))
    test = relabel(parts.test, parts.classes, card, config.data.source)
    if not len(test):
        raise InputError(f"{config.data.source}: got none of the test pictures of {run.name}; accepted: some of them")
    checked = evenly(test, CHECKED).images
    return Subject(
        name=run.name,
        folder=out,
        network=network,
        card=card,
        twin=plain(network),
        chosen=choose_policy(card, threshold),
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
    from ramify.exporting.join import join_stages

    graphs = join_stages(to_stages(subject.twin), subject.chosen.policy)
    card = subject.card_for(_files(graphs), "float32", OPSET)
    return _checked(graphs, card, subject, subject.network, subject.logits)


def _int8_graphs(subject: Subject) -> Written:
    from ramify.exporting.join import join_stages

    stages = to_stages(subject.twin)
    before = Staged([stage.SerializeToString() for stage in stages])
    # The loss of accuracy is relative to these stages, so they must be the network.
    compare_logits("the stages", logits_of(before, subject.images), subject.logits)
    training = to_float(evenly(subject.train, CALIBRATION).images).contiguous()
    quantized = quantize_stages(stages, training)
    graphs = join_stages(quantized, subject.chosen.policy)
    after = Staged([stage.SerializeToString() for stage in quantized])

    test = subject.test
    quantization = Quantization(len(training), len(test), accuracies(before, test), accuracies(after, test))
    card = replace(subject.card_for(_files(graphs), "int8", OPSET), quantization=quantization)
    return _checked(graphs, card, subject, after, logits_of(after, subject.images), INT8_SLACK)


def _programs(subject: Subject) -> Written:
    card = subject.card_for(ExportedFiles(ALL_PROGRAM, EARLY_PROGRAM, ()), "float32", None)
    policy, images, twin = subject.chosen.policy, subject.images, subject.twin
    shapes: tuple[tuple[str, torch.nn.Module, Shape], ...] = (
        (ALL_PROGRAM, twin, "all_exits"),
        (EARLY_PROGRAM, EarlyExit(twin, policy), "early_exit"),
    )
    contents = {CARD: card_text(card).encode()}
    programs: list[torch.nn.Module] = []
    with quiet():
        for name, module, shape in shapes:
            contents[name] = _packed(to_program(module, (twin.blank(2),)), card_text(card.part(shape)))
            programs.append(torch.export.load(io.BytesIO(contents[name])).module())
    difference = compare_logits(ALL_PROGRAM, logits_of(programs[0], images), subject.logits)
    early = check_early(EARLY_PROGRAM, programs[1], images, subject.logits, policy, subject.network)
    files = (
        CheckedFile(ALL_PROGRAM, len(contents[ALL_PROGRAM]), difference),
        CheckedFile(EARLY_PROGRAM, len(contents[EARLY_PROGRAM]), early.difference),
    )
    return contents, Export(str(subject.folder), card, len(images), files, early, None)


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


def _files(graphs: Graphs) -> ExportedFiles:
    return ExportedFiles(ALL_EXITS, EARLY_EXIT, tuple(stage_file(at) for at in range(len(graphs.stages))))


def _checked(
    graphs: Graphs, card: ExportCard, subject: Subject, network: Branching, logits: Tensor, slack: float | None = None
) -> Written:
    """The files of a folder, each with its part of ``card``, after running them.

    All three shapes, and the runtime on the folder, are compared with ``network`` and its ``logits``; ``slack`` is
    accepted beyond the rounding of float32.
    """
    parts = [
        (ALL_EXITS, graphs.all_exits, card.part("all_exits")),
        (EARLY_EXIT, graphs.early_exit, card.part("early_exit")),
        *((stage_file(at), stage, card.part("stage", at)) for at, stage in enumerate(graphs.stages)),
    ]
    contents = {CARD: card_text(card).encode()}
    for name, model, part in parts:
        entry = model.metadata_props.add()
        entry.key, entry.value = KEY, card_text(part)
        contents[name] = model.SerializeToString()
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
    by_stage = compare_logits(STAGES, staged, logits, of_logits)

    def run_runtime(batch: Tensor) -> tuple[Tensor, ...]:
        answers = runtime.predict(batch.numpy())
        ran = torch.tensor([int(count > 0) for count in answers.ran])
        return (*map(torch.from_numpy, (answers.classes, answers.confidence, answers.exits)), ran)

    early = check_early(EARLY_EXIT, runner(contents[EARLY_EXIT]), images, logits, policy, network, of_confidence)
    by_runtime = check_early("the runtime", run_runtime, images, logits, policy, network, of_confidence)
    files = (
        CheckedFile(ALL_EXITS, len(contents[ALL_EXITS]), whole),
        CheckedFile(EARLY_EXIT, len(contents[EARLY_EXIT]), early.difference),
        CheckedFile(STAGES, sum(len(contents[name]) for name in card.files.stages), by_stage),
    )
    return contents, Export(str(subject.folder), card, len(images), files, early, by_runtime)


def _check_out(out: Path, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise InputError(f"out: got {out}, a file; accepted: a folder, or a name that is free")
    if is_run(out) or is_checkpoint(out):
        raise InputError(f"out: got {out}, which holds a run or a network; accepted: another folder")
    if out.exists() and any(out.iterdir()) and not is_exported(out):
        raise InputError(f"out: got {out}, a folder that holds something else; accepted: another one")
    if is_exported(out) and not overwrite:
        raise InputError(
            f"out: got {out}, an export that exists; accepted: another folder, or --overwrite to replace it"
        )
