"""``ramify predict``: answers to picture files."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ramify.cli.common import (
    RUNS_DIR,
    AsJson,
    ExportName,
    RunsDir,
    Threads,
    Threshold,
    say,
    say_json,
    show,
    threads_here,
)


def predict(
    name: ExportName,
    pictures: Annotated[list[Path], typer.Argument(metavar="PICTURE...", help="Picture files, or folders of them.")],
    threshold: Threshold = None,
    threads: Threads = None,
    as_json: AsJson = False,
    runs_dir: RunsDir = None,
) -> None:
    """Answer pictures, each at the first exit that is sure enough: class, confidence, exit and milliseconds.

    A picture of another size, or in color where the network was trained on gray, is converted as it was for training.
    Pictures that cannot be read are reported, and the others are answered all the same; the command then exits with 2.

    Examples:

    - `ramify predict photos-dense cat.jpg dog.png`
    - `ramify predict photos-dense holiday/ --threshold 0.8 --json`
    - `ramify predict runs/photos-dense/onnx cat.jpg --threads 1`
    """
    from ramify.answer.answerer import answerer
    from ramify.answer.picture import find_pictures
    from ramify.answer.predict import Predicted, predict_files, prediction_table, work_line
    from ramify.errors import InputError

    network = answerer(name, runs_dir or RUNS_DIR, threshold, threads_here(threads))
    results = list(predict_files(network, find_pictures(pictures)))
    answers = [result for result in results if isinstance(result, Predicted)]
    problems = [problem for result in results if isinstance(result, InputError) for problem in result.problems]
    if as_json:
        say_json(
            {
                "name": network.name,
                "engine": network.engine,
                "policy": network.description,
                "exits": [{"macs": macs} for macs in network.macs],
                "pictures": [asdict(answer) for answer in answers],
                "problems": problems,
            }
        )
    elif answers:
        say(network.description)
        say(f"{work_line(answers, network.macs)} ({network.engine})")
        show(prediction_table(answers, len(network.macs)))
    if problems:
        raise InputError(*problems)
