"""The bench: every combination once, equal answers, and reasons for what is left out. Timings are not tested."""

import importlib.util
import itertools
import json
import os
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from rich.console import Console
from torch import nn

from ramify.answer.answerer import TorchAnswerer, answerer
from ramify.bench import engines
from ramify.bench.engines import ENGINES, write_stages
from ramify.bench.files import PICTURE, RESULT, home_of, keep_bench
from ramify.bench.measure import AT_LEAST, Bench, Leaving, Timing, available_cores, benchmark
from ramify.bench.plot import draw_bench
from ramify.bench.table import bench_lines, bench_sentences, bench_tables
from ramify.data.sources import load_pictures
from ramify.errors import InputError
from ramify.exporting.graphs import plain
from ramify.run.evaluate import to_float
from ramify.training.run import train
from tests.conftest import CommandLine, ToStages, tiny

CONFIG = ("network.kind=full_ic", "network.structure=[1]", "train.epochs=2", "name=timed")
QUICK = ("eager", "plain", "onnx", "int8")
BATCHES = (1, 5)
THRESHOLD = 0.15
PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two exits, trained a little on the digits, without a calibrated policy."""
    return Path(train(tiny(f"runs_dir={tmp_path_factory.mktemp('runs')}", *CONFIG)).folder)


@pytest.fixture(scope="module")
def found(run: Path, kept_graphs: ToStages) -> Bench:
    """The engines that need no compiler."""
    return benchmark(run, engines=QUICK, batches=BATCHES, threads=[1], rounds=2, threshold=THRESHOLD)


def made(names: tuple[str, ...] = tuple(ENGINES), exits: int = 4, threads: tuple[int, ...] = (1, 2)) -> Bench:
    """Figures that nobody measured, some of them long."""
    batches = (1, 256)
    timings = [
        Timing(engine, count, batch, exit_, ms, 0.9 * ms, 1.2 * ms, 1000 * batch / ms, 12.345, 0.99)
        for count, batch, engine in itertools.product(threads, batches, names)
        for exit_ in (*range(exits), None)
        for ms in [batch * (0.0123 if exit_ is None else 1.234 + exit_)]
    ]
    return Bench(
        name="demo",
        policy="policy: none",
        pictures="random ones",
        macs=(123_456,) * exits,
        engines=names,
        left_out={},
        batches=batches,
        threads=threads,
        rounds=3,
        leaving=tuple(Leaving(batch, (256, *(0,) * (exits - 1))) for batch in batches),
        timings=tuple(timings),
        machine={"processor": "a processor", "cores": 2, "system": "Linux"},
        versions={"torch": "2"},
        load=None,
        warnings=(),
    )


def exported(run: Path, to_stages: ToStages) -> Path:
    """What of an export is read to answer, beside the run's other files: the whole one takes the exporter long."""
    network = answerer(run)
    assert isinstance(network, TorchAnswerer)
    folder = run / "onnx"
    write_stages(folder, network, to_stages(plain(network.network)), "float32")
    return folder


def test_every_combination_is_there_once(found: Bench) -> None:
    asked = list(itertools.product(QUICK, [1], BATCHES, [0, 1, None]))
    assert sorted(map(str, asked)) == sorted(
        str((each.engine, each.threads, each.batch, each.exit)) for each in found.timings
    )
    assert (found.engines, found.left_out, found.rounds) == (QUICK, {}, 2)
    assert [each.exit for each in found.of(1, 5, "onnx")] == [0, 1, None]


def test_the_figures_of_a_contestant_fit_each_other(found: Bench) -> None:
    for each in found.timings:
        assert 0 < each.low <= each.milliseconds <= each.high
        assert each.pictures_per_second == pytest.approx(1000 * each.batch / each.milliseconds)
        assert each.speedup > 0
    for batch in BATCHES:
        assert found.of(1, batch, "eager")[1].speedup == 1


def test_engines_agree_on_the_pictures(found: Bench) -> None:
    for each in found.timings:
        # int8 is another network by a little; of so few pictures some may change sides.
        assert each.same == 1 if each.engine != "int8" else each.same > 0.8


def test_pictures_of_the_run_leave_where_the_network_lets_them(run: Path, found: Bench) -> None:
    assert "test pictures of timed" in found.pictures
    images = to_float(load_pictures(tiny(*CONFIG).data).test.images)
    network = answerer(run, threshold=THRESHOLD)
    for batch, left in zip(BATCHES, found.leaving, strict=True):
        count = batch * -(-AT_LEAST // batch)
        chosen = images[torch.linspace(0, len(images) - 1, count).round().long()]
        exits = np.bincount(network.predict(chosen.numpy()).exits, minlength=2)
        assert left == Leaving(batch, tuple(exits.tolist()))


def test_a_result_survives_its_file(run: Path, found: Bench, tmp_path: Path) -> None:
    written, problems = keep_bench(found, tmp_path)
    assert (written, problems) == ([tmp_path / RESULT, tmp_path / PICTURE], [])
    assert TypeAdapter(Bench).validate_json((tmp_path / RESULT).read_bytes()) == found
    assert (tmp_path / PICTURE).read_bytes().startswith(PNG)


def test_without_a_policy_every_picture_goes_to_the_last_exit(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def counted(images: torch.Tensor) -> torch.Tensor:
        made.append(len(images))
        return to_float(images)

    monkeypatch.setattr("ramify.bench.measure.to_float", counted)
    torch.set_num_threads(1)
    bare = benchmark(run, engines=["plain", "plain"], batches=[2, 2], threads=[1, 1], rounds=1)
    assert "none was calibrated" in bare.policy
    assert bare.leaving == (Leaving(2, (0, AT_LEAST)),)
    assert len(bare.timings) == 3
    assert torch.get_num_threads() == 1
    # Of the test pictures no more are made float than are answered; the training pictures may calibrate int8.
    assert made == [100, 2, AT_LEAST]


def test_a_network_whose_pictures_are_gone(run: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(run / "best", copied)
    other = benchmark(copied, engines=["eager"], batches=[1], threads=[1], rounds=1)
    assert "random" in other.pictures
    assert any("random" in warning for warning in other.warnings)
    assert home_of(copied) == copied
    assert home_of(run / "best") == run.resolve()


def test_an_exported_folder_is_timed_by_what_it_was_exported_for(run: Path, kept_graphs: ToStages) -> None:
    folder = exported(run, kept_graphs)
    timed = benchmark(folder, batches=[2], threads=[1], rounds=1, threshold=THRESHOLD)
    assert timed.engines == ("onnx",)
    assert {each.same for each in timed.timings} == {1.0}
    assert "test pictures of timed" in timed.pictures
    assert timed.macs == benchmark(run, engines=["plain"], batches=[1], threads=[1], rounds=1).macs
    assert home_of(folder) == folder
    with pytest.raises(InputError, match="got eager for an exported folder; accepted: onnx"):
        benchmark(folder, engines=["eager", "onnx"])


def test_what_is_missing_is_left_out(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else there(name))
    monkeypatch.setenv("CXX", "no-such-compiler")
    left = benchmark(run, batches=[1], threads=[1], rounds=1)
    assert left.engines == ("eager", "plain")
    assert list(left.left_out) == ["compiled", "onnx", "int8"]
    assert "pip install 'ramify[export]'" in left.left_out["int8"]
    assert "C++ compiler" in left.left_out["compiled"]
    assert sum("left out" in line for line in bench_lines(left)) == 3
    with pytest.raises(InputError, match="all are left out: onnx needs the package onnxruntime"):
        benchmark(run, engines=["onnx"], threads=[1])


class _Failing(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("the compiler is broken\nand says more")


def test_a_compiler_that_fails_is_named(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_to_compile", lambda _: _Failing())
    monkeypatch.setattr(engines, "_compiler", lambda: True)
    left = benchmark(run, engines=["plain", "compiled"], batches=[1], threads=[1], rounds=1)
    assert left.left_out == {"compiled": "torch.compile failed (the compiler is broken and says more)"}
    assert {each.engine for each in left.timings} == {"plain"}


@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="there is no compiler")
def test_the_compiled_network_answers_alike(run: Path) -> None:
    timed = benchmark(run, engines=["eager", "compiled"], batches=[2], threads=[1], rounds=1, threshold=THRESHOLD)
    assert (timed.engines, timed.left_out) == (("eager", "compiled"), {})
    assert {each.same for each in timed.timings} == {1.0}


def test_bad_input_is_reported_at_once() -> None:
    with pytest.raises(InputError) as caught:
        benchmark("nobody", engines=["onx"], batches=[0, 4], threads=[0, available_cores() + 1], rounds=0)
    problems = caught.value.problems
    assert [problem.partition(":")[0] for problem in problems] == ["engines", "batches", "threads", "threads", "rounds"]
    assert "'onx' (nearest: onnx)" in problems[0]
    with pytest.raises(InputError) as caught:
        benchmark("nobody", engines=[], batches=[], threads=[])
    assert caught.value.problems == tuple(
        f"{what}: got none; accepted: at least one" for what in ("engines", "batches", "threads")
    )
    with pytest.raises(InputError, match="no run"):
        benchmark("nobody")


def test_a_threshold_out_of_range(run: Path) -> None:
    with pytest.raises(InputError, match="threshold: got 2"):
        benchmark(run, threshold=2)


@pytest.mark.parametrize("threads", [(1,), (1, 2), (1, 2, 4)])
def test_tables_fit_80_columns(threads: tuple[int, ...]) -> None:
    console = Console(width=200)
    bench = made(exits=12, threads=threads)
    with console.capture() as caught:
        for table in bench_tables(bench):
            console.print(table)
    lines = caught.get().splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 80
    # A row for each contestant, with its threads side by side, two at most.
    sides = -(-len(threads) // 2)
    assert sum(bool(re.search(r"policy|exit \d", line)) for line in lines) == 2 * sides * len(ENGINES) * 13


def test_sentences_name_the_fastest_and_who_answers_otherwise() -> None:
    bench = made()
    quick = [
        replace(each, pictures_per_second=1e9) if each.engine == "onnx" and each.exit is None else each
        for each in bench.timings
    ]
    sentences = bench_sentences(replace(bench, timings=tuple(quick)))
    assert sum(line.startswith("fastest policy") and "onnx" in line for line in sentences) == 2
    assert any(line.startswith("int8 answers 99.0 %") for line in sentences)


@pytest.mark.parametrize("bench", [made(), made(("int8",), exits=1, threads=(1,))], ids=["whole", "small"])
def test_a_plot_is_drawn(bench: Bench) -> None:
    assert draw_bench(bench).startswith(PNG)


def test_without_matplotlib_the_figures_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    (tmp_path / PICTURE).write_bytes(b"of other figures")
    written, problems = keep_bench(made(), tmp_path)
    assert written == [tmp_path / RESULT]
    assert "matplotlib" in problems[0]
    assert not (tmp_path / PICTURE).exists()


def test_the_command(run: Path, ramify: CommandLine) -> None:
    asked = ("--runs_dir", str(run.parent), "--engines", "eager,plain", "--batches", "1,2", "--threads", "1")
    answer = ramify("bench", "timed", *asked, "--rounds", "1")
    assert answer.code == 0
    for word in ("eager", "plain", "exit 1", "exit 2", "policy", "pictures/s", "machine:", "torch"):
        assert word in answer.out
    assert (run / PICTURE).exists()
    assert json.loads((run / RESULT).read_text())["batches"] == [1, 2]

    written = ramify("bench", "timed", *asked, "--rounds", "1", "--json", "--out", "kept")
    assert written.code == 0
    assert json.loads(written.out) == json.loads(Path("kept", RESULT).read_text())

    for wrong in (("--batches", "1,two"), ("--batches", "0"), ("--threads", "0"), ("--engines", "onyx")):
        refused = ramify("bench", "timed", "--runs_dir", str(run.parent), *wrong)
        assert (refused.code, refused.out) == (2, "")
        assert "accepted: " in refused.err
    assert ramify("bench", "nobody").code == 2
