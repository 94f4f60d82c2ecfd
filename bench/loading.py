"""A data set larger than memory: peak memory of training, and pictures a second against a DataLoader with two workers.

    python bench/loading.py make /tmp/many --pictures 100000 --side 224
    python bench/loading.py train /tmp/many
    python bench/loading.py rates /tmp/many

``make`` writes JPEG files of smooth noise in ten classes. ``train`` trains a small network on them for one epoch, and
prints the peak resident memory of the process. ``rates`` reads batches of 64 from ramify's store and from a DataLoader
that decodes the files with two workers, in turn, and prints the median and the range of the rounds.
"""

import json
import resource
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from common import machine, new_parser
from PIL import Image
from torch.utils.data import DataLoader, Dataset

import ramify
from ramify.data.augment import batches
from ramify.data.pictures import Part
from ramify.run.events import EpochDone, Event, Started

BATCH = 64
NETWORK = (
    *("network.structure=[1]", "network.channels=2", "network.kind=full_ic", "train.epochs=1", "data.augment=none"),
    *("data.test_fraction=0.02", "data.valid_fraction=0.02"),
)


def make(folder: Path, pictures: int, side: int) -> None:
    """Write the files, each different from the others."""
    for number in range(pictures):
        path = folder / str(number % 10) / f"{number // 10:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(number)
        coarse = random.integers(25 * (number % 10), 256, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((side, side), Image.Resampling.BILINEAR).save(path, quality=80)


def train(folder: Path) -> None:
    """Train for one epoch, and print the peak memory of this process."""
    row: dict[str, object] = {}
    start = time.perf_counter()

    def watch(event: Event) -> None:
        if isinstance(event, Started):
            row["seconds until the first step"] = time.perf_counter() - start
        elif isinstance(event, EpochDone):
            row["pictures a second"] = event.pictures_per_second

    overrides = [f"data.source={folder}", f"runs_dir={folder}-runs", "name=many", *NETWORK]
    row["pictures"] = ramify.train(ramify.read_config(overrides=overrides), [watch], overwrite=True).pictures
    row["seconds"] = time.perf_counter() - start
    row["peak resident GiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({**row, "machine": machine(torch.get_num_threads())}, indent=2))


class Pictures(Dataset[tuple[torch.Tensor, int]]):
    """The files, decoded on access."""

    def __init__(self, files: list[Path]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        with Image.open(self.files[index]) as file:
            pixels = np.array(file.convert("RGB"))
        return torch.from_numpy(pixels).permute(2, 0, 1), int(self.files[index].parent.name)


def from_store(part: Part, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches as a run gathers them."""
    for index in batches(len(part), BATCH, torch.Generator().manual_seed(seed)):
        batch = part[index]
        yield batch.images, batch.labels


def from_loader(files: list[Path], seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of a DataLoader with two workers."""
    order = torch.Generator().manual_seed(seed)
    yield from DataLoader(Pictures(files), BATCH, shuffle=True, num_workers=2, generator=order)


def rates(folder: Path, rounds: int, count: int, seed: int) -> None:
    """Pictures a second of both, in turn, over ``count`` pictures after the first batch."""
    part = ramify.load_pictures(ramify.DataConfig(source=str(folder))).train
    files = sorted(folder.rglob("*.jpg"))
    speeds: dict[str, list[float]] = {"store": [], "DataLoader, 2 workers": []}
    for order in range(seed, seed + rounds):
        for name, source in zip(speeds, (from_store(part, order), from_loader(files, order)), strict=True):
            next(source)  # starts the workers, and reads the first pages
            start, done = time.perf_counter(), 0
            for images, _ in source:
                done += len(images)
                if done >= count:
                    break
            speeds[name].append(done / (time.perf_counter() - start))
            del source
    row: dict[str, object] = {
        name: {"median": statistics.median(values), "low": min(values), "high": max(values)}
        for name, values in speeds.items()
    }
    row["ratio of the pairs, median"] = statistics.median(
        store / loader for store, loader in zip(*speeds.values(), strict=True)
    )
    print(json.dumps({**row, "machine": machine(torch.get_num_threads())}, indent=2))


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("what", choices=("make", "train", "rates"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", type=int, default=100_000)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=4_000)
    parser.add_argument("--seed", type=int, default=0, help="of the order: another seed reads pictures not yet cached")
    args = parser.parse_args()
    if args.what == "make":
        make(args.folder, args.pictures, args.side)
    elif args.what == "train":
        train(args.folder)
    else:
        rates(args.folder, args.rounds, args.count, args.seed)


if __name__ == "__main__":
    main()
