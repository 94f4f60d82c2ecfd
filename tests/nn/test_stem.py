"""Stems: what a whitened one makes of pictures, and that it never learns."""

import pytest
import torch
from torch.nn import functional as F

from ramify.config.rules import NetworkConfig
from ramify.errors import ConfigError
from ramify.nn.network import Network
from ramify.nn.stem import WhitenedStem
from ramify.ops.freeze import freeze_trunk, unfreeze
from ramify.training.run import train
from ramify.training.state import WHITENED
from tests.conftest import tiny

SPEED = ("network.stem=whitened", "network.cell=pooling", "network.channels=8", "network.exit=both")


def test_whitened_patches_have_variance_one_in_every_direction() -> None:
    images = F.avg_pool2d(torch.randn(300, 3, 18, 18, generator=torch.Generator().manual_seed(0)), 3, 1)
    stem = WhitenedStem(3, 24)
    stem.whiten(images)
    white = stem.conv(images)[:, :12].transpose(0, 1).flatten(1)
    found = white @ white.T / white.shape[1]
    torch.testing.assert_close(found, torch.diag(found.diagonal()), atol=1e-3, rtol=0)
    assert 0.95 < float(found.diagonal().min()) <= float(found.diagonal().max()) < 1.001
    assert stem(images).shape == (300, 24, 15, 15)


def test_a_whitened_stem_has_channels_for_each_color() -> None:
    config = NetworkConfig(stem="whitened", channels=(16, 32), input_shape=(3, 16, 16), classes=4)
    with pytest.raises(ConfigError, match="accepted: 24"):
        Network(config)


def test_it_is_made_from_training_pictures_and_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []

    def watched(stem: WhitenedStem, images: torch.Tensor) -> None:
        seen.append(images)
        whiten(stem, images)
        made.append(stem.conv.weight.clone())

    whiten, made = WhitenedStem.whiten, list[torch.Tensor]()
    monkeypatch.setattr(WhitenedStem, "whiten", watched)
    summary = train(tiny(*SPEED, "network.kind=full_ic", "train.epochs=2", "train.weight_decay=0.1"))
    from ramify.run.saved import load

    [images] = seen
    assert 0 < len(images) <= WHITENED
    assert abs(float(images.mean())) < 0.05  # normalized
    stem = load(summary.folder).get_submodule("stem.conv")
    assert torch.equal(stem.get_parameter("weight"), made[0])


def test_only_the_stem_stays_frozen() -> None:
    network = Network(NetworkConfig(stem="whitened", channels=8, kind="full_ic", input_shape=(1, 8, 8), classes=4))
    freeze_trunk(network)
    unfreeze(network)
    assert [name for name, each in network.named_parameters() if not each.requires_grad] == ["stem.conv.weight"]
