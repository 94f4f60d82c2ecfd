"""A file that computes something else than the network is found."""

import pytest
import torch
from torch import Tensor

from ramify.config.rules import NetworkConfig
from ramify.data.pictures import Part
from ramify.errors import RunError
from ramify.exporting.check import SINGLES, TOLERANCE, accuracies, check_early, compare_logits, logits_of
from ramify.nn.network import Network
from ramify.ops.exits.policy import Policy

POLICY = Policy((0.184, None))
Outputs = tuple[Tensor, Tensor, Tensor, Tensor]


@pytest.fixture(scope="module")
def network() -> Network:
    config = NetworkConfig(kind="full_ic", structure=(1, 1, 0), channels=4, input_shape=(1, 8, 8), classes=10)
    return Network(config, seed=0).eval()


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    return torch.rand(100, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def run(network: Network, images: Tensor) -> Outputs:
    found = network.predict(images, POLICY)
    return found.classes, found.confidence, found.exits, torch.tensor([int(count > 0) for count in found.ran])


def test_the_network_is_equal_to_itself(network: Network, pictures: Tensor) -> None:
    logits = logits_of(network, pictures)
    assert compare_logits("it", logits.clone(), logits) == 0
    found = check_early("it", lambda images: run(network, images), pictures, logits, POLICY, network)
    left = network.predict(pictures[:SINGLES], POLICY).exits
    assert (found.pictures, found.alone, found.ties, found.difference) == (100, SINGLES, 0, 0)
    assert found.executed == (SINGLES, int((left > 0).sum()), int((left > 0).sum()))
    assert 0 < found.executed[1] < SINGLES


def test_logits_that_differ_are_refused(network: Network, pictures: Tensor) -> None:
    logits = logits_of(network, pictures)
    for wrong in (logits + 2 * TOLERANCE, logits * torch.nan):
        with pytest.raises(RunError, match=r"logits of it are off by up to .* nothing was written"):
            compare_logits("it", wrong, logits)
    with pytest.raises(RunError, match=r"gives logits \[2, 100, 10\]; accepted: \[3, 100, 10\]"):
        compare_logits("it", logits[:2], logits)
    # What is left of float32 where logits are large.
    assert compare_logits("it", 1e4 * logits + 1e-3, 1e4 * logits) > TOLERANCE


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (0, "answers .* differently"),
        (1, "confidences of it are off"),
        (2, "answers .* differently"),
        (3, "executed stages"),
    ],
)
def test_answers_that_differ_are_refused(network: Network, pictures: Tensor, part: int, said: str) -> None:
    def wrong(images: Tensor) -> Outputs:
        found = list(run(network, images))
        found[part] = found[part] + 0.001 if part == 1 else 1 - found[part].clamp(max=1)
        classes, confidence, exits, ran = found
        return classes, confidence, exits, ran

    with pytest.raises(RunError, match=said):
        check_early("it", wrong, pictures, logits_of(network, pictures), POLICY, network)


def test_a_picture_at_its_threshold_may_leave_elsewhere(network: Network, pictures: Tensor) -> None:
    logits = logits_of(network, pictures)
    at_it = float(logits[0, 0].softmax(dim=0).max())
    policy = Policy((at_it, None))
    later = Policy((min(1.0, at_it + TOLERANCE / 2), None))

    def run_later(images: Tensor) -> Outputs:
        found = network.predict(images, later)
        return found.classes, found.confidence, found.exits, torch.tensor([int(count > 0) for count in found.ran])

    assert check_early("it", run_later, pictures, logits, policy, network).ties >= 1


def test_accuracies_are_shares_of_a_part_that_is_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Tensor] = []

    def images(part: Part) -> Tensor:
        assert isinstance(part.pixels, Tensor)
        read.append(part.pixels)
        return part.pixels

    monkeypatch.setattr(Part, "images", property(images))
    pixels, labels = torch.zeros(100, 1, 1, 2, dtype=torch.uint8), torch.arange(100) % 2
    pixels[labels == 1, 0, 0, 1] = 255
    # The first exit always answers the class 0.
    found = accuracies(lambda batch: torch.stack((1 - 2 * batch, batch))[:, :, 0, 0], Part(pixels, labels))
    assert found == (0.5, 1.0)
    assert [len(piece) for piece in read] == [64, 36]
