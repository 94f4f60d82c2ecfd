"""Every file of a run, a search, an export and a model folder, damaged: noticed in a sentence, or without consequence.

``ramify`` catches its own errors alone, and answers with their sentences and exit codes 1 and 2: whatever else is
raised here would be a traceback there.
"""

import random
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from ramify.answer.card import read_card
from ramify.answer.runtime import Runtime
from ramify.data.digits import load_digits
from ramify.errors import RamifyError
from ramify.exporting.hub import write_hub
from ramify.exporting.write import Export
from ramify.run.calibrate import calibrate_run
from ramify.run.checkpoint import read_model
from ramify.run.evaluate import to_float
from ramify.run.events import Event, Started, StepDone
from ramify.run.readback import describe
from ramify.search.study import open_search
from ramify.show.report.facts import read_facts
from ramify.training.run import resume, train
from tests.conftest import NIGHTLY
from tests.search.quick import finish, record
from tests.training.test_kills import configured


class NoticedError(Exception):
    """It was said beside what was asked for."""


IMAGES = to_float(load_digits().train.images[:20]).contiguous()


def of_run(folder: Path) -> object:
    """A finished run: all that its report shows."""
    facts = read_facts(folder)
    if facts.measured is None:
        raise NoticedError(facts.unmeasured)
    with torch.inference_mode():
        logits = facts.network(IMAGES).tolist()
    return facts.config, facts.summary, facts.measured.exits, facts.epochs, facts.changes, facts.card, logits


def of_begun(folder: Path) -> object:
    """A run that was stopped: what it comes to."""
    notes: list[str] = []

    def watch(event: Event) -> None:
        if isinstance(event, Started):
            notes.extend(event.notes)

    summary = resume(folder, [watch])
    if notes:
        raise NoticedError(notes[0])
    return summary.exits, summary.epochs, (folder / "last/model.safetensors").read_bytes()


def of_search(folder: Path) -> object:
    search = open_search(folder.name, searches_dir=folder.parent)
    try:
        return record(search), search.planned, search.space
    finally:
        search.close()


def of_export(folder: Path) -> object:
    answered = Runtime(folder).predict(IMAGES.numpy())
    cards = [read_card(path) for path in (folder, *sorted(folder.glob("*.onnx")), *sorted(folder.glob("*.pt2")))]
    return answered.classes.tolist(), answered.confidence.tolist(), answered.exits.tolist(), cards


def of_hub(folder: Path) -> object:
    network, card = read_model(folder)
    with torch.inference_mode():
        return network(IMAGES).tolist(), card, describe(folder)


@dataclass(frozen=True)
class Subject:
    """A folder, how it is read, and how many mutations it gets."""

    folder: Path
    read: Callable[[Path], object]
    count: int


@pytest.fixture(scope="module")
def subjects(tmp_path_factory: pytest.TempPathFactory, exported: Export) -> list[Subject]:
    place = tmp_path_factory.mktemp("whole")
    done = Path(train(configured(place, "name=done", "data.limit=200")).folder)
    calibrate_run(done, max_macs=1.0)
    shutil.copytree(exported.folder, place / "onnx")
    write_hub(done, place / "hub")

    def stop(event: Event) -> None:
        if isinstance(event, StepDone) and event.epoch == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(configured(place, "name=begun"), [stop])
    search = finish(place, 2).folder
    return [
        Subject(done, of_run, 125),
        Subject(place / "begun", of_begun, 150),
        Subject(search, of_search, 75),
        Subject(place / "onnx", of_export, 100),
        Subject(place / "hub", of_hub, 50),
    ]


def flip(content: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << draw.randrange(8)]) + content[at + 1 :]


def cut(content: bytes, draw: random.Random) -> bytes:
    return content[: draw.randrange(len(content))]


def edit(content: bytes, draw: random.Random) -> bytes:
    """Another digit, a line less, or a line twice."""
    digits = [at for at, byte in enumerate(content) if chr(byte).isdigit()]
    lines = content.splitlines(keepends=True)
    how = draw.randrange(3)
    if how == 0 and digits:
        at = draw.choice(digits)
        return content[:at] + bytes([48 + (content[at] - 47) % 10]) + content[at + 1 :]
    at = draw.randrange(len(lines))
    return b"".join([*lines[:at], *([] if how == 1 else [lines[at]] * 2), *lines[at + 1 :]])


@pytest.mark.slow
def test_no_damage_changes_anything_in_silence(subjects: list[Subject], tmp_path: Path) -> None:
    draw = random.Random(19)
    results: Counter[str] = Counter()
    for subject in subjects:
        copy = tmp_path / subject.folder.name
        shutil.copytree(subject.folder, copy)
        expected = subject.read(copy)
        files = sorted(path.relative_to(subject.folder) for path in subject.folder.rglob("*") if path.is_file())
        files = [file for file in files if (subject.folder / file).stat().st_size]
        count = subject.count if NIGHTLY else subject.count // 5
        for number in range(count):
            shutil.rmtree(copy)
            shutil.copytree(subject.folder, copy)
            damage, name = (flip, cut, edit)[number % 3], files[number * len(files) // count]
            damaged = damage((copy / name).read_bytes(), draw)
            (copy / name).write_bytes(damaged)
            try:
                seen = subject.read(copy)
            except (RamifyError, NoticedError) as error:
                sentence = str(error).splitlines()[0]
                assert len(sentence) < 600 and "pydantic" not in str(error), sentence  # noqa: PT018, PT017
                results["noticed"] += 1
            else:
                results["harmless" if seen == expected else f"{damage.__name__} of {copy.name}/{name} in silence"] += 1
    print(dict(results))  # noqa: T201 - the figure
    assert results.keys() == {"noticed", "harmless"}
    assert sum(results.values()) >= (500 if NIGHTLY else 95)
