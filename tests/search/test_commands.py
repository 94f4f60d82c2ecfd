"""``ramify search``: what a person types, and what is wrong with it."""

import json
from pathlib import Path

import pytest

from ramify.errors import InputError
from ramify.search.space import read_space
from ramify.search.study import start_search
from ramify.shortage import MOST_WORKERS
from tests.conftest import CommandLine
from tests.search.test_search import work

TINY = """
base:
  data: {limit: 120, batch_size: 32, valid_fraction: 0.2}
  network.structure: [1, 0]
  train.device: cpu
vary:
  network.channels: {choice: [2, 3]}
  train.learning_rate: {log: [0.02, 0.1]}
objectives: [accuracy, weights]
epochs: 3
rungs: [2, 3]
"""


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    (tmp_path / "tiny.yaml").write_text(TINY)
    return "tiny.yaml"


def test_a_search_from_start_to_front(ramify: CommandLine, tiny: str) -> None:
    started = ramify("search", "start", "demo", tiny, "--trials", "3")
    assert started.code == 0, started.err
    assert "search demo: 3 trials of up to 3 epochs, compared after 2, 3, for accuracy, weights" in started.out
    assert "trial 0: starts, up to epoch 2 of 3" in started.out
    assert "on the front" in started.out
    assert "% less than 9 without halving" in started.out

    status = json.loads(ramify("search", "status", "demo", "--json").out)
    assert (status["finished"], status["training"], status["waiting"]) == (3, 0, 0)
    assert "3 wanted, 3 finished" in ramify("search", "status", "demo").out

    shown = ramify("search", "front", "demo", "--csv", "trials.csv", "--plot", "front.png")
    assert shown.code == 0, shown.err
    assert Path("trials.csv").read_text().startswith("trial,group,epochs,began_as,accuracy,macs,weights,parameters,")
    assert Path("front.png").stat().st_size > 10_000
    told = json.loads(ramify("search", "front", "demo", "--json").out)
    assert len(told["front"]) + len(told["dominated"]) == 3

    assert ramify("search", "stop", "demo").code == 0
    assert json.loads(ramify("search", "status", "demo", "--json").out)["stopped"]
    # Nothing is left to do; with more trials, the search goes on.
    assert ramify("search", "start", "demo", "--json").out == ""
    more = ramify("search", "start", "demo", "--trials", "4", "--json")
    events = [json.loads(line) for line in more.out.splitlines()]
    assert {event["trial"] for event in events} == {3}
    assert [event["event"] for event in events][:2] == ["WorkBegan", "StepTaken"]


def test_a_function_of_the_users_is_an_objective(ramify: CommandLine) -> None:
    Path("mine.py").write_text("def shown(network, valid):\n    return len(network.stages) * len(valid)\n")
    objectives = "objectives: [accuracy, {function: mine.py:shown, better: high}]\nconstraints: [shown >= 10]"
    Path("own.yaml").write_text(TINY.replace("objectives: [accuracy, weights]", objectives))
    answer = ramify("search", "start", "own", "own.yaml", "--trials", "1")
    assert answer.code == 0, answer.err
    [trial] = json.loads(ramify("search", "front", "own", "--json").out)["front"]
    assert trial["values"]["shown"] == 2 * 20
    assert ramify("search", "front", "own", "--plot", "own.svg").code == 0
    # It belongs to the space: a search goes on with it, and with no other.
    assert ramify("search", "start", "own", "own.yaml", "--trials", "1").code == 0
    for text, sentence in (
        ("mine.py:hidden", "AttributeError"),
        ("absent.py:shown", "FileNotFoundError"),
        ("no.such.module:shown", "ModuleNotFoundError"),
    ):
        Path("own.yaml").write_text(TINY.replace("objectives: [accuracy,", f"objectives: [{{function: '{text}'}},"))
        answer = ramify("search", "start", "other", "own.yaml")
        assert (answer.code, sentence in answer.err) == (2, True), answer.err
        assert "accepted: module:function or file.py:function" in answer.err
    Path("own.yaml").write_text(TINY.replace("objectives: [accuracy,", "objectives: [{function: mine.py},"))
    assert "objectives: got {function: mine.py}; accepted" in ramify("search", "start", "other", "own.yaml").err


def test_a_dry_run_prints_the_space_and_five_samples(ramify: CommandLine) -> None:
    answer = ramify("search", "start", "demo", "--dry_run")
    assert answer.code == 0
    assert answer.out.startswith("base:\n")
    assert answer.out.count("# sample ") == 5
    assert "train.learning_rate=" in answer.out
    assert not Path("searches").exists()
    told = json.loads(ramify("search", "start", "x", "colour32", "--seed", "3", "--dry_run", "--json").out)
    assert "seed: 3" in told["space"]
    assert len(told["samples"]) == 5


def test_overrides_change_the_base_and_options_the_space(ramify: CommandLine) -> None:
    answer = ramify("search", "start", "x", "digits", "data.limit=300", "--sampler", "nsgaii", "--dry_run")
    assert "data.limit: 300" in answer.out
    assert "sampler: nsgaii" in answer.out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["start", "x", "digit"],
            "space: got 'digit', a file that does not exist; accepted: a YAML file (nearest: digits)",
        ),
        (["start", "x", "a.yaml", "b.yaml"], "error: space: got a.yaml and b.yaml; accepted: one space"),
        (["start", "x", "digits", "data.limt=3"], "unknown key data.limt; nearest known key: data.limit"),
        (["start", "a b"], "error: name: got 'a b'; accepted: letters, digits"),
        (["start", "x", "--storage", "postgresql://127.0.0.1:9/x"], "does not answer"),
        (["start", "x", "--on", "ray"], "--on: got 'ray'; accepted: dask://host:port, slurm, pbs, lsf, sge"),
        (["start", "x", "--on", "dask://127.0.0.1:9"], "--on: dask://127.0.0.1:9 does not answer"),
        (["start", "x", "--engine_options", "a.yaml"], "--engine_options: got a.yaml; accepted: with --on slurm"),
        (["status", "x"], "which is no search in searches"),
        (["stop", "x"], "which is no search in searches"),
        (["front", "x"], "which is no search in searches"),
    ],
)
def test_bad_input_is_a_sentence(
    ramify: CommandLine, arguments: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ramify.search.engine.ANSWER_SECONDS", 0.5)
    answer = ramify("search", *arguments)
    assert answer.code == 2
    assert sentence in answer.err
    assert "Traceback" not in answer.err
    assert answer.out == ""
    assert not Path("searches").exists()


def test_every_fault_of_a_space_is_told_with_its_file(ramify: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("vary: {train.epohcs: {choice: []}}\nobjectives: [weights, weights]\n")
    answer = ramify("search", "start", "x", "bad.yaml")
    assert answer.code == 2
    lines = answer.err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("error: bad.yaml: ") for line in lines)
    assert "nearest: train.epochs" in lines[0]


def test_a_name_in_use_with_another_space(ramify: CommandLine, tiny: str) -> None:
    start_search("demo", read_space(tiny)).close()
    answer = ramify("search", "start", "demo", "colour32")
    assert answer.code == 2
    assert "a search with another space (it differs in base, vary" in answer.err


def test_a_trial_is_trained_in_full(ramify: CommandLine) -> None:
    Path("tiny.yaml").write_text(
        "base: {data.limit: 60, network.structure: [1, 0], network.channels: 4}\n"
        "vary: {train.learning_rate: {log: [0.01, 0.1]}}\nobjectives: [accuracy, weights]\nepochs: 2\n"
    )
    work(start_search("mine", read_space("tiny.yaml"), 1))
    answer = ramify("train", "--from_search", "mine", "--trial", "0", "train.epochs=3", "growth.epochs=null", "-q")
    assert answer.code == 0, answer.err
    assert "mine-0000" in answer.out
    code = (
        "network.module=other:make",
        "network.kind=full_ic",
        "network.structure=[0,1,0,1,0,1,0]",
        "network.channels=16",
    )
    named = ramify(
        "train", "--from_search", "mine", "--trial", "0", *code, "network.exits_at=[0.5]", "growth.epochs=null"
    )
    assert (named.code, "--trust" in named.err) == (2, True), named.err
    refused = ramify("train", "--from_search", "mine", "--trial", "7")
    assert (refused.code, "trial: got 7; accepted: 0 to 0" in refused.err) == (2, True)
    assert ramify("train", "--trial", "7").code == 2


def test_a_search_that_names_code_is_not_gone_on_with_in_silence(ramify: CommandLine) -> None:
    Path("own.yaml").write_text(
        "base: {data.limit: 60, network.module: 'nowhere:made'}\n"
        "vary: {train.learning_rate: {log: [0.01, 0.1]}}\nobjectives: [accuracy]\nepochs: 2\n"
    )
    start_search("mine", read_space("own.yaml"), 1).close()
    answer = ramify("search", "start", "mine")
    assert (answer.code, "nowhere:made" in answer.err, "--trust" in answer.err) == (2, True, True), answer.err
    with pytest.raises(InputError, match="nowhere:made"):
        start_search("mine")
    start_search("mine", trust=True).close()


def test_workers_are_as_many_as_the_machine_has_use_for(ramify: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []

    def engine(on: str | None, workers: int, *more: object, **options: object) -> None:
        started.append(workers)
        raise InputError("engine: not needed")

    monkeypatch.setattr("ramify.search.engine.open_engine", engine)
    answer = ramify("search", "start", "demo", "--workers", "1000000")
    assert started[0] <= MOST_WORKERS
    assert "workers: got 1,000,000" in answer.err


def test_a_search_of_which_every_trial_fails_exits_with_1(ramify: CommandLine) -> None:
    Path("broken.yaml").write_text(
        "base: {data.source: missing/pictures, network.kind: full}\n"
        "vary: {train.learning_rate: {log: [0.01, 0.1]}}\nobjectives: [accuracy]\nepochs: 1\n"
    )
    answer = ramify("search", "start", "broken", "broken.yaml", "--trials", "2")
    assert answer.code == 1
    assert "all of its 2 trials failed" in answer.err
