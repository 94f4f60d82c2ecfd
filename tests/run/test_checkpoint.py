"""Saved networks: they come back exactly, and damage of any kind is noticed and named."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ramify.config.rules import NetworkConfig
from ramify.errors import CheckpointError
from ramify.files import replace_folder
from ramify.nn.masked import masked_layers
from ramify.nn.network import Network
from ramify.run.checkpoint import FILE_FORMATS, Card, TrainerState, pack_model, pack_trainer, read_model, read_trainer
from ramify.run.evaluate import Score


def saved(folder: Path, stages: int = 2, kind: str = "dense") -> tuple[Network, Card]:
    config = NetworkConfig.model_validate(
        {"kind": kind, "structure": (1, 0, 1), "channels": 3, "input_shape": (1, 8, 8), "classes": 3}
    )
    network = Network(config, stages=stages, seed=1).eval()
    network.set_normalization([0.3], [0.4])
    card = Card(config, stages, ("a", "b", "ç"), 7, ((1, 4),), (Score(0.5, 0.75, 1.0),) * stages)
    replace_folder(folder, pack_model(network, card))
    return network, card


@pytest.mark.parametrize("kind", ["dense", "iterative"])
@pytest.mark.parametrize("stages", [1, 2, 3])
def test_a_network_comes_back_exactly(tmp_path: Path, kind: str, stages: int) -> None:
    network, card = saved(tmp_path / "best", stages, kind)
    back, back_card = read_model(tmp_path / "best")
    assert back_card == card
    assert not back.training
    images = torch.rand(4, 1, 8, 8)
    assert torch.equal(back(images), network(images))
    assert all(torch.equal(value, back.state_dict()[name]) for name, value in network.state_dict().items())


def test_masks_are_part_of_it(tmp_path: Path) -> None:
    network, card = saved(tmp_path / "best")
    layer = masked_layers(network)["stages.0.cells.0.conv1"]
    layer.mask.flatten()[::3] = False
    replace_folder(tmp_path / "best", pack_model(network, card))
    back, _ = read_model(tmp_path / "best")
    assert torch.equal(masked_layers(back)["stages.0.cells.0.conv1"].mask, layer.mask)


def test_there_is_no_pickle_in_it(tmp_path: Path) -> None:
    saved(tmp_path / "best")
    assert {path.suffix for path in (tmp_path / "best").iterdir()} == {".json", ".safetensors"}
    json.loads((tmp_path / "best/model.json").read_text())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(name=st.sampled_from(["model.json", "model.safetensors"]), where=st.floats(0, 1), bit=st.integers(0, 7))
def test_a_flipped_bit_is_noticed_wherever_it_is(tmp_path: Path, name: str, where: float, bit: int) -> None:
    saved(tmp_path / "best")
    path = tmp_path / "best" / name
    blob = bytearray(path.read_bytes())
    blob[min(int(where * len(blob)), len(blob) - 1)] ^= 1 << bit
    path.write_bytes(blob)
    try:
        _, card = read_model(tmp_path / "best")
    except CheckpointError as error:
        assert name in str(error)  # noqa: PT017 - a flip in white space between two fields does no harm
    else:
        assert name == "model.json"
        assert card == saved(tmp_path / "best")[1]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(name=st.sampled_from(["model.json", "model.safetensors"]), kept=st.floats(0, 0.99))
def test_a_file_cut_short_is_noticed(tmp_path: Path, name: str, kept: float) -> None:
    saved(tmp_path / "best")
    path = tmp_path / "best" / name
    blob = path.read_bytes()
    path.write_bytes(blob[: int(kept * len(blob))])
    with pytest.raises(CheckpointError, match=name):
        read_model(tmp_path / "best")


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    saved(tmp_path / "best")
    (tmp_path / "best" / name).unlink()
    with pytest.raises(CheckpointError, match=rf"best/{name}: is missing"):
        read_model(tmp_path / "best")


@pytest.mark.parametrize(
    ("name", "step", "advice"), [("model", 1, "upgrade"), ("trainer", 1, "upgrade"), ("trainer", -1, "resume or ")]
)
def test_another_format_is_refused_with_its_writer(tmp_path: Path, name: str, step: int, advice: str) -> None:
    network, _ = saved(tmp_path / "last")
    optimizer = torch.optim.SGD(network.parameters())
    for file, content in pack_trainer(network, optimizer, TrainerState(epoch=1, seconds=1.0)).items():
        (tmp_path / "last" / file).write_bytes(content)
    path = tmp_path / f"last/{name}.json"
    document = json.loads(path.read_text())
    version = FILE_FORMATS[name] + step
    document.update(format=version, ramify="9.0")
    path.write_text(json.dumps(document))
    sentence = rf"got format {version}, written by ramify 9\.0; accepted: {FILE_FORMATS[name]}; {advice}"
    with pytest.raises(CheckpointError, match=sentence):
        read_model(path.parent) if name == "model" else read_trainer(path.parent, network, optimizer)


def test_tensors_of_another_network_are_noticed(tmp_path: Path) -> None:
    saved(tmp_path / "two", stages=2)
    saved(tmp_path / "three", stages=3)
    (tmp_path / "two/model.safetensors").write_bytes((tmp_path / "three/model.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="its checksum does not match"):
        read_model(tmp_path / "two")
