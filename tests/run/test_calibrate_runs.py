"""Calibrating saved runs: thresholds from validation pictures, kept with the network, and told again."""

from pathlib import Path

import pytest
import torch

from ramify.config.read import read_config
from ramify.data.sources import load_pictures
from ramify.errors import InputError
from ramify.ops.exits.policy import follow
from ramify.run.calibrate import calibrate_run
from ramify.run.evaluate import all_logits, to_float
from ramify.run.events import Event, Grew
from ramify.run.folder import read_lines
from ramify.run.pictures import split_parts
from ramify.run.readback import remeasure
from ramify.run.saved import load, load_policy
from ramify.training.run import resume, train
from tests.conftest import CommandLine, tiny, trained


@pytest.fixture
def run() -> Path:
    return trained("name=mine", "data.limit=600", "train.epochs=6")


def test_the_policy_keeps_its_goal_on_the_validation_pictures(run: Path) -> None:
    found = calibrate_run(run, max_drop=0.02).calibration
    config = read_config([run / "config.yaml"])
    valid = split_parts(config, load_pictures(config.data)).valid
    network, policy = load(run), load_policy(run)
    assert policy == found.policy
    answer = network.predict(to_float(valid.images), policy)
    accuracy = (answer.classes == valid.labels).double().mean().item()
    last = (network(to_float(valid.images))[-1].argmax(dim=1) == valid.labels).double().mean().item()
    assert accuracy == pytest.approx(found.accuracy)
    assert last == pytest.approx(found.last_accuracy)
    assert accuracy >= last - 0.02
    assert found.pictures == len(valid)
    assert found.cost <= found.last_cost
    offline = follow(policy, all_logits(network, valid.images))
    assert torch.equal(offline.exits, answer.exits)


def test_a_run_that_was_calibrated_on_its_way_can_be_resumed() -> None:
    def stop(event: Event) -> None:
        if isinstance(event, Grew):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tiny("name=early", "train.ema=0.9"), [stop])
    calibrate_run(Path("runs/early"), max_drop=0.5)
    assert load_policy(Path("runs/early")) is not None
    assert resume(Path("runs/early")).finished


def test_a_budget_in_macs_is_kept(run: Path) -> None:
    whole = calibrate_run(run, max_drop=0.0).calibration.last_cost
    for budget in (0.6, 0.6 * whole):
        found = calibrate_run(run, max_macs=budget).calibration
        assert found.cost <= 0.6 * whole * (1 + 1e-9)


def test_a_budget_in_milliseconds_is_kept(run: Path) -> None:
    found = calibrate_run(run, max_latency_ms=1e6)
    assert found.unit == "milliseconds"
    assert found.calibration.cost <= 1e6


def test_the_weights_and_the_rest_of_the_card_stay(run: Path) -> None:
    before = (run / "best" / "model.safetensors").read_bytes()
    calibrate_run(run, max_drop=0.05)
    assert (run / "best" / "model.safetensors").read_bytes() == before
    assert read_lines(run / "events.jsonl")[-1]["event"] == "calibrated"
    assert load_policy("mine") is not None
    assert load_policy(run / "last") is None


def test_a_measured_policy_agrees_with_predict(run: Path) -> None:
    assert remeasure(run).outcome is None
    calibrate_run(run, max_drop=0.05)
    found = remeasure(run)
    policy = load_policy(run)
    config = read_config([run / "config.yaml"])
    test = load_pictures(config.data).test
    assert policy is not None
    answer = load(run).predict(to_float(test.images), policy)
    assert found.outcome is not None
    assert found.outcome.accuracy == pytest.approx((answer.classes == test.labels).double().mean().item())
    shares = [(answer.exits == i).double().mean().item() for i in range(policy.exits)]
    assert found.outcome.exits == pytest.approx(shares)


def test_a_certificate_needs_enough_pictures(run: Path) -> None:
    with pytest.raises(InputError, match="pictures"):
        calibrate_run(run, max_drop=0.01, confidence=0.95)
    found = calibrate_run(run, max_drop=0.3, confidence=0.8).calibration
    assert found.certificate is not None
    assert found.certificate.confidence == 0.8


def test_a_run_without_validation_pictures_is_refused() -> None:
    folder = Path(train(tiny("name=bare", "data.valid_fraction=0")).folder)
    with pytest.raises(InputError, match="thresholds are never chosen on training or test pictures"):
        calibrate_run(folder, max_drop=0.01)


def test_an_impossible_budget_tells_the_best(run: Path) -> None:
    with pytest.raises(InputError, match=r"max_macs: got 0.01; accepted: from .* MACs \(0\.\d+\) on"):
        calibrate_run(run, max_macs=0.01)
    with pytest.raises(InputError, match=r"max_latency_ms: got 1e-06; accepted: from .* milliseconds on"):
        calibrate_run(run, max_latency_ms=1e-6)


def test_the_command_line(run: Path, ramify: CommandLine) -> None:
    assert "no exit policy is kept with this network" in ramify("evaluate", "mine").out
    answer = ramify("calibrate", "mine", "--max_drop", "0.05")
    assert answer.code == 0
    assert "of the last exit's" in answer.out
    assert "calibrated policy" in ramify("evaluate", "mine").out
    assert "calibrated exit policy" in ramify("info", "mine").out
    assert '"unit": "MACs"' in ramify("info", "mine", "--json").out
    assert "Certified" in ramify("calibrate", "mine", "--max_drop", "0.4", "--confidence", "0.6").out
    assert '"unit": "MACs"' in ramify("calibrate", "mine", "--max_macs", "0.7", "--json").out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "calibrate: got no goal; accepted: one of max_drop, max_macs, max_latency_ms"),
        (("--max_drop", "0.1", "--max_macs", "0.5"), "calibrate: got max_drop and max_macs; accepted: one of"),
        (("--max_drop", "1.5"), "max_drop: got 1.5; accepted:"),
        (("--max_macs", "0.5", "--confidence", "0.95"), "confidence"),
        (("--max_drop", "0.1", "--criterion", "mood"), "mood"),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence(
    run: Path, ramify: CommandLine, arguments: tuple[str, ...], message: str
) -> None:
    answer = ramify("calibrate", "mine", *arguments)
    assert answer.code == 2
    assert message in answer.err
    assert "Traceback" not in answer.err
