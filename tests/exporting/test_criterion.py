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
from ramify.exporting import write
from ramify.exporting.check import runner
from ramify.exporting.modelcard import model_card
from ramify.exporting.write import Export
from ramify.ops.exits.policy import CRITERIA, Criterion, Policy, Seen, answers, follow
from ramify.run.calibrate import calibrate_run
from ramify.run.checkpoint import read_model
from ramify.run.evaluate import to_float
from ramify.run.pictures import parts_of_run
from ramify.run.readback import describe
from ramify.run.saved import checkpoint_of, config_of, load, load_policy
from ramify.serve.server import app
from tests.conftest import CommandLine
from tests.serve.serving import FORM, form


def runner_up(seen: Seen) -> Tensor:
    """1 minus the second highest probability, averaged with that of the exit before."""
    return torch.stack([1 - p.topk(2, dim=-1).values[..., 1] for p in seen.probabilities[-2:]]).mean(dim=0)


@pytest.mark.usefixtures("kept_graphs")
def test_a_criterion_is_added_in_one_place(
    demo: Path, tmp_path: Path, digits: Tensor, ramify: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CRITERIA, "runner_up", Criterion("1 less the second chance", runner_up, earlier=True))
    run = Path(shutil.copytree(demo, tmp_path / "demo", ignore=shutil.ignore_patterns("onnx")))
    wrong = ramify("calibrate", str(run), "--criterion", "runnerup", "--max_macs", "0.7")
    assert wrong.code == 2
    assert "runner_up" in wrong.err
    calibrated = ramify(
        "calibrate", str(run), "--criterion", "runner_up", "--max_macs", "0.7", "--combine", "last", "--json"
    )
    assert json.loads(calibrated.out)["calibration"]["policy"]["criterion"] == "runner_up"

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
            ([prediction.classes for prediction in by_runtime], [prediction.exits for prediction in by_runtime]),
            zip(*[(outputs[0].numpy(), outputs[2].numpy()) for outputs in map(early, batches)], strict=True),
        ):
            apart = np.concatenate(exits) != expected.exits.numpy()
            assert apart.sum() <= 1  # at a threshold to within rounding
            assert (np.concatenate(classes) == expected.classes.numpy())[~apart].all()

    for folder in (run, run / "onnx"):
        network = answerer(folder)
        assert "runner up" in network.description
        client = TestClient(app(network), base_url="http://127.0.0.1")
        assert "runner up" in client.get("/api/model").json()["policy"]
        reply = client.post("/api/predict", content=form(png_of(digits[0].numpy())), headers=FORM).json()
        assert reply["exit"] == int(expected.exits[0]) + 1
    summary, card = describe(run), read_model(checkpoint_of(run))[1]
    assert "1 less the second chance" in model_card(summary, card, read_config([run / "config.yaml"]))


@pytest.fixture(scope="module")
def all_test_pictures(demo: Path) -> Tensor:
    """Every test picture of the run, float32 ``[N, 1, 8, 8]``."""
    parts, _ = parts_of_run(demo, config_of(demo), None, (1, 8, 8))
    return to_float(parts.test.images).contiguous()


@pytest.mark.parametrize("criterion", ["max_probability", "patience", "correctable"])  # see test_join.py for all
def test_everything_that_answers_gives_the_same_class_and_exit(
    criterion: str, demo: Path, exported: Export, tmp_path: Path, all_test_pictures: Tensor
) -> None:
    run, folder = demo, Path(exported.folder)
    counting = criterion == "patience"  # what every picture has at the first exit is the same
    if criterion != "max_probability":
        run = Path(shutil.copytree(demo, tmp_path / "demo", ignore=shutil.ignore_patterns("onnx")))
        calibrate_run(run, max_macs=0.99 if counting else 0.5, criterion=criterion)
        folder = Path(write.export(run).folder)
    policy, network = load_policy(run), load(run)
    assert policy is not None
    assert policy.criterion == criterion
    with torch.inference_mode():
        logits = network(all_test_pictures)
    expected = follow(policy, logits)
    assert len(all_test_pictures) > 256
    assert counting or len(expected.exits.unique()) > 1
    near = at_a_threshold(policy, logits)
    assert near.sum() <= 1

    runtime, one = Runtime(folder), answerer(folder)
    early, whole = (runner((folder / name).read_bytes()) for name in ("early_exit.onnx", "all_exits.onnx"))
    for size, every in ((1, 4), (256, 1)):  # one at a time takes a while
        batches = all_test_pictures[::every].split(size)
        answered = {
            "PyTorch": [(batch.classes, batch.exits) for batch in (network.predict(some, policy) for some in batches)],
            "early_exit.onnx": [(outputs[0], outputs[2]) for outputs in map(early, batches)],
            "all_exits.onnx": [
                (batch.classes, batch.exits) for batch in (follow(policy, whole(some)[0]) for some in batches)
            ],
            "stages": [
                (torch.from_numpy(batch.classes), torch.from_numpy(batch.exits))
                for batch in (runtime.predict(some.numpy()) for some in batches)
            ],
        }
        for who, predictions in answered.items():
            classes, exits = (torch.cat(parts) for parts in zip(*predictions, strict=True))
            same = (classes == expected.classes[::every]) & (exits == expected.exits[::every])
            assert same[~near[::every]].all(), f"{who} at batch {size}"

    client = TestClient(app(one), base_url="http://127.0.0.1")
    for at in range(0, len(all_test_pictures), 12):  # a request takes a while
        picture = png_of(all_test_pictures[at].numpy())
        reply = client.post("/api/predict", content=form(picture), headers=FORM).json()
        answer = one.classes[int(expected.classes[at])], int(expected.exits[at]) + 1
        assert near[at] or (reply["class"], reply["exit"]) == answer


def at_a_threshold(policy: Policy, logits: Tensor) -> Tensor:
    """The pictures whose confidence is at a threshold to within rounding, bool ``[N]``."""
    sure = answers(policy, logits)[1]
    close = [
        (sure[at] - threshold).abs() < 1e-5
        for at, threshold in enumerate(policy.thresholds)
        if threshold is not None and CRITERIA[policy.criterion].scaled
    ]
    return torch.stack(close).any(dim=0) if close else torch.zeros(logits.shape[1], dtype=torch.bool)
