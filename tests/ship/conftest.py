"""A run on digits and its export, made once: the exporter takes seconds for every graph."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ramify.data.digits import load_digits
from ramify.run.calibrate import calibrate_run
from ramify.run.evaluate import to_float
from ramify.run.train import train
from ramify.ship.export import Export, export
from tests.conftest import tiny


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
def exported(demo: Path) -> Export:
    """``demo`` as ONNX graphs, in the run's folder."""
    return export(demo)


@pytest.fixture(scope="session")
def digits() -> Tensor:
    """500 real pictures, float32 ``[500, 1, 8, 8]``, and a last one that is black."""
    return torch.cat([to_float(load_digits().train.images[:500]).contiguous(), torch.zeros(1, 1, 8, 8)])


@pytest.fixture(scope="session")
def png(tmp_path_factory: pytest.TempPathFactory, digits: Tensor) -> Path:
    """The first of them as a file."""
    from ramify.ship.samples import png_of

    path = tmp_path_factory.mktemp("pictures") / "digit.png"
    path.write_bytes(png_of(digits[0].numpy().astype(np.float32)))
    return path
