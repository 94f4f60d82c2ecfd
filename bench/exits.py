"""Every exit criterion and head training, with thresholds from validation pictures only.

    python bench/exits.py digits [--seeds 5]
    python bench/exits.py runs NAME_OR_FOLDER ... --name cifar10 [--data_source ARCHIVE]
    python bench/exits.py certificates [--draws 500]

``digits`` trains the preset of that name for each seed in three ways: as usual, with its heads focused on the pictures
that reach them (``train.exit_focus=1``), and with the first as a teacher with exits (``train.teacher_exits``). ``runs``
measures finished runs, one for each seed, on their own validation and test pictures.

The logits of all exits are computed once for each network. Each criterion is then calibrated on the validation pictures
for a drop of 0, 0.5 and 1 point below the most accurate exit, and applied to the test pictures. Figures are means over
the seeds with 95 % intervals from a bootstrap over seeds, and over pictures within each seed. Milliseconds are those of
answering at an exit, measured in turn. ``certificates`` draws sets of pictures from a simulated population and counts
how often a certified policy loses more than allowed. Written to ``bench/results/exits-NAME.json``.
"""

import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from common import new_parser, write_rows
from torch import Tensor

import ramify
from ramify.config.presets import presets
from ramify.errors import InputError
from ramify.ops.cost import cost
from ramify.ops.exits.calibrate import calibrate
from ramify.ops.exits.measures import rank
from ramify.ops.exits.policy import CRITERIA, Combine, follow
from ramify.run.evaluate import all_logits
from ramify.run.latency import exit_latencies
from ramify.run.pictures import parts_of_run
from ramify.run.saved import config_of, find_run, read_saved

DROPS = (0.0, 0.005, 0.01)
CONFIDENCE = 0.95
DRAWS = 1000
TRAININGS: dict[str, tuple[str, ...]] = {
    "as usual": (),
    "focus": ("train.exit_focus=1",),
    "teacher with exits": ("train.teacher_exits=true",),
}


@dataclass(frozen=True)
class Logits:
    """Logits and labels of the validation and test pictures of one network, and the costs of its exits."""

    valid: Tensor
    valid_labels: Tensor
    test: Tensor
    test_labels: Tensor
    macs: tuple[float, ...]
    milliseconds: tuple[float, ...]


@dataclass(frozen=True)
class Method:
    """How a policy is calibrated; see :func:`ramify.ops.exits.calibrate.calibrate`."""

    name: str
    criterion: str
    scale: bool
    combine: Combine | None
    survivors: bool = False


def methods() -> list[Method]:
    rows = []
    for criterion, about in CRITERIA.items():
        learned = about.targets is not None
        if not learned:
            rows.append(Method(criterion, criterion, False, "last"))
        if about.scaled:
            rows.append(Method(f"{criterion}{'' if learned else ', calibrated'}", criterion, True, "last"))
        if learned:
            rows.append(Method(f"{criterion}, survivors", criterion, True, "last", survivors=True))
    return rows + [Method(f"{name}, averaged", name, True, None) for name in ("max_probability", "correctable", "gain")]


def logits_of(run: Path, overrides: Sequence[str] = ()) -> Logits:
    config = config_of(run, overrides)
    network, card = read_saved(run)
    parts, _ = parts_of_run(run, config, None, card.network.input_shape)
    return Logits(
        all_logits(network, parts.valid),
        parts.valid.labels.cpu(),
        all_logits(network, parts.test),
        parts.test.labels.cpu(),
        tuple(float(exit_.macs) for exit_ in cost(network)),
        tuple(exit_latencies(network)),
    )


def measure(
    training: str, networks: Sequence[Logits], method: Method, drop: float, confidence: float | None
) -> dict[str, object]:
    """Means over the networks, with intervals; ``refused`` where a certificate needs more pictures. Prints a line."""
    row = {"training": training, "way": method.name, "max_drop": drop, "confidence": confidence}
    line = f"{training:<19}{method.name:<28}{100 * drop:>5.1f}{'' if confidence is None else ' c':<2}"
    lost: list[Tensor] = []  # of each picture, for each network
    macs: list[Tensor] = []
    time: list[Tensor] = []
    areas: list[float] = []
    aurocs: list[float] = []
    accuracies: list[float] = []
    for logits in networks:
        try:
            policy = calibrate(
                logits.valid,
                logits.valid_labels,
                logits.macs,
                max_drop=drop,
                criterion=method.criterion,
                scale=method.scale,
                combine=method.combine,
                survivors=method.survivors,
                confidence=confidence,
            ).policy
        except InputError as error:
            if confidence is None:
                raise
            print(f"{line} refused: too few pictures", flush=True)
            return {**row, "refused": str(error)}
        answer = follow(policy, logits.test)
        right_at = logits.test.argmax(dim=-1) == logits.test_labels
        best = right_at[int(right_at.sum(dim=1).argmax())]
        right = answer.classes == logits.test_labels
        for saved, costs in ((macs, logits.macs), (time, logits.milliseconds)):
            spent = torch.tensor(costs, dtype=torch.float64)
            saved.append(1 - spent[answer.exits] / spent[-1])
        lost.append(best.double() - right.double())
        accuracies.append(float(right.double().mean()))
        ranking = rank(policy, logits.test, logits.test_labels, logits.macs)
        areas.append(ranking.area_macs)
        aurocs += [value for value in ranking.auroc if value is not None]
    drops, macs_saved, time_saved = interval(lost), interval(macs), interval(time)
    auroc = statistics.fmean(aurocs) if aurocs else None
    print(
        f"{line} {100 * drops[0]:>6.2f} {100 * macs_saved[0]:>7.1f} % "
        f"({100 * macs_saved[1]:.1f} to {100 * macs_saved[2]:.1f}) {100 * time_saved[0]:>7.1f} % "
        f"{'' if auroc is None else f'{auroc:.3f}':>6}",
        flush=True,
    )
    return {
        **row,
        "accuracy": statistics.fmean(accuracies),
        "drop": drops,
        "macs_saved": macs_saved,
        "milliseconds_saved": time_saved,
        "area": statistics.fmean(areas),
        "auroc": auroc,
    }


def interval(values: Sequence[Tensor]) -> tuple[float, float, float]:
    """The mean over the seeds, and the bounds of its 95 % bootstrap interval."""
    draw = torch.Generator().manual_seed(0)
    means = []
    for _ in range(DRAWS):
        seeds = torch.randint(len(values), (len(values),), generator=draw).tolist()
        chosen = [values[seed] for seed in seeds]
        samples = [value[torch.randint(len(value), (len(value),), generator=draw)] for value in chosen]
        means.append(torch.stack([sample.mean() for sample in samples]).mean())
    low, high = torch.stack(means).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return statistics.fmean(float(seed.mean()) for seed in values), low, high


def digits(seeds: int, runs_dir: Path) -> dict[str, list[Logits]]:
    networks: dict[str, list[Logits]] = {name: [] for name in TRAININGS}
    for seed in range(seeds):
        for name, settings in TRAININGS.items():
            run = f"{name.replace(' ', '-')}-{seed}"
            teacher = (f"train.teacher={runs_dir / f'as-usual-{seed}'}",) if "teacher" in name else ()
            keys = ["train.threads=1", *settings, *teacher, f"seed={seed}", f"name={run}", f"runs_dir={runs_dir}"]
            if not (runs_dir / run / "summary.json").exists():
                ramify.train(ramify.read_config([presets()["digits"]], keys), overwrite=True)
            networks[name].append(logits_of(runs_dir / run))
            print(f"{run} is trained", flush=True)
    return networks


def table(networks: dict[str, list[Logits]]) -> list[dict[str, object]]:
    print(f"{'training':<19}{'criterion':<28}{'asked':>6} {'lost':>7} {'MACs saved':>24} {'ms saved':>9} {'AUC':>6}")
    return [
        measure(training, logits, method, drop, confidence)
        for training, logits in networks.items()
        for method in methods()
        for drop in DROPS
        for confidence in ((None, CONFIDENCE) if drop > 0 else (None,))
    ]


def certificates(draws: int) -> list[dict[str, object]]:
    """How often a certified policy loses more than 5 points on a population of 5,000, from draws of 400 pictures."""
    sys.path.insert(0, str(Path(__file__).parent.parent))
    from tests.ops.exits.test_calibrate import simulated

    population, labels = simulated(5_000, seed=1)
    last = (population[-1].argmax(dim=-1) == labels).double().mean()
    rows: list[dict[str, object]] = []
    for criterion, about in CRITERIA.items():
        for survivors in (False, True) if about.targets is not None else (False,):
            lost_more, saved = 0, 0.0
            for seed in range(draws):
                sample = torch.randint(len(labels), (400,), generator=torch.Generator().manual_seed(seed))
                calibration = calibrate(
                    population[:, sample],
                    labels[sample],
                    (1.0, 2.0, 3.0, 4.0),
                    max_drop=0.05,
                    confidence=CONFIDENCE,
                    criterion=criterion,
                    seed=seed,
                    survivors=survivors,
                    against="last",
                    combine="last",
                )
                right = follow(calibration.policy, population).classes == labels
                lost_more += float(last - right.double().mean()) > 0.05
                saved += 1 - calibration.cost / calibration.last_cost
            row = {"criterion": criterion, "survivors": survivors, "draws": draws, "lost_more": lost_more}
            rows.append({**row, "macs_saved": saved / draws})
            print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("what", choices=("digits", "runs", "certificates"))
    parser.add_argument("runs", nargs="*")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--name")
    parser.add_argument("--data_source")
    parser.add_argument("--runs_dir", type=Path, default=Path("runs/bench-exits"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, object]]
    if args.what == "certificates":
        rows = certificates(args.draws)
    elif args.what == "digits":
        rows = table(digits(args.seeds, args.runs_dir))
    else:
        overrides = [] if args.data_source is None else [f"data.source={args.data_source}"]
        rows = table({"as given": [logits_of(find_run(run, args.runs_dir), overrides) for run in args.runs]})
    write_rows(f"exits-{args.name or args.what}", rows, args.data_source)


if __name__ == "__main__":
    main()
