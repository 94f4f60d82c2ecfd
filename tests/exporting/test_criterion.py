"""A criterion is written once: everything that answers, exports or describes takes it from there."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from torch import Tensor

from ramify.answer.answerer import answerer
from ramify.answer.runtime import Runtime
from ramify.answer.samples import png_of
from ramify.config.read import read_config
from ramify.exporting.check import runner
from ramify.exporting.modelcard import model_card
from ramify.ops.exits.policy import CRITERIA, Criterion, Seen
from ramify.run.checkpoint import read_model
from ramify.run.readback import describe
from ramify.run.saved import checkpoint_of, load, load_policy
from ramify.serve.server import app
from tests.conftest import CommandLine
from tests.serve.serving import FORM, form

pytestmark = pytest.mark.slow


def runner_up(seen: Seen) -> Tensor:
    """1 minus the second highest probability, averaged with that of the exit before."""
    each = [1 - p.topk(2, dim=-1).values[..., 1] for p in seen.probabilities[-2:]]
    return torch.stack(each).mean(dim=0)


def test_a_criterion_is_added_in_one_place(
    demo: Path, tmp_path: Path, digits: Tensor, ramify: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CRITERIA, "runner_up", Criterion("1 less the second chance", runner_up, earlier=True))
    run = Path(shutil.copytree(demo, tmp_path / "demo", ignore=shutil.ignore_patterns("onnx")))
    wrong = ramify("calibrate", str(run), "--criterion", "runnerup", "--max_macs", "0.7")
    assert wrong.code == 2
    assert "runner_up" in wrong.err
    found = ramify(
        "calibrate", str(run), "--criterion", "runner_up", "--max_macs", "0.7", "--combine", "last", "--json"
    )
    assert json.loads(found.out)["calibration"]["policy"]["criterion"] == "runner_up"

    policy = load_policy(run)
    assert policy is not None
    expected = load(run).predict(digits, policy)
    assert 0 < int((expected.exits == 0).sum()) < len(digits)
    exported = ramify("export", str(run))
    assert (exported.code, exported.err) == (0, "")
    runtime, early = Runtime(run / "onnx"), runner((run / "onnx" / "early_exit.onnx").read_bytes())
    for size in (1, 256):
        batches = digits.split(size)
        by_runtime = [runtime.predict(some.numpy()) for some in batches]
        for classes, exits in (
            ([each.classes for each in by_runtime], [each.exits for each in by_runtime]),
            zip(*[(found[0].numpy(), found[2].numpy()) for found in map(early, batches)], strict=True),
        ):
            apart = np.concatenate(exits) != expected.exits.numpy()
            assert apart.sum() <= 1  # at a threshold to within rounding
            assert (np.concatenate(classes) == expected.classes.numpy())[~apart].all()

    for folder in (run, run / "onnx"):
        network = answerer(folder)
        assert "runner up" in network.told
        client = TestClient(app(network), base_url="http://127.0.0.1")
        assert "runner up" in client.get("/api/model").json()["policy"]
        reply = client.post("/api/predict", content=form(png_of(digits[0].numpy())), headers=FORM).json()
        assert reply["exit"] == int(expected.exits[0]) + 1
    summary, card = describe(run), read_model(checkpoint_of(run))[1]
    assert "1 less the second chance" in model_card(summary, card, read_config([run / "config.yaml"]))
