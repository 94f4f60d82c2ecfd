"""Answering early in ONNX Runtime: what the graph that stops, and the stages one by one, take against all exits.

    python bench/shipping.py

Two networks: one trained on the embedded digits, and one of 10 cells and 16 channels for 32x32 colour pictures, which
has seen an epoch of noise, as only its time counts. Both are exported as ``ramify export`` does, with a threshold at
which pictures leave at several exits. Those that leave at one exit are answered one at a time, in turn by the graph of
all exits, by the graph that stops early (``If``), and by the runtime that calls a graph for each stage; one thread,
medians over rounds. The graph of all exits leaves it to the caller to judge its logits, which is not counted.
Written to ``bench/results/shipping.json`` as well.
"""

import json
import os
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from exits import DIGITS
from PIL import Image

import ramify
from ramify.data.sources import load_pictures
from ramify.run.evaluate import to_float
from ramify.run.latency import in_turn
from ramify.ship.check import session
from ramify.ship.export import export, spread
from ramify.ship.runtime import Floats, Runtime

RESULTS = Path(__file__).parent / "results" / "shipping.json"
PICTURES, ROUNDS, THREADS = 8, 51, 1
COLOUR = (
    "name=colour",
    "network.kind=full_ic",
    "network.structure=[0,0,1,0,0,1,0,0,1,0]",
    "data.valid_fraction=0",
    "train.epochs=1",
    "train.precision=float32",
)
Call = Callable[[], object]


def noise(folder: Path) -> Path:
    """Pictures of noise in folders, 10 classes of 30."""
    random = np.random.default_rng(0)
    for at in range(300):
        path = folder / str(at % 10) / f"{at}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (32, 32, 3)).astype(np.uint8)).save(path)
    return folder


def measure(run: Path) -> list[dict[str, object]]:
    """A row for each exit at which pictures leave."""
    test = load_pictures(ramify.read_config([run / "config.yaml"]).data).test.images
    images: Floats = to_float(spread(test, 200)).contiguous().numpy()
    opinions = [ramify.answerer(run).opinions(image)[:-1] for image in images]
    threshold = float(np.quantile([each.confidence for found in opinions for each in found], 0.6))
    folder = Path(export(run, run / "onnx", threshold=threshold).folder)

    whole, early = (session((folder / f"{name}.onnx").read_bytes(), THREADS) for name in ("all_exits", "early_exit"))
    runtime = Runtime(folder, threads=THREADS)
    found = runtime.predict(images)
    macs = [each.macs for each in runtime.card.exits]
    rows: list[dict[str, object]] = []
    for at in sorted(set(found.exits.tolist())):
        some = [image[None] for image in images[found.exits == at][:PICTURES]]

        def each(call: Callable[[Floats], object], some: list[Floats] = some) -> Call:
            return lambda: [call(image) for image in some]

        calls = [
            each(lambda image: whole.run(None, {"images": image})),
            each(lambda image: early.run(None, {"images": image})),
            each(runtime.predict),
        ]
        all_exits, graph, staged = (time / len(some) for time in in_turn(calls, torch.device("cpu"), ROUNDS))
        rows.append(
            {
                "network": run.name,
                "exit": at + 1,
                "exits": len(macs),
                "share": float((found.exits == at).mean()),
                "macs": macs[at] / macs[-1],
                "all exits, ms": all_exits,
                "early exit, ms": graph,
                "stages, ms": staged,
                "early exit / all exits": graph / all_exits,
                "stages / all exits": staged / all_exits,
            }
        )
    return rows


def show(row: dict[str, object]) -> None:
    """One line of the table."""
    print(
        f"{row['network']:<8} {row['exit']} of {row['exits']} {row['macs']:>6.2f} {row['all exits, ms']:>14.3f} ms "
        f"{row['early exit / all exits']:>12.2f} {row['stages / all exits']:>12.2f}",
        flush=True,
    )


def main() -> None:
    torch.set_num_threads(THREADS)
    machine = (
        f"{platform.machine()}, {os.cpu_count()} cores, python {platform.python_version()}, torch {torch.__version__}, "
        f"onnxruntime {onnxruntime.__version__}"
    )
    print(f"{machine}, {THREADS} thread, seed 0, batch 1, medians of {ROUNDS - 1} rounds")
    print("network  exit    MACs      all exits   early exit       stages   (times against all exits)")
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        source = noise(Path(folder, "noise"))
        for wanted in (DIGITS, (*COLOUR, f"data.source={source}")):
            run = ramify.train(ramify.read_config(overrides=[*wanted, f"runs_dir={folder}/runs"]))
            for row in measure(Path(run.folder)):
                rows.append(row)
                show(row)
    document = {"command": "python bench/shipping.py", "machine": machine, "threads": THREADS, "seed": 0, "rows": rows}
    RESULTS.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
