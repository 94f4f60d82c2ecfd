"""Sweeps: what a command line means, and that every run is there once, whatever happened."""

import json
from pathlib import Path

import pytest
import yaml

from ramify.errors import CheckpointError, ConfigError, InputError
from ramify.run.folder import METRICS, read_lines
from ramify.sealed import sealed_json
from ramify.search.sweep import RunBegan, SweepEvent, open_sweep, read_sweep, run_sweep
from ramify.search.task import ASKED, is_same, train_run, train_up_to
from tests.conftest import TINY, CommandLine, tiny
from tests.search.quick import HERE

BASE = [text for text in TINY if not text.startswith(("network.structure", "growth.epochs", "train.epochs"))]
SMALL = [*BASE, "network.structure=[[1]]", "train.epochs=2"]


def test_a_list_is_what_is_varied() -> None:
    sweep = read_sweep([], ["network.structure=[[1, 0], [0, 1]]", "network.channels=[4, 8]", "seed=3"], repeats=2)
    assert len(sweep.configs) == 8
    assert (sweep.name, list(sweep.vary)) == ("structure-channels", ["network.structure", "network.channels"])
    first, second = sweep.configs[:2]
    assert first.network.structure == (1, 0)
    assert (first.seed, second.seed) == (3, 4)
    assert len({config.name for config in sweep.configs}) == 8
    # One value does not vary.
    assert list(read_sweep([], ["network.structure=[[1]]", "seed=1"], repeats=2).vary) == []


def test_a_file_says_the_same(tmp_path: Path) -> None:
    document = {"base": {"train": {"epochs": 5}, "network.structure": [1, 0]}, "vary": {"network.channels": [4, 8]}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({**document, "repeats": 2}))
    sweep = read_sweep([tmp_path / "mine.yaml"])
    typed = read_sweep(
        [], ["train.epochs=5", "network.structure=[[1,0]]", "network.channels=[4,8]"], repeats=2, name="mine"
    )
    assert sweep == typed
    # A configuration is what all runs share; overrides come last.
    (tmp_path / "plain.yaml").write_text("train: {epochs: 9}\nnetwork: {structure: [1, 0]}\n")
    found = read_sweep([tmp_path / "plain.yaml"], ["train.epochs=5", "network.channels=[4,8]"], repeats=2, name="mine")
    assert found.configs == typed.configs


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["train.epohcs=[1, 2]"], "unknown key train.epohcs; nearest known key: train.epochs"),
        (["network.channels=[4, -1]"], "network.channels: got -1; accepted"),
        (["network.channels=[4, 4]"], "vary: network.channels: got .*; accepted: each value once"),
        (["network.channels=[]"], "vary: network.channels: got .*; accepted: a list of values"),
        (["network.channels=4"], "vary: got nothing; accepted: key="),
        (["name=[a, b]"], "name: is set by the sweep"),
        (["network.channels=[4"], "which is not YAML"),
        (["network.structure=[1, 0]"], r"network.structure: got 1; accepted: a list.*structure=\[\[a, b"),
    ],
)
def test_a_fault_is_one_sentence(given: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as caught:
        read_sweep([], given)
    assert len(caught.value.problems) == (2 if "structure" in given[0] else 1)


def test_a_failed_run_stops_no_other_and_what_is_broken_off_goes_on(tmp_path: Path) -> None:
    sources = "data.source=[digits, missing]"
    sweep = read_sweep([], [*SMALL, sources], repeats=2, name="mine", sweeps_dir=tmp_path)
    with open_sweep(sweep):
        # As if a first attempt had been killed after an epoch of the second run.
        config = sweep.configs[1]
        stop = sweep.folder.resolve() / "stop"
        stop.touch()
        assert not train_run(config, stop).finished
        stop.unlink()
        events: list[SweepEvent] = []
        failed = run_sweep(sweep, HERE, events.append)
        assert list(failed) == ["missing-seed0", "missing-seed1"]
        assert RunBegan(str(config.name), 1) in events
        for each in sweep.configs[:2]:
            assert [line["epoch"] for line in read_lines(sweep.run(each) / METRICS)] == [1, 2]
        with pytest.raises(InputError, match="in use by another process"), open_sweep(sweep):
            pass
    # Once more: what is finished stays, and what failed is tried again; another seed is new.
    more = read_sweep([], [*SMALL, sources], repeats=3, name="mine", sweeps_dir=tmp_path)
    with open_sweep(more):
        events.clear()
        run_sweep(more, HERE, events.append)
    began = [event.run for event in events if isinstance(event, RunBegan)]
    assert began == ["digits-seed2", "missing-seed0", "missing-seed1", "missing-seed2"]
    other = read_sweep([], [*SMALL, sources, "data.batch_size=16"], name="mine", sweeps_dir=tmp_path)
    with (
        pytest.raises(ConfigError, match=r"a sweep with other data\.batch_size; accepted: another --name"),
        open_sweep(other),
    ):
        pass


def test_one_command_from_values_to_tables(ramify: CommandLine) -> None:
    command = ["sweep", *SMALL, "network.channels=[2, 4]", "--repeats", "2", "--csv", "t.csv", "--latex", "t.tex"]
    answer = ramify(*command, "--plot", "t.svg", "--workers", "2")
    assert answer.code == 0, answer.err
    assert "4 of 4 runs finished" in answer.out
    lines = Path("t.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 * 2
    assert lines[1].startswith("2 channels,0 1,exit 1,")
    assert "paired t-test" in lines[-1]
    assert Path("t.tex").read_text().count(r"\\") == 3
    assert "<svg" in Path("t.svg").read_text()
    assert Path("sweeps/channels/comparison.html").is_file()
    # Again: nothing is trained; programs read the same, and so do info and report, in the same groups.
    again = [json.loads(line) for line in ramify(*command, "--json").out.splitlines()]
    assert [event["event"] for event in again] == ["RunEnded"] * 4 + ["Compared"]
    assert [group["group"] for group in again[-1]["groups"]] == ["2 channels", "4 channels"]
    runs = sorted(str(path) for path in Path("sweeps/channels/runs").iterdir())
    assert "4 channels" in ramify("info", *runs, "--csv", "i.csv").out
    assert Path("i.csv").read_text() == Path("t.csv").read_text()
    assert ramify("report", *runs, "--latex", "r.tex").code == 0
    assert Path("r.tex").read_text() == Path("t.tex").read_text()


def test_a_finished_run_is_not_replaced(tmp_path: Path) -> None:
    config = tiny("name=mine", f"runs_dir={tmp_path}", "train.epochs=3")
    folder = train_up_to(config)
    asked, before = folder / ASKED, (folder / "summary.json").read_bytes()
    # As if an older ramify had written it, which did not know a key yet.
    older = json.loads(asked.read_text())
    assert older["train"].pop("teacher", "") is None
    asked.write_bytes(sealed_json(older))
    assert is_same(folder, config)
    train_up_to(config)
    other = config.model_copy(update={"seed": 7})
    with pytest.raises(ConfigError, match=r"name: got mine, a finished run with other seed; accepted: another name"):
        train_up_to(other)
    asked.write_bytes(asked.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=ASKED):
        train_up_to(config)
    assert (folder / "summary.json").read_bytes() == before
