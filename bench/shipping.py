"""Answering early in ONNX Runtime: what the graph that stops, and the stages one by one, take against all exits.

    python bench/shipping.py
    python bench/shipping.py runs/demo/onnx ...

Two networks: one trained on the embedded digits, and one of 8 cells and 16 channels for 32x32 colour pictures, which
has seen an epoch of noise, as only its time counts. Both are exported as ``ramify export`` does, with a threshold at
which pictures leave at several exits; or folders that it has written are taken. Those that leave at one exit are
answered one at a time, in turn by the graph of all exits, by the graph that stops early (``If``), and by the runtime
that calls a graph for each stage. One thread; what is counted is the processor time of that thread, which other work on
the machine disturbs little; medians over rounds. The graph of all exits leaves it to the caller to judge its logits,
which is not counted.
Written to ``bench/results/shipping.json`` as well.
"""

import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from PIL import Image

import ramify
from ramify.answer.runtime import Floats, Runtime, opened
from ramify.data.sources import load_pictures
from ramify.exporting.write import evenly, export
from ramify.run.evaluate import to_float

RESULTS = Path(__file__).parent / "results" / "shipping.json"
PICTURES, ROUNDS, THREADS = 8, 51, 1
COLOUR = (
    "name=colour",
    "network.kind=full_ic",
    "network.structure=[0,0,1,0,0,1,0,0]",
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


def test_pictures(run: Path) -> Floats:
    """Some test pictures of a run, float32 ``[N, C, H, W]``."""
    test = load_pictures(ramify.read_config([run / "config.yaml"]).data).test
    found: Floats = to_float(evenly(test, 200).images).contiguous().numpy()
    return found


def written(run: Path) -> Path:
    """The export of ``run``, with a threshold that the inner exits reach for 4 of 10 pictures."""
    network, images = ramify.answerer(run), test_pictures(run)
    sure = [each.confidence for image in images for each in network.opinions(image)[:-1]]
    return Path(export(run, threshold=float(np.quantile(sure, 0.6))).folder)


def in_turn(calls: Sequence[Call]) -> list[float]:
    """Median milliseconds of processor time of each call, the first round left out."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(ROUNDS):
        for call, found in zip(calls, times, strict=True):
            began = time.thread_time()
            call()
            found.append(1000 * (time.thread_time() - began))
    return [statistics.median(found[1:]) for found in times]


def measure(folder: Path) -> list[dict[str, object]]:
    """A row for each exit at which pictures leave, of the export in ``folder``, which lies in that of its run."""
    images = test_pictures(folder.parent)
    whole, early = (
        opened((folder / f"{name}.onnx").read_bytes(), name, THREADS) for name in ("all_exits", "early_exit")
    )
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
        all_exits, graph, staged = (spent / len(some) for spent in in_turn(calls))
        rows.append(
            {
                "network": runtime.card.name,
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
    given = [Path(text) for text in sys.argv[1:]]
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        if not given:
            for wanted in (("data.source=digits",), (*COLOUR, f"data.source={noise(Path(folder, 'noise'))}")):
                run = ramify.train(ramify.read_config(overrides=[*wanted, f"runs_dir={folder}/runs"]))
                given.append(written(Path(run.folder)))
        for export_ in given:
            for row in measure(export_):
                rows.append(row)
                show(row)
    command = " ".join(["python bench/shipping.py", *sys.argv[1:]])
    document = {"command": command, "machine": machine, "threads": THREADS, "seed": 0, "rows": rows}
    RESULTS.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
