"""Exports: written when every file was run and found right, and otherwise not at all."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ramify.answer.card import read_card
from ramify.answer.runtime import Runtime
from ramify.data.pictures import Part
from ramify.errors import RunError
from ramify.exporting import check
from ramify.exporting.graphs import plain
from ramify.exporting.write import Export, evenly, export
from ramify.ops.exits.policy import follow
from ramify.run.saved import load, load_policy
from ramify.training.run import train
from tests.conftest import CommandLine, tiny


def test_the_report_says_what_was_checked(demo: Path, exported: Export) -> None:
    assert exported.folder == str(demo / "onnx")
    assert exported.pictures >= 300
    assert [each.file for each in exported.files] == ["all_exits.onnx", "early_exit.onnx", "stages"]
    assert all(each.difference <= check.TOLERANCE for each in exported.files)
    sizes = {path.name: path.stat().st_size for path in Path(exported.folder).rglob("*.onnx")}
    assert exported.files[0].bytes == sizes["all_exits.onnx"]
    early, runtime = exported.early, exported.runtime
    assert early.executed[0] == early.alone > early.executed[-1] > 0
    assert runtime is not None
    assert runtime.executed == early.executed
    assert not any(path.suffix == ".tmp" for path in demo.rglob("*"))


def test_programs_are_the_network_too(ramify: CommandLine, demo: Path, digits: Tensor) -> None:
    result = ramify("export", str(demo), "--to", "torch")
    assert (result.code, result.err) == (0, "")
    assert "all_exits.pt2" in result.out
    assert "policy: calibrated (max probability" in result.out
    folder, network, policy = demo / "torch", load(demo), load_policy(demo)
    assert policy is not None
    assert read_card(folder / "early_exit.pt2") == read_card(folder).part("early_exit")
    with torch.inference_mode():
        logits = network(digits)
        found = torch.export.load(folder / "all_exits.pt2").module()(digits)
        answer = torch.export.load(folder / "early_exit.pt2").module()(digits)
    assert (found - logits).abs().max() <= 1e-4
    assert torch.equal(answer[2], follow(policy, logits).exits)
    for path in folder.rglob("*.pt2"):
        assert str(Path(check.__file__).parent).encode() not in path.read_bytes()
    again = ramify("predict", str(folder), "x.png")
    assert (again.code, "holds PyTorch programs" in again.err) == (2, True)


def test_a_compacted_dense_network_of_color_pictures(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for label, color in enumerate(((200, 60, 60), (60, 60, 200))):
        for i in range(30):
            pixels = np.clip(random.normal(color, 60, (12, 9, 3)), 0, 255).astype(np.uint8)
            path = tmp_path / "photos" / ("red", "blue")[label] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    pruned = (
        "prune.enabled=true",
        "prune.unit=channel",
        "prune.keep_ratio=0.5",
        "prune.epochs=[2]",
        "prune.compact=true",
    )
    grown = ("network.kind=dense", "network.structure=[1,0]", "train.epochs=2", "growth.epochs=[2]", "data.limit=null")
    config = tiny(f"data.source={tmp_path / 'photos'}", "name=photos", *grown, *pruned)
    run = Path(train(config).folder)
    assert (run / "compact").is_dir()
    found = export(run, tmp_path / "out")
    assert (found.card.input_shape, found.card.classes) == ((3, 12, 9), ("blue", "red"))
    assert found.card.policy.description.startswith(
        "policy: none was calibrated, so every picture goes to the last exit"
    )
    assert found.early.executed == (found.early.alone,) * 2
    assert all(each.difference <= check.TOLERANCE for each in found.files)
    answers = Runtime(tmp_path / "out").predict(random.random((5, 3, 12, 9), np.float32))
    assert answers.exits.tolist() == [1] * 5


def test_a_file_that_is_not_the_network_is_not_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = train(tiny("network.kind=full", "train.epochs=1")).folder
    monkeypatch.setattr("ramify.exporting.write.plain", lambda network: plain(network).apply(_doubled))
    with pytest.raises(RunError, match=r"logits of all_exits\.pt2 are off by .*; nothing was written"):
        export(run, tmp_path / "out", to="torch")
    assert not (tmp_path / "out").exists()


def _doubled(module: torch.nn.Module) -> None:
    if isinstance(module, torch.nn.Linear):
        with torch.no_grad():
            module.weight.mul_(2)


def test_what_cannot_be_exported_is_refused(ramify: CommandLine, demo: Path, exported: Export, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    run = str(demo)
    for arguments, said in (
        ((run,), f"out: got {demo}/onnx, an export that exists; accepted: another folder, or --overwrite"),
        ((run, "--out", "full", "--overwrite"), "out: got full, a folder that holds something else"),
        ((run, "--out", run, "--overwrite"), "which holds a run or a network; accepted: another folder"),
        ((run, "--out", "new", "--threshold", "2"), "threshold: got 2; accepted: a number in [0, 1]"),
        ((run, "--out", "new", "train.epochs=3"), "got 'train.epochs=3'; accepted: data.* here"),
        ((run, "--out", "new", "data.source=gone"), "data.source: got 'gone'"),
        ((run, "--license", "mit"), "export: got --license with --to onnx, where it says nothing"),
        ((run, "--to", "torch", "--quantize", "int8"), "export: got --quantize with --to torch"),
        (("unheard-of",), "got 'unheard-of', which is no run in runs"),
    ):
        found = ramify("export", *arguments)
        assert (found.code, found.out) == (2, ""), arguments
        assert said in found.err
        assert found.err.count("\n") == 1
    assert not (tmp_path / "new").exists()
    assert (tmp_path / "full" / "thesis.tex").exists()


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_told_in_a_sentence(
    ramify: CommandLine, demo: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    found = ramify("export", str(demo), "--out", "new")
    assert found.code == 2
    assert found.err == f"error: export: needs the package {package}; install it with: pip install 'ramify[export]'\n"


def test_pictures_are_taken_at_even_distances() -> None:
    part = Part(torch.zeros(1000, 1, 1, 1), torch.arange(1000))
    assert evenly(part, 500).labels.diff().unique().tolist() in ([2], [2, 3])
    assert evenly(part[:3], 500).labels.tolist() == [0, 1, 2]


def test_a_damaged_card_is_told_where_the_folder_is_used(ramify: CommandLine, exported: Export, png: Path) -> None:
    card = Path(exported.folder, "ramify.json")
    whole = card.read_text()
    for text in (whole[:-100], json.dumps({**json.loads(whole), "classes": None})):
        Path("copy").mkdir(exist_ok=True)
        Path("copy", "ramify.json").write_text(text)
        found = ramify("predict", "copy", str(png))
        assert (found.code, found.err.count("\n")) == (2, 1)
        assert "copy/ramify.json: is damaged" in found.err
