"""``ramify calibrate``: thresholds for early exits, chosen on validation pictures and kept with the network."""

from dataclasses import asdict
from typing import Annotated, Literal

import typer

from ramify.cli.common import RUNS_DIR, AsJson, RunName, RunsDir, download_lines, say, say_json, show, warn
from ramify.cli.report import report_of


def calibrate(
    name: RunName,
    max_drop: Annotated[
        float | None,
        typer.Option("--max_drop", help="Accuracy that may be lost against the best answer there is, as 0.01."),
    ] = None,
    max_macs: Annotated[
        float | None, typer.Option("--max_macs", help="Average MACs: a fraction of the last exit's, or a number > 1.")
    ] = None,
    max_latency_ms: Annotated[
        float | None, typer.Option("--max_latency_ms", help="Average milliseconds for a picture, measured here.")
    ] = None,
    criterion: Annotated[
        str, typer.Option(help="What confidence is, as margin or correctable; a wrong name lists all.")
    ] = "max_probability",
    confidence: Annotated[
        float | None, typer.Option(help="With --max_drop: certify the drop with this probability, as 0.95.")
    ] = None,
    against: Annotated[
        str, typer.Option(help="What --max_drop is measured against: best, last, or exit:K for exit K alone.")
    ] = "best",
    combine: Annotated[
        Literal["last", "mean", "weighted"] | None,
        typer.Option(
            help="Answer with the last exit passed or average over all; by default what serves the goal best."
        ),
    ] = None,
    fallback: Annotated[
        Literal["last", "most_confident"], typer.Option(help="Which exit answers where none is sure.")
    ] = "last",
    survivors: Annotated[
        bool, typer.Option("--survivors", help="Fit a learned criterion on the pictures that come as far as its exit.")
    ] = False,
    as_json: AsJson = False,
    runs_dir: RunsDir = None,
) -> None:
    """Choose at which confidence each exit answers, on the validation pictures, and keep that with the network.

    One goal is given: the accuracy that may be lost, or what an answer may cost on average.

    Examples:

    - `ramify calibrate digits-iterative --max_drop 0.01`
    - `ramify calibrate photos-dense --max_macs 0.5`
    - `ramify calibrate photos-dense --max_drop 0.02 --confidence 0.95`
    - `ramify calibrate photos-dense --max_drop 0.01 --criterion correctable --combine mean`
    """
    from ramify.run.calibrate import calibrate_run
    from ramify.run.saved import find_run
    from ramify.show.terminal.tables import cut_sentence, policy_table

    run = find_run(name, runs_dir or RUNS_DIR)
    policy = calibrate_run(
        run,
        max_drop=max_drop,
        max_macs=max_macs,
        max_latency_ms=max_latency_ms,
        criterion=criterion,
        confidence=confidence,
        against=against,
        combine=combine,
        fallback=fallback,
        survivors=survivors,
        progress=None if as_json else download_lines(say),
        notice=lambda line: warn(f"note: {line}"),
    )
    if (run / "report.html").exists():
        report_of(run, warn)
    if as_json:
        say_json({"name": run.name, **asdict(policy)})
        return
    show(policy_table(policy))
    if (line := cut_sentence(policy, run.name)) is not None:
        say(line)
    say(f"kept with {run}; measure it on the test pictures with: ramify evaluate {name}")
