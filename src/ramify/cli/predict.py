"""``ramify predict``: answers to picture files."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ramify.cli.common import RUNS_DIR, AsJson, RunsDir, say, say_json, show, threads_here


def predict(
    name: Annotated[str, typer.Argument(metavar="NAME|FOLDER", help="A run, or a folder of `ramify export`.")],
    pictures: Annotated[list[Path], typer.Argument(metavar="PICTURE...", help="Picture files, or folders of them.")],
    threshold: Annotated[
        float | None,
        typer.Option(help="Leave where the confidence reaches it, in place of the calibrated thresholds."),
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Processor threads [default: as many as there are]")] = None,
    as_json: AsJson = False,
    runs_dir: RunsDir = None,
) -> None:
    """Answer pictures, each at the first exit that is sure enough: class, confidence, exit and milliseconds.

    A picture of another size, or in colour where the network was trained on gray, is converted as it was for training.
    Pictures that cannot be read are told, and the others are answered all the same; the command then exits with 2.

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
    found = list(predict_files(network, find_pictures(pictures)))
    answers = [each for each in found if isinstance(each, Predicted)]
    problems = [problem for each in found if isinstance(each, InputError) for problem in each.problems]
    if as_json:
        say_json(
            {
                "name": network.name,
                "engine": network.engine,
                "policy": network.description,
                "exits": [{"macs": macs} for macs in network.macs],
                "pictures": [asdict(each) for each in answers],
                "problems": problems,
            }
        )
    elif answers:
        say(network.description)
        say(f"{work_line(answers, network.macs)} ({network.engine})")
        show(prediction_table(answers, len(network.macs)))
    if problems:
        raise InputError(*problems)
