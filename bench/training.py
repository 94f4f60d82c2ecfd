"""Training on a processor: pictures a second, against the ordinary way to train the same network in PyTorch.

    python bench/training.py ARCHIVE
    python bench/training.py ARCHIVE --kinds iterative --set train.precision=float32
    python bench/training.py --accuracy

ARCHIVE holds 32x32 colour pictures, such as CIFAR-10. The yardstick below is what a good engineer in a hurry writes: a
``DataLoader`` with two worker processes, PIL augmentation picture by picture, float32, eager layers, a loss call for
each exit, ``.item()`` in each batch. Both train the seed's network, fully grown, on the same pictures in batches of
128, an epoch each in turn, loading and augmentation included, each in a process as its user has it. The last column is
the share that our step reaches of the machine's peak, a matrix product of 2048 x 2048 by as many in the same run, in
the precision that the run takes; a picture is three times its MACs (forward, and backward twice), of two operations
each, loading and all else counted as time. Written to ``bench/results/training.json`` as well.

``--accuracy`` trains on the embedded digits instead, three seeds both ways, in bfloat16 and compiled, and in float32
without a compiler, and prints means and deviations of the test accuracy of the last exit; written to
``bench/results/training-accuracy.json`` as well. That a fused optimizer steps alike is a test of its own.
"""

import argparse
import json
import multiprocessing
import os
import platform
import random
import statistics
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from PIL import Image, ImageOps
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

RESULTS = Path(__file__).parent / "results" / "training.json"
ACCURACY = RESULTS.with_name("training-accuracy.json")
SEEDS, SIDE = 3, 2048
STRUCTURE = (0, 0, 1, 0, 0, 1, 0, 1, 0)
CHANNELS, CLASSES, BATCH = 16, 10, 128
TAUS = (0.26, 0.51, 0.76, 1.0)


class Pictures(Dataset[tuple[Tensor, int]]):
    """Pictures in memory, cropped and flipped one by one as they are asked for."""

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


class Cell(nn.Module):
    """A cell of ResNet."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, CHANNELS, 3, padding=1, bias=False),
            nn.BatchNorm2d(CHANNELS),
            nn.ReLU(),
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False),
            nn.BatchNorm2d(CHANNELS),
        )
        self.shortcut = nn.Sequential()
        if width != CHANNELS:
            self.shortcut = nn.Sequential(nn.Conv2d(width, CHANNELS, 1, bias=False), nn.BatchNorm2d(CHANNELS))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.layers(x) + self.shortcut(x))


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


class Ordinary(nn.Module):
    """The seed's network, as one would write it down."""

    def __init__(self, dense: bool) -> None:
        super().__init__()
        self.dense = dense
        self.stem = nn.Sequential(nn.Conv2d(3, CHANNELS, 3, padding=1, bias=False), nn.BatchNorm2d(CHANNELS), nn.ReLU())
        widths = [CHANNELS * (i + 1) if dense else CHANNELS for i in range(len(STRUCTURE))]
        self.cells = nn.ModuleList(Cell(width) for width in widths)
        self.heads = nn.ModuleList(InternalClassifier() if bit else nn.Identity() for bit in STRUCTURE)
        self.final = nn.Linear((CHANNELS * (len(STRUCTURE) + 1) if dense else CHANNELS) * 16, CLASSES)

    def forward(self, x: Tensor) -> list[Tensor]:
        trunk = self.stem(x)
        outputs: list[Tensor] = []
        for cell, head, bit in zip(self.cells, self.heads, STRUCTURE, strict=True):
            here = cell(trunk)
            trunk = torch.cat((trunk, here), dim=1) if self.dense else here
            if bit:
                outputs.append(head(here))
        return [*outputs, self.final(F.avg_pool2d(trunk, 8).flatten(1))]


def ordinary(archive: str, kind: str, pictures: int, threads: int, pipe: Connection) -> None:
    """Trains for an epoch each time it is asked for the pictures a second of one."""
    torch.set_num_threads(threads)
    loaded = ramify.load_pictures(ramify.DataConfig(source=archive, limit=pictures))
    network = Ordinary(kind == "dense")
    optimizer = torch.optim.SGD(network.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-4)
    loader = DataLoader(
        Pictures(loaded.train), BATCH, shuffle=True, num_workers=2, persistent_workers=True, drop_last=True
    )
    while pipe.recv():
        began, done, total, right = time.perf_counter(), 0, 0.0, 0
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
        pipe.send(done / (time.perf_counter() - began))


def ours(archive: str, kind: str, pictures: int, overrides: list[str], pipe: Connection) -> None:
    """``ramify.train``; the network has all its stages from the fourth epoch on, and each one waits for its turn."""
    keep_freed_memory()

    def in_turn(event: Event) -> None:
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
        ramify.train(config, [in_turn])


def precision_of(overrides: list[str]) -> str:
    """What a run on 32x32 pictures computes in."""
    config = ramify.read_config(overrides=["network.input_shape=[3,32,32]", "train.device=cpu", *overrides])
    return place_of(config).precision


def peak(precision: str) -> float:
    """Operations a second of a large matrix product, the fastest of several."""
    one, other = torch.rand(2, SIDE, SIDE, dtype=torch.bfloat16 if precision == "bfloat16" else torch.float32)
    seconds = []
    for _ in range(8):
        began = time.perf_counter()
        one @ other
        seconds.append(time.perf_counter() - began)
    return 2.0 * SIDE**3 / min(seconds[1:])


def operations(kind: str) -> float:
    """Of a training step, for one picture."""
    config = NetworkConfig(
        kind="dense" if kind == "dense" else "iterative",
        structure=STRUCTURE,
        channels=CHANNELS,
        input_shape=(3, 32, 32),
        classes=CLASSES,
    )
    return 3 * 2.0 * cost(ramify.Network(config, stages=config.exits))[-1].macs


def trained(seed: int, folder: str, overrides: list[str]) -> float:
    """Test accuracy of the last exit, after a run on the digits."""
    settings = [f"runs_dir={folder}", f"seed={seed}", "train.device=cpu", *overrides]
    found = ramify.train(ramify.read_config(overrides=settings)).exits[-1].test
    assert found is not None
    return found.top1


def accuracy(epochs: int) -> None:
    """Both ways, seed by seed."""
    ways = {
        "fast": [f"train.epochs={epochs}", "train.precision=bfloat16", "train.compile=true"],
        "plain": [f"train.epochs={epochs}", "train.precision=float32"],
    }
    found: dict[str, list[float]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(SEEDS):
            for way, overrides in ways.items():
                found[way].append(trained(seed, folder, overrides))
                print(f"seed {seed} {way:6} {100 * found[way][-1]:.2f} %", flush=True)
    for way, values in found.items():
        print(f"{way:6} {100 * statistics.mean(values):.2f} ± {100 * statistics.stdev(values):.2f} %")
    command = f"python bench/training.py --accuracy --epochs {epochs}"
    ACCURACY.write_text(json.dumps({"command": command, "machine": machine(1), "test top-1": found}, indent=2) + "\n")


def machine(threads: int) -> str:
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, {threads} threads, python {platform.python_version()}, "
        f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}"
    )


def measure(
    archive: str, kind: str, pairs: int, pictures: int, threads: int, overrides: list[str], reachable: float
) -> dict[str, object]:
    """Pictures a second of both, an epoch each in turn, each in a process as its user has it."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    yardstick = context.Process(target=ordinary, args=(archive, kind, pictures, threads, there))
    yardstick.start()
    mine, other = context.Pipe()
    settings = [f"train.threads={threads}", f"train.epochs={4 + pairs}", *overrides]
    trained = context.Process(target=ours, args=(archive, kind, pictures, settings, other))
    before = dict(os.environ)
    keep_freed_memory()  # as the command does before it imports PyTorch; what it sets in the environment is inherited
    trained.start()
    os.environ.clear()
    os.environ.update(before)
    found: list[tuple[float, float]] = []
    for turn in range(pairs + 1):
        speed = float(mine.recv())
        here.send(True)
        found.append((speed, float(here.recv())))
        mine.send(turn)
    here.send(False)
    trained.join()
    yardstick.join()
    # The first pair warms up: caches, kernels that are chosen at their first call, worker processes.
    ratios = [one / another for one, another in found[1:]]
    speed = statistics.median(one for one, _ in found[1:])
    row = {
        "ours": speed,
        "yardstick": statistics.median(another for _, another in found[1:]),
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
    return {"kind": kind, "overrides": overrides, **row}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("archive", nargs="?")
    parser.add_argument("--accuracy", action="store_true", help="compare what is learned, on the digits")
    parser.add_argument("--epochs", type=int, default=30, help="of the runs of --accuracy")
    parser.add_argument("--kinds", nargs="*", default=["iterative", "dense"])
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--pictures", type=int, default=2612)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--set", nargs="*", default=[], dest="overrides", metavar="KEY=VALUE")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.accuracy:
        accuracy(given.epochs)
        return
    if given.archive is None:
        parser.error("ARCHIVE: got nothing; accepted: a file or folder of 32x32 colour pictures, or --accuracy")
    here, precision = machine(given.threads), precision_of(given.overrides)
    reachable = peak(precision)
    print(f"matrix product of {SIDE} x {SIDE}, {precision}: {reachable / 1e9:.0f} G operations a second")
    print(f"pictures a second, batches of {BATCH}, loader included; {here}")
    print("network       ours  yardstick  ratio                       of the peak")
    rows = [
        measure(given.archive, kind, given.pairs, given.pictures, given.threads, given.overrides, reachable)
        for kind in given.kinds
    ]
    RESULTS.parent.mkdir(exist_ok=True)
    told = {"machine": here, "precision": precision, "peak": reachable, "rows": rows}
    RESULTS.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
