"""Checkpoints that somebody else made, with right checksums: a sentence, and nothing that reaches a fused kernel."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from ramify.config.rules import NetworkConfig
from ramify.errors import CheckpointError
from ramify.files import replace_folder
from ramify.nn.network import Network
from ramify.ops.surgery import parameter_groups
from ramify.run.checkpoint import Card, TrainerState, pack_model, pack_trainer, read_model, read_trainer
from ramify.sealed import KEY, checksum, sealed_json

CONFIG = NetworkConfig.model_validate(
    {"kind": "full_ic", "structure": (1, 0), "channels": 3, "input_shape": (1, 8, 8), "classes": 3}
)
Change = Callable[[dict[str, Tensor], dict[str, object]], object]


def optimizer_of(network: Network, kind: str) -> torch.optim.Optimizer:
    groups = parameter_groups(network, 1e-4)
    return torch.optim.SGD(groups, lr=0.1, momentum=0.9) if kind == "sgd" else torch.optim.Adam(groups, lr=0.1)


def saved(folder: Path, kind: str = "sgd") -> Path:
    network = Network(CONFIG, seed=1)
    optimizer = optimizer_of(network, kind)
    network(torch.rand(4, 1, 8, 8)).sum().backward()
    optimizer.step()
    trainer = pack_trainer(network, optimizer, TrainerState(epoch=3, seconds=1.0, best_epoch=2, best_score=0.5))
    replace_folder(folder, pack_model(network, Card(CONFIG, 2, ("a", "b", "c"), 3)) | trainer)
    return folder


def forge(folder: Path, name: str, change: Change) -> None:
    """Change a checkpoint, and put right checksums on it."""
    tensors = load((folder / f"{name}.safetensors").read_bytes())
    document = {key: each for key, each in json.loads((folder / f"{name}.json").read_text()).items() if key != KEY}
    change(tensors, document)
    blob = save(tensors)
    (folder / f"{name}.safetensors").write_bytes(blob)
    (folder / f"{name}.json").write_bytes(sealed_json({**document, "tensors_sha256": checksum(blob)}))


def test_both_optimizers_come_back(tmp_path: Path) -> None:
    for kind in ("sgd", "adam"):
        folder = saved(tmp_path / kind, kind)
        network = Network(CONFIG, seed=1)
        assert read_trainer(folder, network, optimizer_of(network, kind)).epoch == 3


STEM = "stem.conv.weight:momentum_buffer"
TRAINERS: dict[str, Change] = {
    "shape": lambda tensors, document: tensors.update({STEM: torch.zeros(1)}),
    "rank": lambda tensors, document: tensors.update({STEM: torch.zeros(3, 1, 3, 3, 1)}),
    "type": lambda tensors, document: tensors.update({STEM: tensors[STEM].double()}),
    "complex": lambda tensors, document: tensors.update({STEM: tensors[STEM].to(torch.complex64)}),
    "infinite": lambda tensors, document: tensors.update({STEM: tensors[STEM] + torch.inf}),
    "name": lambda tensors, document: tensors.update({"stem.other:momentum_buffer": torch.zeros(3)}),
    "key": lambda tensors, document: tensors.update({"stem.conv.weight:exp_avg": torch.zeros(3, 1, 3, 3)}),
    "epoch": lambda tensors, document: document.update(epoch=10**30),
    "negative": lambda tensors, document: document.update(epoch=-1),
    "losses": lambda tensors, document: document.update(losses=[1.0] * 100),
    "text": lambda tensors, document: document.update(seconds="1+2j"),
    "counts": lambda tensors, document: document.update(averaged=[1]),
}


@pytest.mark.parametrize("case", TRAINERS)
def test_no_foreign_tensor_reaches_an_optimizer(tmp_path: Path, case: str) -> None:
    folder = saved(tmp_path / "last")
    forge(folder, "trainer", TRAINERS[case])
    network = Network(CONFIG, seed=1)
    optimizer = optimizer_of(network, "sgd")
    with pytest.raises(CheckpointError, match="trainer files do not fit") as error:
        read_trainer(folder, network, optimizer)
    assert "\n" not in str(error.value)
    assert "pydantic" not in str(error.value)
    assert not optimizer.state


def network_of(**changes: object) -> Change:
    def change(tensors: dict[str, Tensor], document: dict[str, object]) -> None:
        own = document["network"]
        assert isinstance(own, dict)
        document["network"] = {**own, **changes}

    return change


WEIGHT = "stem.conv.weight"
MODELS: dict[str, Change] = {
    "shape": lambda tensors, document: tensors.update({WEIGHT: torch.zeros(1)}),
    "type": lambda tensors, document: tensors.update({WEIGHT: tensors[WEIGHT].double()}),
    "complex": lambda tensors, document: tensors.update({WEIGHT: tensors[WEIGHT].to(torch.complex64)}),
    "infinite": lambda tensors, document: tensors.update({WEIGHT: tensors[WEIGHT] + torch.nan}),
    "missing": lambda tensors, document: tensors.pop(WEIGHT),
    "wide": network_of(channels=10**6),
    "large": network_of(input_shape=[1, 10**6, 10**6]),
    "deep": network_of(structure=[1, 0] * 10**5),
    "complex shape": network_of(input_shape=["1+2j", 8, 8]),
    "stages": lambda tensors, document: document.update(stages=10**9),
    "classes": lambda tensors, document: document.update(classes=["a"] * 10**5),
    "twins": lambda tensors, document: document.update(classes=["a", "a", "b"]),
    "epoch": lambda tensors, document: document.update(epoch=10**30),
}


@pytest.mark.parametrize("case", MODELS)
def test_no_foreign_network_is_built(tmp_path: Path, case: str) -> None:
    folder = saved(tmp_path / "best")
    forge(folder, "model", MODELS[case])
    with pytest.raises(CheckpointError, match="do not make a network") as error:
        read_model(folder)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b'{"format": 1, "a": ' + b"[" * 500 + b"]" * 500 + b"}", b"1", b""]
)
@pytest.mark.parametrize("name", ["model", "trainer"])
def test_deep_documents(tmp_path: Path, name: str, content: bytes) -> None:
    folder = saved(tmp_path / "best")
    (folder / f"{name}.json").write_bytes(content)
    network = Network(CONFIG, seed=1)

    def read() -> None:
        read_model(folder)
        read_trainer(folder, network, optimizer_of(network, "sgd"))

    with pytest.raises(CheckpointError, match=rf"{name}\.json: is damaged"):
        read()
