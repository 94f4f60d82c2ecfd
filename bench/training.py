"""Training on a processor: pictures a second, against the usual way to train the same network in PyTorch.

    python bench/training.py ARCHIVE
    python bench/training.py ARCHIVE --kinds iterative --set train.precision=float32
    python bench/training.py --accuracy

ARCHIVE holds 32x32 color pictures, such as CIFAR-10. The baseline is straightforward code: a ``DataLoader`` with two
worker processes, PIL augmentation picture by picture, float32, eager layers, one loss call for each exit, ``.item()``
in each batch. Both train the seed's network, fully grown, on the same pictures in batches of 128, in processes of their
own, one epoch each in turn, loading and augmentation included. The last column is the share of the machine's peak that
ramify reaches. The peak is a 2048 x 2048 matrix product in the precision of the run; a picture counts three times its
MACs (forward, and backward twice), each of two operations. Written to ``bench/results/training.json``, where rows of
other machines and settings stay.

``--accuracy`` instead trains on the embedded digits with three seeds, in bfloat16 and compiled, and in float32 and
eager, and prints the test accuracy of the last exit; written to ``bench/results/training-accuracy.json``.
"""

import json
import multiprocessing
import os
import random
import statistics
import tempfile
import time
from multiprocessing.connection import Connection

import torch
from common import RESULTS, SIDE, command, machine, new_parser, peak, spread, tested, write_json
from PIL import Image, ImageOps
from race import Block
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

import ramify
from ramify.config.rules import NetworkConfig
from ramify.data.pictures import Part
from ramify.ops.cost import cost
from ramify.run.device import place_of
from ramify.run.events import EpochDone, Event
from ramify.training.allocator import keep_freed_memory

SEEDS = 3
STRUCTURE = (0, 0, 1, 0, 0, 1, 0, 1, 0)
CHANNELS, CLASSES, BATCH = 16, 10, 128
TAUS = (0.26, 0.51, 0.76, 1.0)


class Pictures(Dataset[tuple[Tensor, int]]):
    """Pictures in memory, cropped and flipped one by one on access."""

    def __init__(self, part: Part) -> None:
        self.images = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in part.images]
        self.labels = part.labels.tolist()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        picture = ImageOps.expand(self.images[index], 4)
        left, top = random.randrange(9), random.randrange(9)
        picture = picture.crop((left, top, left + 32, top + 32))
        if random.random() < 0.5:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).view(32, 32, 3)
        return (pixels.permute(2, 0, 1).float() / 255 - 0.47) / 0.25, self.labels[index]


class InternalClassifier(nn.Module):
    """Mixed pooling and one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor(0.5))
        self.linear = nn.Linear(CHANNELS * 16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.alpha * F.max_pool2d(x, 8) + (1 - self.alpha) * F.avg_pool2d(x, 8)
        logits: Tensor = self.linear(pooled.flatten(1))
        return logits


class Baseline(nn.Module):
    """The seed's network, in straightforward code."""

    def __init__(self, dense: bool) -> None:
        super().__init__()
        self.dense = dense
        self.stem = nn.Sequential(nn.Conv2d(3, CHANNELS, 3, padding=1, bias=False), nn.BatchNorm2d(CHANNELS), nn.ReLU())
        widths = [CHANNELS * (i + 1) if dense else CHANNELS for i in range(len(STRUCTURE))]
        self.cells = nn.ModuleList(Block(width, CHANNELS, 1) for width in widths)
        self.heads = nn.ModuleList(InternalClassifier() if bit else nn.Identity() for bit in STRUCTURE)
        self.final = nn.Linear((CHANNELS * (len(STRUCTURE) + 1) if dense else CHANNELS) * 16, CLASSES)

    def forward(self, x: Tensor) -> list[Tensor]:
        trunk = self.stem(x)
        outputs: list[Tensor] = []
        for cell, head, bit in zip(self.cells, self.heads, STRUCTURE, strict=True):
            x = cell(trunk)
            trunk = torch.cat((trunk, x), dim=1) if self.dense else x
            if bit:
                outputs.append(head(x))
        return [*outputs, self.final(F.avg_pool2d(trunk, 8).flatten(1))]


def baseline(archive: str, kind: str, pictures: int, threads: int, pipe: Connection) -> None:
    """Train for an epoch at each message that is true, and send its pictures a second."""
    torch.set_num_threads(threads)
    loaded = ramify.load_pictures(ramify.DataConfig(source=archive, limit=pictures))
    network = Baseline(kind == "dense")
    optimizer = torch.optim.SGD(network.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-4)
    loader = DataLoader(
        Pictures(loaded.train), BATCH, shuffle=True, num_workers=2, persistent_workers=True, drop_last=True
    )
    while pipe.recv():
        start, done, total, right = time.perf_counter(), 0, 0.0, 0
        for images, labels in loader:
            optimizer.zero_grad()
            outputs = network(images)
            loss = sum(tau * F.cross_entropy(out, labels) for tau, out in zip(TAUS, outputs, strict=True))
            assert isinstance(loss, Tensor)
            loss.backward()
            optimizer.step()
            total += loss.item()
            right += int((outputs[-1].argmax(dim=1) == labels).sum().item())
            done += len(labels)
        pipe.send(done / (time.perf_counter() - start))


def ours(archive: str, kind: str, pictures: int, overrides: list[str], pipe: Connection) -> None:
    """``ramify.train``; from the fourth epoch on the network is complete, and each epoch waits for a message."""
    keep_freed_memory()

    def wait(event: Event) -> None:
        if isinstance(event, EpochDone) and event.epoch >= 4:
            pipe.send(event.pictures_per_second)
            pipe.recv()

    with tempfile.TemporaryDirectory() as folder:
        config = ramify.read_config(
            overrides=[
                f"runs_dir={folder}",
                f"data.source={archive}",
                f"data.limit={pictures}",
                "data.valid_fraction=0.02",
                f"data.batch_size={BATCH}",
                "data.augment=crop_flip",
                f"network.kind={kind}",
                f"network.structure={list(STRUCTURE)}",
                "growth.epochs=[2,3,4]",
                "train.device=cpu",
                *overrides,
            ]
        )
        ramify.train(config, [wait])


def operations(kind: str) -> float:
    """Operations of a training step for one picture."""
    config = NetworkConfig(
        kind="dense" if kind == "dense" else "iterative",
        structure=STRUCTURE,
        channels=CHANNELS,
        input_shape=(3, 32, 32),
        classes=CLASSES,
    )
    return 3 * 2.0 * cost(ramify.Network(config, stages=config.exits))[-1].macs


def accuracy(epochs: int) -> None:
    """Test accuracy of the last exit both ways, seed by seed."""
    ways = {"fast": ["train.precision=bfloat16", "train.compile=true"], "plain": ["train.precision=float32"]}
    top1: dict[str, list[float]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(SEEDS):
            for way, overrides in ways.items():
                fixed = [f"runs_dir={folder}", f"seed={seed}", f"train.epochs={epochs}", "train.device=cpu"]
                summary = ramify.train(ramify.read_config(overrides=[*fixed, *overrides]))
                top1[way].append(tested(summary.exits)[-1])
                print(f"seed {seed} {way:6} {100 * top1[way][-1]:.2f} %", flush=True)
    for way, values in top1.items():
        print(f"{way:6} {spread(100 * value for value in values)} %")
    document = {"command": command(), "machine": machine(torch.get_num_threads()), "test top-1": top1}
    write_json(RESULTS / "training-accuracy.json", document)


def measure(
    archive: str, kind: str, pairs: int, pictures: int, threads: int, overrides: list[str], reachable: float
) -> dict[str, object]:
    """Pictures a second of both, one epoch each in turn, each in a process of its own."""
    context = multiprocessing.get_context("spawn")
    baseline_pipe, baseline_end = context.Pipe()
    baseline_process = context.Process(target=baseline, args=(archive, kind, pictures, threads, baseline_end))
    baseline_process.start()
    our_pipe, our_end = context.Pipe()
    settings = [f"train.threads={threads}", f"train.epochs={4 + pairs}", *overrides]
    our_process = context.Process(target=ours, args=(archive, kind, pictures, settings, our_end))
    environment = dict(os.environ)
    keep_freed_memory()  # sets variables that the process inherits, as the command does before it imports PyTorch
    our_process.start()
    os.environ.clear()
    os.environ.update(environment)
    speeds: list[tuple[float, float]] = []
    for turn in range(pairs + 1):
        our_speed = float(our_pipe.recv())
        baseline_pipe.send(True)
        speeds.append((our_speed, float(baseline_pipe.recv())))
        our_pipe.send(turn)
    baseline_pipe.send(False)
    our_process.join()
    baseline_process.join()
    del speeds[0]  # a warm-up: caches, kernels that are chosen at their first call, worker processes
    ratios = [our_speed / baseline_speed for our_speed, baseline_speed in speeds]
    speed = statistics.median(our_speed for our_speed, _ in speeds)
    row = {
        "ours": speed,
        "yardstick": statistics.median(baseline_speed for _, baseline_speed in speeds),
        "ratio": statistics.median(ratios),
        "lowest": min(ratios),
        "highest": max(ratios),
        "share of peak": speed * operations(kind) / reachable,
    }
    print(
        f"{kind:10} {row['ours']:7.0f} {row['yardstick']:7.0f}   {row['ratio']:.2f} "
        f"({row['lowest']:.2f} to {row['highest']:.2f}, {len(ratios)} pairs) "
        f"{100 * row['share of peak']:5.0f} %  {' '.join(overrides)}",
        flush=True,
    )
    return {"machine": machine(threads), "kind": kind, "overrides": overrides, "peak": reachable, **row}


def keep(row: dict[str, object]) -> None:
    """Write ``row`` in place of an earlier one of the same machine, kind and settings."""
    path = RESULTS / "training.json"
    same = ("machine", "kind", "overrides")
    rows = json.loads(path.read_text()) if path.exists() else []
    write_json(path, [*(old for old in rows if any(old[key] != row[key] for key in same)), row])


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("archive", nargs="?")
    parser.add_argument("--accuracy", action="store_true", help="compare the accuracy instead, on the digits")
    parser.add_argument("--epochs", type=int, default=30, help="of the runs of --accuracy")
    parser.add_argument("--kinds", nargs="*", default=["iterative", "dense"])
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--pictures", type=int, default=2612)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--set", nargs="*", default=[], dest="overrides", metavar="KEY=VALUE")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.accuracy:
        accuracy(args.epochs)
        return
    if args.archive is None:
        parser.error("ARCHIVE: got nothing; accepted: a file or folder of 32x32 color pictures, or --accuracy")
    overrides = ["network.input_shape=[3,32,32]", "train.device=cpu", *args.overrides]
    precision = place_of(ramify.read_config(overrides=overrides)).precision
    reachable = peak(torch.bfloat16 if precision == "bfloat16" else torch.float32)
    print(f"matrix product of {SIDE} x {SIDE}, {precision}: {reachable / 1e9:.0f} G operations a second")
    print(f"pictures a second, batches of {BATCH}, loader included; {machine(args.threads)}")
    print("network       ours   baseline  ratio                       of the peak")
    for kind in args.kinds:
        keep(measure(args.archive, kind, args.pairs, args.pictures, args.threads, args.overrides, reachable))


if __name__ == "__main__":
    main()
