"""Answering early in ONNX Runtime: the graph that stops early, and one graph a stage, against the graph of all exits.

    python bench/shipping.py
    python bench/shipping.py runs/demo/onnx ...

Without arguments two networks are trained and exported: one on the embedded digits, and one of 8 cells and 16 channels
on an epoch of 32x32 color noise (only its time counts), each with a threshold at which pictures leave at several exits.
The pictures that leave at one exit are answered one at a time, in turn by the graph of all exits, by the graph that
stops early (``If``), and by the runtime, which calls one graph for each stage. One thread; times are its processor
time, medians over rounds. With the graph of all exits, choosing an exit is left to the caller and not counted.
Written to ``bench/results/shipping.json``.
"""

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from common import for_each, machine, new_parser, write_rows
from loading import make

import ramify
from ramify.answer.runtime import Floats, Runtime, opened
from ramify.data.sources import load_pictures
from ramify.exporting.write import evenly, export
from ramify.run.evaluate import to_float
from ramify.run.latency import in_turn

PICTURES, ROUNDS, THREADS, CPU = 8, 51, 1, torch.device("cpu")
COLOR = (
    "name=color",
    "network.kind=full_ic",
    "network.structure=[0,0,1,0,0,1,0,0]",
    "data.valid_fraction=0",
    "train.epochs=1",
    "train.precision=float32",
)


def test_pictures(run: Path) -> Floats:
    """Up to 200 test pictures of a run, float32 ``[N, C, H, W]``."""
    test = load_pictures(ramify.read_config([run / "config.yaml"]).data).test
    images: Floats = to_float(evenly(test, 200).images).contiguous().numpy()
    return images


def export_run(run: Path) -> Path:
    """The export of ``run``, with a threshold that the inner exits reach for 4 of 10 pictures."""
    network, images = ramify.answerer(run), test_pictures(run)
    confidences = [opinion.confidence for image in images for opinion in network.opinions(image)[:-1]]
    return Path(export(run, threshold=float(np.quantile(confidences, 0.6))).folder)


def measure(folder: Path) -> list[dict[str, object]]:
    """A row and a printed line for each exit at which pictures leave; ``folder`` is a subfolder of its run."""
    images = test_pictures(folder.parent)
    whole, early = (
        opened((folder / f"{name}.onnx").read_bytes(), name, THREADS) for name in ("all_exits", "early_exit")
    )
    runtime = Runtime(folder, threads=THREADS)
    exits = runtime.predict(images).exits
    macs = [exit_.macs for exit_ in runtime.card.exits]
    answers: list[Callable[[Floats], object]] = [
        lambda image: whole.run(None, {"images": image}),
        lambda image: early.run(None, {"images": image}),
        runtime.predict,
    ]
    rows: list[dict[str, object]] = []
    for exit_ in sorted(set(exits.tolist())):
        sample = [image[None] for image in images[exits == exit_][:PICTURES]]
        calls = [partial(for_each, answer, sample) for answer in answers]
        all_exits, graph, staged = (ms / len(sample) for ms in in_turn(calls, CPU, ROUNDS, time.thread_time))
        rows.append(
            {
                "network": runtime.card.name,
                "exit": exit_ + 1,
                "exits": len(macs),
                "share": float((exits == exit_).mean()),
                "macs": macs[exit_] / macs[-1],
                "all exits, ms": all_exits,
                "early exit, ms": graph,
                "stages, ms": staged,
                "early exit / all exits": graph / all_exits,
                "stages / all exits": staged / all_exits,
            }
        )
        print(
            f"{runtime.card.name:<8} {exit_ + 1} of {len(macs)} {macs[exit_] / macs[-1]:>6.2f} {all_exits:>14.3f} ms "
            f"{graph / all_exits:>12.2f} {staged / all_exits:>12.2f}",
            flush=True,
        )
    return rows


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("exports", nargs="*", type=Path, metavar="FOLDER", help="written by ramify export")
    args = parser.parse_args()
    torch.set_num_threads(THREADS)
    here = f"{machine(THREADS)}, onnxruntime {onnxruntime.__version__}"
    print(f"{here}, seed 0, batch 1, medians of {ROUNDS - 1} rounds")
    print("network  exit    MACs      all exits   early exit       stages   (times against all exits)")
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        exports = list(args.exports)
        if not exports:
            make(Path(folder, "noise"), 300, 32)
            for keys in (("data.source=digits",), (*COLOR, f"data.source={folder}/noise")):
                run = ramify.train(ramify.read_config(overrides=[*keys, f"runs_dir={folder}/runs"]))
                exports.append(export_run(Path(run.folder)))
        for export_ in exports:
            rows += measure(export_)
    write_rows("shipping", rows, machine=here, threads=THREADS, seed=0)


if __name__ == "__main__":
    main()
