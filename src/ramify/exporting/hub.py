"""A model folder, as users of the Hugging Face hub expect one: ``model.safetensors``, ``config.json``, ``README.md``.

``config.json`` is the ``model.json`` of a checkpoint with a few fields that other tools look for, so that
:func:`ramify.load` reads the folder as it reads a run, checksums and all.
"""

from dataclasses import asdict, replace
from pathlib import Path

import torch

from ramify.config.read import read_config
from ramify.errors import InputError
from ramify.exporting.modelcard import Clocked, model_card, source_name
from ramify.files import replace_folder, write_atomic
from ramify.run.checkpoint import HUB_CONFIG, is_checkpoint, pack_model
from ramify.run.folder import CONFIG, is_run
from ramify.run.latency import exit_latencies
from ramify.run.readback import describe
from ramify.run.saved import read_saved
from ramify.run.summary import Summary, describe_machine

README = "README.md"


def write_hub(
    run: str | Path,
    out: str | Path | None = None,
    *,
    overwrite: bool = False,
    licence: str | None = None,
    measure: bool = False,
) -> Path:
    """Write the network that stands for ``run`` as a model folder.

    Args:
        run: the folder of the run.
        out: the folder to write; None: ``hub`` in the run's.
        overwrite: write although ``out`` holds something. Only the three files are replaced, so that a clone of a
            repository keeps the rest.
        licence: as the hub names it (``mit``, ``cc-by-4.0``), or any other name; None: the card says that it is
            unknown.
        measure: time each exit here and now, for the card.

    Returns:
        The folder.

    Raises:
        InputError: ``out`` holds something and ``overwrite`` is False, or it is the folder of a run or checkpoint.
        CheckpointError: the network cannot be read.
        RunError: the folder cannot be written.
    """
    run = Path(run)
    out = run / "hub" if out is None else Path(out)
    _check(out, overwrite)
    config, summary = read_config([run / CONFIG]), describe(run)
    network, card = read_saved(run)
    clocked = None
    if measure:
        machine = describe_machine(torch.device("cpu"), "float32")
        clocked = Clocked(tuple(exit_latencies(network)), machine)
    shared = _without_paths(summary)
    extra = {
        "model_type": "ramify",
        "id2label": {str(label): name for label, name in enumerate(card.classes)},
        "label2id": {name: label for label, name in enumerate(card.classes)},
        "run": asdict(shared),
    }
    packed = pack_model(network, card, extra)
    text = model_card(shared, card, config, licence=licence, clocked=clocked)
    files = {
        "model.safetensors": packed["model.safetensors"],
        HUB_CONFIG: packed["model.json"],
        README: text.encode(errors="replace"),
    }
    if out.exists() and any(out.iterdir()):
        for name, content in files.items():
            write_atomic(out / name, content)
    else:
        replace_folder(out, files)
    return out


def _check(out: Path, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise InputError(f"out: got {out}, a file; accepted: a folder, or a name that is free")
    if is_run(out) or (out / "model.json").exists():
        raise InputError(f"out: got {out}, a run or a checkpoint; accepted: another folder")
    if out.exists() and any(out.iterdir()) and not overwrite:
        what = "a model folder" if is_checkpoint(out) else "a folder that is not empty"
        raise InputError(
            f"out: got {out}, {what}; accepted: another one, or --overwrite to replace its {README}, "
            f"{HUB_CONFIG} and model.safetensors"
        )


def _without_paths(summary: Summary) -> Summary:
    """``summary`` as others may read it: how folders are called on this machine is nobody's business."""
    parent = None if summary.parent is None else Path(summary.parent).name
    return replace(summary, folder="", source=source_name(summary), parent=parent)
