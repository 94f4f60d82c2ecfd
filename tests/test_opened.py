"""One door: a name or a folder, and all that can be done with the network."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import ramify
from ramify.answer.predict import Predicted
from ramify.errors import CheckpointError, InputError
from ramify.training.run import train
from tests.conftest import tiny
from tests.data.making import encoded


def own(stages: int = 2) -> ramify.Network:
    config = ramify.NetworkConfig(structure=(1, 0), kind="iterative", input_shape=(1, 8, 8), classes=10, channels=4)
    return ramify.Network(config, stages=stages, seed=0)


@pytest.mark.slow
def test_a_run_is_measured_calibrated_exported_and_reported_through_one_door(tmp_path: Path) -> None:
    summary = train(tiny("name=mine"))
    run = ramify.open("mine")
    assert run.summary == summary
    assert ramify.load_policy("mine") is None
    kept = run.calibrate(max_drop=0.1)
    assert run.policy == kept.calibration.policy  # read again after it changed
    found = run.evaluate()
    assert [each.test for each in found.exits] == [each.test for each in summary.exits]
    images = torch.rand(5, 1, 8, 8)
    assert torch.equal(run.predict(images).classes, run.network.predict(images, kept.calibration.policy).classes)
    from PIL import Image

    picture = tmp_path / "one.png"
    picture.write_bytes(encoded(Image.new("L", (8, 8), 90)))
    [answer] = run.predict(picture)
    assert isinstance(answer, Predicted)
    assert answer.name in run.classes
    assert run.report(tmp_path / "page.html").exists()
    assert Path(str(run.export(tmp_path / "hub", to="hub"))).is_dir()
    assert ramify.write_hub("mine") == Path("runs/mine/hub")  # by its name as well
    with pytest.raises(InputError, match=r"'mime', which is no run in runs; .*\(nearest: mine\)"):
        ramify.export("mime")
    model = ramify.open(tmp_path / "hub")
    assert torch.equal(model.network(images), run.network(images))
    assert model.evaluate("data.source=digits").pictures > 0


@pytest.mark.parametrize("stages", [1, 2])
def test_a_network_of_ones_own_loop_is_kept_and_read_back(stages: int, tmp_path: Path) -> None:
    network = own(stages).eval()
    ramify.prune(network, 0.5, "magnitude")
    kept = ramify.save(network, tmp_path / "mine", classes=[str(i) for i in range(10)])
    again = ramify.open(kept)
    assert again.classes == tuple(map(str, range(10)))
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in again.network.state_dict().items())
    assert again.summary.exits[-1].macs == ramify.cost(network)[-1].macs
    assert len(again.evaluate("data.source=digits", "data.limit=40").exits) == stages
    with pytest.raises(InputError, match=r"accepted: data\.source="):
        again.evaluate()
    with pytest.raises(InputError, match="no run has made"):
        again.report()


def test_a_saved_network_is_not_overwritten_unless_asked_and_nothing_else_ever(tmp_path: Path) -> None:
    network = own()
    ramify.save(network, tmp_path / "mine")
    with pytest.raises(InputError, match="overwrite=True"):
        ramify.save(network, tmp_path / "mine")
    ramify.save(network, tmp_path / "mine", overwrite=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(InputError, match="something else"):
        ramify.save(network, tmp_path / "other", overwrite=True)
    with pytest.raises(InputError, match="got 3 names; accepted: 10"):
        ramify.save(network, tmp_path / "named", classes=["a", "b", "c"])
    (tmp_path / "mine" / "model.json").write_text("{}")
    with pytest.raises(CheckpointError):
        _ = ramify.open(tmp_path / "mine").network


def test_names_that_lead_nowhere_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run in runs"):
        ramify.open("nothing")


@pytest.mark.parametrize("scale", [255.0, "uint8"])
def test_pictures_above_one_are_refused_where_they_would_give_wrong_answers(scale: float | str) -> None:
    network = own().eval()
    images = torch.rand(3, 1, 8, 8)
    wrong = (images * 255).to(torch.uint8) if isinstance(scale, str) else images * scale
    calls: list[Callable[[], object]] = [
        lambda: network(wrong),
        lambda: network.classify(wrong),
        lambda: network.predict(wrong, ramify.Policy((0.5,))),
        lambda: ramify.prune(network, 0.5, "snip", [(wrong, torch.zeros(3, dtype=torch.int64))]),
    ]
    for call in calls:
        with pytest.raises(InputError, match=r"images: got .*; accepted: floats with values in \[0, 1\]"):
            call()
    assert torch.equal(network.classify(images), network(images)[-1].argmax(dim=1))


def test_logits_and_labels_that_are_not_of_every_exit_are_told() -> None:
    logits, labels = own()(torch.rand(3, 1, 8, 8)), torch.tensor([0, 1, 2])
    with pytest.raises(InputError, match=r"logits: got \[3, 10\]; accepted: \[exits, pictures, classes\]"):
        ramify.exit_losses(logits[-1], labels)
    with pytest.raises(InputError, match="labels: got 2"):
        ramify.exit_losses(logits, labels[:2])
