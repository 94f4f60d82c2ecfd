"""A model folder is read back as the network that it was written from, and says nothing of this machine."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ramify.answer.answerer import answerer
from ramify.errors import InputError
from ramify.exporting.hub import write_hub
from ramify.ops.exits.policy import Policy
from ramify.run.readback import describe
from ramify.run.saved import find_saved, load, load_policy
from tests.conftest import CommandLine


def test_the_command_writes_a_folder_that_is_read_back(
    ramify: CommandLine, demo: Path, digits: Tensor, tmp_path: Path
) -> None:
    out = tmp_path / "model"
    result = ramify("export", str(demo), "--to", "hub", "--out", str(out), "--license", "mit", "--measure")
    assert (result.code, result.out) == (0, f"written to {out}; read it back with: ramify.load({str(out)!r})\n")
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "config.json", "model.safetensors"]

    network, original = load(out), load(demo)
    assert all(torch.equal(value, original.state_dict()[name]) for name, value in network.state_dict().items())
    with torch.inference_mode():
        assert torch.equal(network(digits), original(digits))
    policy = load_policy(out)
    assert isinstance(policy, Policy)
    assert policy == load_policy(demo)
    assert answerer(out).predict(digits.numpy()).exits.tolist() == answerer(demo).predict(digits.numpy()).exits.tolist()

    assert find_saved(str(out), Path("runs")) == out
    assert describe(out).exits == describe(demo).exits
    document = json.loads((out / "config.json").read_text())
    assert (document["model_type"], document["id2label"]["7"], document["label2id"]["7"]) == ("ramify", "7", 7)
    assert "Median of one picture at a time" in (out / "README.md").read_text()
    assert ramify("info", str(out)).code == 0
    refused = ramify("info", str(out), "--latex", "t.tex")
    assert (refused.code, refused.out) == (2, "")
    assert "--csv, --latex, --plot: got no run; accepted: " in refused.err
    for path in out.iterdir():
        assert str(demo.parent).encode() not in path.read_bytes(), path


def test_only_its_three_files_are_replaced_and_only_when_asked(demo: Path, tmp_path: Path) -> None:
    out = write_hub(demo, tmp_path / "clone")
    (out / ".git").mkdir()
    (out / "README.md").write_text("old")
    with pytest.raises(InputError, match=r"a model folder; accepted: another one, or --overwrite"):
        write_hub(demo, out)
    write_hub(demo, out, overwrite=True)
    assert (out / ".git").is_dir()
    assert (out / "README.md").read_text().startswith("---\nlicense: unknown")
    for taken in (demo, demo / "best"):
        with pytest.raises(InputError, match="a run or a checkpoint; accepted: another folder"):
            write_hub(demo, taken, overwrite=True)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="a file; accepted: a folder"):
        write_hub(demo, tmp_path / "file")
