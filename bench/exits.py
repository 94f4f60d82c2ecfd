"""Exits that know when they are wrong: every criterion and head training, thresholds from validation pictures only.

    python bench/exits.py digits [--seeds 5]
    python bench/exits.py runs NAME_OR_FOLDER ... --name cifar10 [--data_source ARCHIVE]
    python bench/exits.py certificates [--draws 500]

``digits`` trains the preset of that name for each seed in three ways: as usual, its heads on the pictures that come to
them (``train.exit_focus=1``), and with the first as a teacher with exits (``train.teacher_exits``). ``runs`` measures
networks that are trained already, one for each seed, on their own validation and test pictures.

For each network the logits of all exits are computed once. Each criterion is then calibrated on the validation pictures
for a drop of 0, 0.5 and 1 point against the best answer there is, and followed on the test pictures. Figures are means
over seeds; intervals are of 95 %, by a bootstrap over seeds and pictures together (pictures are drawn with replacement
within each seed). Milliseconds are those of answering at an exit, measured in turn. ``certificates`` draws sets of
pictures from a known population and counts how often a certified policy loses more than was asked.
Written to ``bench/results/exits-NAME.json``.
"""

import argparse
import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
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

RESULTS = Path(__file__).parent / "results"
DROPS = (0.0, 0.005, 0.01)
CONFIDENCE = 0.95
DRAWS = 1000
TRAININGS: dict[str, tuple[str, ...]] = {
    "as usual": (),
    "focus": ("train.exit_focus=1",),
    "teacher with exits": ("train.teacher_exits=true",),
}


@dataclass(frozen=True)
class Stored:
    """What one network answered: logits and labels of validation and test pictures, and what its exits cost."""

    valid: Tensor
    valid_labels: Tensor
    test: Tensor
    test_labels: Tensor
    macs: tuple[float, ...]
    milliseconds: tuple[float, ...]


@dataclass(frozen=True)
class Way:
    """How a policy is found."""

    name: str
    criterion: str
    scale: bool
    combine: Combine | None
    survivors: bool = False


def ways() -> list[Way]:
    found = []
    for criterion, about in CRITERIA.items():
        learned = about.targets is not None
        found += [Way(criterion, criterion, learned, "last")] if not learned else []
        if about.scaled:
            found.append(Way(f"{criterion}{'' if learned else ', calibrated'}", criterion, True, "last"))
        if learned:
            found.append(Way(f"{criterion}, survivors", criterion, True, "last", survivors=True))
    return found + [Way(f"{name}, averaged", name, True, None) for name in ("max_probability", "correctable", "gain")]


def stored(run: Path, overrides: Sequence[str] = ()) -> Stored:
    config = config_of(run, overrides)
    network, card = read_saved(run)
    parts, _ = parts_of_run(run, config, None, card.network.input_shape)
    return Stored(
        all_logits(network, parts.valid),
        parts.valid.labels.cpu(),
        all_logits(network, parts.test),
        parts.test.labels.cpu(),
        tuple(float(each.macs) for each in cost(network)),
        tuple(exit_latencies(network)),
    )


def measured(networks: Sequence[Stored], way: Way, drop: float, confidence: float | None) -> dict[str, object] | None:
    """Means over the networks, with intervals; None where there are too few pictures for a certificate."""
    rows: list[tuple[Tensor, Tensor, Tensor]] = []  # accuracy lost, share of MACs, share of time: of each picture
    areas: list[float] = []
    aurocs: list[float] = []
    accuracies: list[float] = []
    for each in networks:
        try:
            found = calibrate(
                each.valid,
                each.valid_labels,
                each.macs,
                max_drop=drop,
                criterion=way.criterion,
                scale=way.scale,
                combine=way.combine,
                survivors=way.survivors,
                confidence=confidence,
            )
        except InputError as error:
            if confidence is None:
                raise
            return {"refused": str(error)}
        answer = follow(found.policy, each.test)
        alone = each.test.argmax(dim=-1) == each.test_labels
        best = alone[int(alone.sum(dim=1).argmax())]
        right = answer.classes == each.test_labels
        macs, clock = (torch.tensor(costs, dtype=torch.float64) for costs in (each.macs, each.milliseconds))
        rows.append((best.double() - right.double(), macs[answer.exits] / macs[-1], clock[answer.exits] / clock[-1]))
        accuracies.append(float(right.double().mean()))
        ranking = rank(found.policy, each.test, each.test_labels, each.macs)
        areas.append(ranking.area_macs)
        aurocs += [value for value in ranking.auroc if value is not None]
    return {
        "accuracy": statistics.fmean(accuracies),
        "drop": interval([row[0] for row in rows]),
        "macs_saved": interval([1 - row[1] for row in rows]),
        "milliseconds_saved": interval([1 - row[2] for row in rows]),
        "area": statistics.fmean(areas),
        "auroc": statistics.fmean(aurocs) if aurocs else None,
    }


def interval(values: Sequence[Tensor]) -> tuple[float, float, float]:
    """The mean over seeds, and the range of 95 % of the bootstrap."""
    draw = torch.Generator().manual_seed(0)
    means = []
    for _ in range(DRAWS):
        seeds = torch.randint(len(values), (len(values),), generator=draw).tolist()
        some = [values[seed] for seed in seeds]
        picked = [each[torch.randint(len(each), (len(each),), generator=draw)].mean() for each in some]
        means.append(torch.stack(picked).mean())
    low, high = torch.stack(means).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return statistics.fmean(float(each.mean()) for each in values), low, high


def digits(seeds: int, runs_dir: Path) -> dict[str, list[Stored]]:
    found: dict[str, list[Stored]] = {name: [] for name in TRAININGS}
    for seed in range(seeds):
        for name, more in TRAININGS.items():
            run = f"{name.replace(' ', '-')}-{seed}"
            taught = (f"train.teacher={runs_dir / f'as-usual-{seed}'}",) if "teacher" in name else ()
            wishes = ["train.threads=1", *more, *taught, f"seed={seed}", f"name={run}", f"runs_dir={runs_dir}"]
            if not (runs_dir / run / "summary.json").exists():
                ramify.train(ramify.read_config([presets()["digits"]], wishes), overwrite=True)
            found[name].append(stored(runs_dir / run))
            print(f"{run} is there", flush=True)
    return found


def table(networks: dict[str, list[Stored]]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    print(f"{'training':<19}{'criterion':<28}{'asked':>6} {'lost':>7} {'MACs saved':>24} {'ms saved':>9} {'AUC':>6}")
    for training, those in networks.items():
        for way in ways():
            for drop in DROPS:
                for confidence in (None, CONFIDENCE) if drop > 0 else (None,):
                    found = measured(those, way, drop, confidence)
                    row = {"training": training, "way": way.name, "max_drop": drop, "confidence": confidence}
                    rows.append({**row, **(found or {})})
                    show(rows[-1])
    return rows


def show(row: dict[str, object]) -> None:
    sure = "" if row["confidence"] is None else " c"
    head = f"{row['training']:<19}{row['way']:<28}{100 * float(str(row['max_drop'])):>5.1f}{sure:<2}"
    if "refused" in row:
        print(f"{head} refused: too few pictures", flush=True)
        return
    lost, macs, clock, auroc = row["drop"], row["macs_saved"], row["milliseconds_saved"], row["auroc"]
    assert isinstance(lost, tuple)
    assert isinstance(macs, tuple)
    assert isinstance(clock, tuple)
    ranked = f"{auroc:.3f}" if isinstance(auroc, float) else ""
    print(
        f"{head} {100 * lost[0]:>6.2f} {100 * macs[0]:>7.1f} % ({100 * macs[1]:.1f} to {100 * macs[2]:.1f}) "
        f"{100 * clock[0]:>7.1f} % {ranked:>6}",
        flush=True,
    )


def certificates(draws: int) -> list[dict[str, object]]:
    """How often a certified policy loses more than 5 points on a population of 5,000, from draws of 400 pictures."""
    from tests.ops.exits.test_calibrate import simulated

    population, labels = simulated(5_000, seed=1)
    alone = (population.argmax(dim=-1) == labels).double().mean(dim=1)
    kinds = [
        (criterion, survivors)
        for criterion, about in CRITERIA.items()
        for survivors in ((False, True) if about.targets is not None else (False,))
    ]
    broken, saved = dict.fromkeys(kinds, 0), dict.fromkeys(kinds, 0.0)
    rows: list[dict[str, object]] = []
    for seed in range(draws):
        picked = torch.randint(len(labels), (400,), generator=torch.Generator().manual_seed(seed))
        for criterion, survivors in kinds:
            found = calibrate(
                population[:, picked],
                labels[picked],
                (1.0, 2.0, 3.0, 4.0),
                max_drop=0.05,
                confidence=CONFIDENCE,
                criterion=criterion,
                seed=seed,
                survivors=survivors,
                against="last",
                combine="last",
            )
            right = follow(found.policy, population).classes == labels
            broken[criterion, survivors] += float(alone[-1] - right.double().mean()) > 0.05
            saved[criterion, survivors] += 1 - found.cost / found.last_cost
        if (seed + 1) % 50 == 0 or seed + 1 == draws:
            rows = [
                {
                    "criterion": criterion,
                    "survivors": survivors,
                    "draws": seed + 1,
                    "lost_more": broken[criterion, survivors],
                    "macs_saved": saved[criterion, survivors] / (seed + 1),
                }
                for criterion, survivors in kinds
            ]
            for row in rows:
                print(row, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("what", choices=("digits", "runs", "certificates"))
    parser.add_argument("runs", nargs="*")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--name", default=None)
    parser.add_argument("--data_source", default=None)
    parser.add_argument("--runs_dir", type=Path, default=Path("runs/bench-exits"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, object]]
    if given.what == "certificates":
        rows = certificates(given.draws)
    elif given.what == "digits":
        rows = table(digits(given.seeds, given.runs_dir))
    else:
        overrides = [] if given.data_source is None else [f"data.source={given.data_source}"]
        rows = table({"as given": [stored(find_run(run, given.runs_dir), overrides) for run in given.runs]})
    name = given.name or given.what
    machine = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, 1 thread"
    path = RESULTS / f"exits-{name}.json"
    document = {
        "command": f"python bench/exits.py {' '.join([given.what, *given.runs])}",
        "machine": machine,
        "rows": rows,
    }
    path.write_text(json.dumps(document, indent=1) + "\n")
    print(f"written: {path}")


if __name__ == "__main__":
    main()
