"""The embedded digits."""

import hashlib

import torch

from ramify.config.rules import Config, DataConfig
from ramify.data.digits import load_digits
from ramify.data.sources import load_pictures
from ramify.run.pictures import split_parts
from tests.data.making import values


def test_digits_are_1797_gray_pictures_over_the_whole_range() -> None:
    pictures = load_digits()
    assert (len(pictures.train), len(pictures.test), pictures.shape) == (1797, 0, (1, 8, 8))
    assert pictures.classes == tuple("0123456789")
    assert (pictures.train.images.dtype, pictures.train.labels.dtype) == (torch.uint8, torch.int64)
    assert (int(pictures.train.images.min()), int(pictures.train.images.max())) == (0, 255)
    assert values(pictures.train.images) == {int(v * 255 / 16 + 0.5) for v in range(17)}


def test_the_test_pictures_of_digits_are_always_the_same() -> None:
    first, second = load_pictures(DataConfig()), load_pictures(DataConfig(valid_fraction=0.3))
    assert torch.equal(first.test.images, second.test.images)
    assert (len(first.train) + len(first.test), len(first.test)) == (1797, 359)
    assert set(first.test.labels.tolist()) == set(range(10))


def test_the_split_is_what_it_has_always_been() -> None:
    """Bit for bit: what was published with a seed can be made again."""
    config = Config(data=DataConfig(), seed=0)
    parts = split_parts(config, load_pictures(config.data))
    digests = [
        hashlib.sha256(part.images.numpy().tobytes() + part.labels.numpy().tobytes()).hexdigest()[:16]
        for part in (parts.train, parts.valid, parts.test)
    ]
    assert (parts.counts, digests) == ((1295, 143, 359), ["fbf347dbc9eb380c", "fa029b54dce06f1d", "0b3339a568f55d50"])
