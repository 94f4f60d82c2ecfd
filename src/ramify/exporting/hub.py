"""A model folder for the Hugging Face hub: ``model.safetensors``, ``config.json`` and ``README.md``.

``config.json`` is the ``model.json`` of a checkpoint with a few more fields that other tools look for, so
:func:`ramify.load` reads and checks the folder as it does a run.
"""

from dataclasses import asdict, replace
from pathlib import Path

from ramify.config.read import read_config
from ramify.errors import InputError
from ramify.exporting.modelcard import model_card, source_name
from ramify.files import replace_folder, write_atomic
from ramify.run.checkpoint import HUB_CONFIG, is_checkpoint, pack_model
from ramify.run.folder import CONFIG, is_run
from ramify.run.latency import exit_latencies
from ramify.run.readback import describe
from ramify.run.saved import find_run, read_saved

README = "README.md"


def write_hub(
    run: str | Path,
    out: str | Path | None = None,
    *,
    overwrite: bool = False,
    license: str | None = None,
    measure: bool = False,
) -> Path:
    """Write the network of ``run`` as a model folder.

    Args:
        run: its name, or the path of its folder.
        out: the folder to write; None: ``hub`` in the run's.
        overwrite: write although ``out`` holds something. Only the three files are replaced, so a clone of a
            repository keeps the rest.
        license: as the hub names it (``mit``, ``cc-by-4.0``), or any other name; None: unknown, as the card says.
        measure: time each exit now, for the card.

    Returns:
        The folder.

    Raises:
        InputError: ``out`` holds something and ``overwrite`` is False, or it is a run or checkpoint.
        CheckpointError: the network cannot be read.
        RunError: the folder cannot be written.
    """
    run = find_run(run)
    out = run / "hub" if out is None else Path(out)
    _check(out, overwrite)
    config, summary = read_config([run / CONFIG]), describe(run)
    network, card = read_saved(run)
    # Names of folders on this machine are not published.
    parent = None if summary.parent is None else Path(summary.parent).name
    shared = replace(summary, folder="", source=source_name(summary), parent=parent)
    extra = {
        "model_type": "ramify",
        "id2label": {str(label): name for label, name in enumerate(card.classes)},
        "label2id": {name: label for label, name in enumerate(card.classes)},
        "run": asdict(shared),
    }
    packed = pack_model(network, card, extra)
    text = model_card(shared, card, config, license=license, milliseconds=exit_latencies(network) if measure else ())
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
        kind = "a model folder" if is_checkpoint(out) else "a folder that is not empty"
        raise InputError(
            f"out: got {out}, {kind}; accepted: another one, or --overwrite to replace its {README}, "
            f"{HUB_CONFIG} and model.safetensors"
        )
