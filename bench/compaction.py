"""Channel pruning to half of the MACs: accuracy, size and latency before and after compaction.

    python bench/compaction.py

For each wiring a network is trained on the embedded digits, its channels are pruned by SNIP until at most half of its
MACs are left, and it is trained for 10 more epochs and compacted. Latencies are medians over pairs: the unpruned and
the compacted network in turn, one thread. Written to ``bench/results/compaction.json``.
"""

import tempfile
from dataclasses import asdict
from pathlib import Path

import torch
from common import machine, new_parser, tested, write_rows

import ramify
from ramify.config.rules import Config
from ramify.ops.pruning.compact import compact
from ramify.ops.pruning.prune import prune
from ramify.run.derive import child_config
from ramify.run.latency import paired_latency
from ramify.run.pictures import split_parts
from ramify.run.saved import load

PAIRS = 201


def ratio_for_half(folder: Path, config: Config) -> float:
    """The largest keep ratio, in steps of 0.02, that leaves at most half of the MACs."""
    parts = split_parts(config, ramify.load_pictures(config.data)).train
    batch = parts.images[:128].float() / 255, parts.labels[:128]
    for step in range(48, 5, -1):
        network = load(folder)
        prune(network, step / 50, "snip", [batch], unit="channel")
        _, receipt = compact(network)
        if 2 * receipt.after[-1].macs <= receipt.before[-1].macs:
            return step / 50
    raise SystemExit("no keep ratio leaves half of the MACs")


def main() -> None:
    new_parser(__doc__).parse_args()
    torch.set_num_threads(1)
    print(f"digits, 7 cells of 16 channels, seed 0; {machine()}")
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("iterative", "dense"):
            config = ramify.read_config(overrides=[f"network.kind={kind}", f"runs_dir={folder}", "name=" + kind])
            before = ramify.train(config)
            parent = Path(folder, kind)
            keep = ratio_for_half(parent, config)
            overrides = ["prune.unit=channel", f"prune.keep_ratio={keep}", "train.epochs=10"]
            after = ramify.train(child_config(parent, overrides, compact=True))
            receipt = after.receipt
            assert receipt is not None
            large, small = load(parent), load(after.folder)
            latencies = [paired_latency(large, small, batch, PAIRS) for batch in (1, 64)]
            macs = before.exits[-1].macs, after.exits[-1].macs
            top1 = [100 * tested(summary.exits)[-1] for summary in (before, after)]
            print(f"\n{kind}: keep ratio {keep} of the channels, {receipt.removed} channels removed")
            print(f"  masked density   {100 * receipt.density[0]:.1f} %")
            print(f"  parameters       {receipt.parameters[0]:,} -> {receipt.parameters[1]:,}")
            print(f"  MACs             {macs[0]:,} -> {macs[1]:,} ({macs[0] / macs[1]:.2f}x)")
            print(f"  last exit, test  {top1[0]:.1f} % -> {top1[1]:.1f} %")
            print(f"  max |difference of logits|, masked and compacted: {receipt.difference:.1g}")
            for latency in latencies:
                print(
                    f"  batch {latency.batch:<3} {latency.before:.2f} ms -> {latency.after:.2f} ms "
                    f"({latency.ratio:.2f}x)"
                )
            rows.append(
                {
                    "kind": kind,
                    "keep_ratio": keep,
                    "macs": macs,
                    "test": top1,
                    "latencies": [asdict(latency) for latency in latencies],
                    **asdict(receipt),
                }
            )
    write_rows("compaction", rows)


if __name__ == "__main__":
    main()
