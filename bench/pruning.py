"""Pruning criteria and their controls: networks pruned before their first step, on the embedded digits.

    python bench/pruning.py
    python bench/pruning.py --channels 32 --rows random snip "synflow, 100 rounds"
    python bench/pruning.py --seeds 3 --epochs 15 --rows "static, erk by stage" set rigl --name moving

Each row is one criterion or control. The network is pruned at initialization to a fraction ``--keep`` of its weights
(global ranking except in the last three rows) and trained by the default recipe. Figures are test accuracies of the
last exit, mean ± standard deviation over the seeds; the split, the initial weights and the order of pictures depend on
the seed alone. Written to ``bench/results/pruning-NAME.json``, NAME being the number of channels by default.
"""

import statistics
import tempfile

from common import machine, new_parser, spread, tested, write_rows

import ramify

ROWS = {
    "not pruned": ["prune.enabled=false"],
    "snip": ["prune.criterion=snip"],
    "snip, 16 batches of 16": ["prune.criterion=snip", "prune.batch_size=16", "prune.batches=16"],
    "snip, 20 rounds": ["prune.criterion=snip", "prune.rounds=20"],
    "snip, control shuffle": ["prune.criterion=snip", "prune.control=shuffle"],
    "snip, control reinit": ["prune.criterion=snip", "prune.control=reinit"],
    "snip, control invert": ["prune.criterion=snip", "prune.control=invert"],
    "grasp": ["prune.criterion=grasp"],
    "synflow, 100 rounds": ["prune.criterion=synflow", "prune.rounds=100"],
    "magnitude": ["prune.criterion=magnitude"],
    "erk": ["prune.criterion=erk"],
    "random": ["prune.criterion=random"],
    "static, erk by stage": ["prune.criterion=erk", "prune.policy=iterative"],
    "set": ["prune.policy=set"],
    "rigl": ["prune.policy=rigl"],
}


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--keep", type=float, default=0.05)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--name")
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS), metavar="ROW")
    args = parser.parse_args()
    print(f"digits, the default network as full_ic with {args.channels} channels, keep ratio {args.keep}")
    print(f"{args.seeds} seeds; {machine()}")
    print(f"{'criterion':24} {'weights':>8}  accuracy of the last exit, %")
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        fixed = ["network.kind=full_ic", f"network.channels={args.channels}", f"train.epochs={args.epochs}"]
        fixed += ["train.threads=1", "prune.enabled=true", "prune.epochs=[1]", f"prune.keep_ratio={args.keep}"]
        for name in args.rows:
            values: list[float] = []
            for seed in range(args.seeds):
                overrides = [*fixed, f"runs_dir={folder}", f"seed={seed}", *ROWS[name]]
                exits = ramify.train(ramify.read_config(overrides=overrides)).exits
                values.append(100 * tested(exits)[-1])
            weights = exits[-1].kept
            print(f"{name:24} {weights:>8,}  {spread(values)}", flush=True)
            deviation = statistics.stdev(values) if len(values) > 1 else 0.0
            mean = statistics.fmean(values)
            rows.append({"criterion": name, "weights": weights, "mean": mean, "std": deviation, "values": values})
    write_rows(f"pruning-{args.name or args.channels}", rows)


if __name__ == "__main__":
    main()
