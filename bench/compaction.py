"""Channel pruning to half the multiply-accumulates: what was masked, what was taken out, and what a clock says.

    python bench/compaction.py

For each wiring a network is trained on the embedded digits, its channels are pruned by SNIP so that at most half of
its MACs are left, it is trained on for 10 epochs and compacted. Latencies are medians over pairs, the unpruned and the
compacted network in turn in this process, one thread. Written to ``bench/results/compaction.json`` as well.
"""

import json
import os
import platform
import tempfile
from dataclasses import asdict
from pathlib import Path

import torch

import ramify
from ramify.config.rules import Config
from ramify.ops.pruning.compact import compact
from ramify.ops.pruning.prune import prune
from ramify.run.derive import child_config
from ramify.run.latency import paired_latency
from ramify.run.pictures import split_parts
from ramify.run.saved import load
from ramify.run.summary import Summary

RESULTS = Path(__file__).parent / "results" / "compaction.json"
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


def last_top1(summary: Summary) -> float:
    last = summary.exits[-1].test
    assert last is not None
    return 100 * last.top1


def main() -> None:
    torch.set_num_threads(1)
    machine = f"{platform.machine()}, 1 thread, python {platform.python_version()}, torch {torch.__version__}"
    print(f"digits, 7 cells of 16 channels, seed 0; {machine}, {os.cpu_count()} cores")
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("iterative", "dense"):
            config = ramify.read_config(overrides=[f"network.kind={kind}", f"runs_dir={folder}", "name=" + kind])
            before = ramify.train(config)
            parent = Path(folder, kind)
            keep = ratio_for_half(parent, config)
            overrides = ["prune.unit=channel", f"prune.keep_ratio={keep}", "train.epochs=10"]
            after = ramify.train(child_config(parent, overrides, compact=True))
            found = after.receipt
            assert found is not None
            large, small = load(parent), load(after.folder)
            latencies = [paired_latency(large, small, batch, PAIRS) for batch in (1, 64)]
            macs = before.exits[-1].macs, after.exits[-1].macs
            print(f"\n{kind}: keep ratio {keep} of the channels, {found.removed} channels taken out")
            print(f"  masked density   {100 * found.density[0]:.1f} %")
            print(f"  parameters       {found.parameters[0]:,} -> {found.parameters[1]:,}")
            print(f"  MACs             {macs[0]:,} -> {macs[1]:,} ({macs[0] / macs[1]:.2f}x)")
            print(f"  last exit, test  {last_top1(before):.1f} % -> {last_top1(after):.1f} %")
            print(f"  max |difference of logits|, masked and compacted: {found.difference:.1g}")
            for each in latencies:
                print(f"  batch {each.batch:<3} {each.before:.2f} ms -> {each.after:.2f} ms ({each.ratio:.2f}x)")
            rows.append(
                {
                    "kind": kind,
                    "keep_ratio": keep,
                    "macs": macs,
                    "test": [last_top1(before), last_top1(after)],
                    "latencies": [asdict(each) for each in latencies],
                    **asdict(found),
                }
            )
    RESULTS.parent.mkdir(exist_ok=True)
    document = {"command": "python bench/compaction.py", "machine": machine, "rows": rows}
    RESULTS.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
