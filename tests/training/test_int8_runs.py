"""A run that trains for the int8 export."""

from pathlib import Path

import torch

from ramify.nn.masked import masked_layers
from ramify.run.saved import load
from ramify.training.run import train
from tests.conftest import tiny

PRUNED = ("prune.enabled=true", "prune.epochs=[3]", "prune.keep_ratio=0.5")


def test_it_rounds_while_it_trains_and_leaves_an_ordinary_network(tmp_path: Path) -> None:
    runs = {
        quantize: load(
            train(tiny(f"runs_dir={tmp_path}", f"name={quantize}", f"train.quantize={quantize}", *PRUNED)).folder
        )
        for quantize in ("none", "int8")
    }
    plain, rounded = (network.state_dict() for network in runs.values())
    assert plain.keys() == rounded.keys()
    assert not all(torch.equal(plain[key], rounded[key]) for key in plain)
    for layer in masked_layers(runs["int8"]).values():
        assert not layer.int8
        assert not layer.weight[~layer.mask].any()
    assert any(not layer.mask.all() for layer in masked_layers(runs["int8"]).values())
