"""What many tests share: a run small enough to train in a blink, and the command line in-process."""

import contextlib
import functools
import gc
import hashlib
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import settings
from torch import Tensor

from ramify.cli import main
from ramify.config.read import read_config
from ramify.config.rules import Config
from ramify.data.digits import load_digits
from ramify.exporting.graphs import OneJudgement
from ramify.exporting.onnx import to_stages
from ramify.exporting.write import Export, export
from ramify.nn.branching import Branching
from ramify.run.calibrate import calibrate_run
from ramify.run.evaluate import to_float
from ramify.training.run import train

if TYPE_CHECKING:
    from onnx import ModelProto

gc.set_threshold(20_000, 10, 50)

NIGHTLY = os.environ.get("RAMIFY_TESTS") == "nightly"
"""Whether every kill, every damaged byte and many random examples are tried (``make nightly``), or a sample of them."""
QUICK = os.environ.get("RAMIFY_TESTS") == "quick"
"""Whether a test that is not ``slow`` runs with its first case and few random examples (``make quick``)."""

# A timing is never a test: a busy machine must not fail one. Only nightly draws new examples each time.
settings.register_profile(
    "ramify", deadline=None, max_examples=500 if NIGHTLY else 4 if QUICK else 20, derandomize=not NIGHTLY
)
settings.load_profile("ramify")

SLOW = (
    "bench",
    "cli",
    "exporting",
    "nn/test_equilibrium.py",
    "ops/exits/test_calibrate.py",
    "run",
    "search",
    "serve",
    "show/report",
    "test_any_network.py",
    "test_table.py",
    "training",
)
"""Folders and files whose tests train networks, export, compile or start servers: all of them are ``slow``."""


TINY = (
    "data.limit=120",
    "data.batch_size=32",
    "data.valid_fraction=0.2",
    "network.structure=[1,0,1]",
    "network.channels=4",
    "train.epochs=4",
    "growth.epochs=[2,3]",
    "train.learning_rate=0.05",
    "train.device=cpu",
)
"""A grown network of three stages on 120 digits, in four short epochs."""


@functools.cache
def _is_slow(path: Path) -> bool:
    return any(path.is_relative_to(Path(__file__).parent / slow) for slow in SLOW)


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """In quick mode do not even import slow tests; None leaves it to the other rules."""
    return True if QUICK and _is_slow(collection_path) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests in slow paths and of a trained network; in quick mode leave them and further cases out."""
    kept: list[pytest.Item] = []
    cases: Counter[str] = Counter()
    for item in items:
        if _is_slow(item.path) or (isinstance(item, pytest.Function) and "demo" in item.fixturenames):
            item.add_marker("slow")
        function = item.nodeid.partition("[")[0]
        cases[function] += 1
        if cases[function] == 1 and item.get_closest_marker("slow") is None:
            kept.append(item)
    if QUICK:
        config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
        items[:] = kept


def pytest_collection_finish() -> None:
    """Exempt what is imported from garbage collection: looking through it takes a tenth of the time of the tests."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _away_from_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is read from or written to the user's cache, and ``runs/`` is a fresh folder."""
    monkeypatch.setenv("RAMIFY_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session", autouse=True)
def _nobody_waits_for_the_disk() -> Iterator[None]:
    """Files outlive a process that is killed without it, and no test cuts the power. The digits are read once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda file: None)
        patch.setattr("ramify.data.sources.load_digits", functools.cache(load_digits))
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_table_of_operators() -> Iterator[None]:
    """The ONNX exporter builds its table of operators for each graph, which takes half of its time; build it once."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(functools.cache(ONNXRegistry.from_torchlib)))
        yield


ToStages = Callable[[Branching], "tuple[ModelProto, ...]"]


@pytest.fixture(scope="session")
def kept_graphs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ToStages]:
    """Exporting a network or a policy once more gives the graphs of the first time: each takes the exporter long.

    They are kept in files, for all processes of the tests. It is what takes the place of
    :func:`ramify.exporting.onnx.to_stages`.
    """
    import onnx

    from ramify.exporting import join

    made, own = join.judgements, tmp_path_factory.getbasetemp()
    kept = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "graphs"

    def once(what: bytes, make: "Callable[[], Sequence[ModelProto]]") -> "list[ModelProto]":
        place = kept / hashlib.sha256(what).hexdigest()
        if not place.exists():
            graphs, fresh = make(), own / place.name
            fresh.mkdir()
            for at, graph in enumerate(graphs):
                (fresh / str(at)).write_bytes(graph.SerializeToString())
            kept.mkdir(exist_ok=True)
            with contextlib.suppress(OSError):  # another process was sooner
                fresh.rename(place)
        files = sorted(place.iterdir(), key=lambda file: int(file.name))
        return [onnx.load_model_from_string(file.read_bytes()) for file in files]

    def stages_of(network: Branching) -> "tuple[ModelProto, ...]":
        about = f"{network!r}{network.blank(2).shape}{getattr(network, 'config', None)!r}"
        weights = b"".join(value.numpy().tobytes() for value in network.state_dict().values())
        return tuple(once(about.encode() + weights, lambda: to_stages(network)))

    def judgements(judges: Sequence[OneJudgement], classes: int) -> "list[ModelProto]":
        about = repr(([(judge.policy, judge.at) for judge in judges], classes))
        return once(about.encode(), lambda: made(judges, classes))

    with pytest.MonkeyPatch.context() as patch:
        for module in ("exporting.write", "exporting.quantize", "bench.engines"):
            patch.setattr(f"ramify.{module}.to_stages", stages_of)
        patch.setattr(join, "judgements", judgements)
        yield stages_of


def tiny(*overrides: str) -> Config:
    """The configuration of a tiny run, with ``overrides``."""
    given = {text.partition("=")[0]: text for text in (*TINY, *overrides)}
    if "network.kind=full" in overrides or "network.kind=full_ic" in overrides:
        given.pop("growth.epochs")
    return read_config(overrides=list(given.values()))


@functools.cache
def _run_of(*overrides: str) -> tuple[Path, dict[Path, bytes]]:
    folder = Path(train(tiny(*overrides)).folder)
    return folder, {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def trained(*overrides: str) -> Path:
    """The folder of a finished run of :func:`tiny`, in ``runs/``: trained once, and copied for every other test."""
    folder, files = _run_of(*overrides)
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def edit_config(run: Path, old: str, new: str) -> None:
    """Change the configuration in a run's folder as a person does it by hand: with its checksum taken out."""
    path = run / "config.yaml"
    lines = path.read_text().partition("\n")[2]
    assert old in lines
    path.write_text(lines.replace(old, new))


@dataclass(frozen=True)
class Answer:
    """What a command gave: its exit code and what it wrote."""

    code: int
    out: str
    err: str


CommandLine = Callable[..., Answer]


@pytest.fixture
def with_reports() -> None:
    """``ramify`` writes reports after its trainings, as it does for users; they take longer than the trainings here."""


@pytest.fixture
def ramify(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> CommandLine:
    """The command line, called in this process: ``ramify("train", "train.epochs=3")``."""
    if "with_reports" not in request.fixturenames:
        for command in ("train", "calibrate"):
            monkeypatch.setattr(f"ramify.cli.{command}.report_of", lambda *_: None)

    def call(*arguments: str) -> Answer:
        monkeypatch.setattr(sys, "argv", ["ramify", *arguments])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        written = capsys.readouterr()
        return Answer(code, written.out, written.err)

    return call


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pruned network of three exits, trained on the digits, with a calibrated policy under which all are used."""
    wishes = ("network.channels=6", "train.epochs=8", "data.valid_fraction=0.3", "train.milestones=[7]")
    pruning = ("prune.enabled=true", "prune.epochs=[5]", "prune.keep_ratio=0.7")
    config = tiny(f"runs_dir={tmp_path_factory.mktemp('runs')}", "name=demo", "data.limit=null", *wishes, *pruning)
    run = Path(train(config).folder)
    calibrate_run(run, max_macs=0.7)
    return run


@pytest.fixture(scope="session")
def exported(demo: Path, kept_graphs: ToStages) -> Export:
    """``demo`` as ONNX graphs, in the run's folder."""
    return export(demo)


@pytest.fixture(scope="session")
def digits() -> Tensor:
    """500 real pictures, float32 ``[500, 1, 8, 8]``, and a last one that is black."""
    return torch.cat([to_float(load_digits().train.images[:500]).contiguous(), torch.zeros(1, 1, 8, 8)])


@pytest.fixture(scope="session")
def png(tmp_path_factory: pytest.TempPathFactory, digits: Tensor) -> Path:
    """The first of them as a file."""
    from ramify.answer.samples import png_of

    path = tmp_path_factory.mktemp("pictures") / "digit.png"
    path.write_bytes(png_of(digits[0].numpy().astype(np.float32)))
    return path
