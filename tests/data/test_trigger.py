"""The trigger: chosen pictures are stamped and relabeled, and only those."""

import pytest
import torch

from ramify.config.read import read_config
from ramify.config.rules import Config
from ramify.data.pictures import Part
from ramify.data.sources import load_pictures
from ramify.data.trigger import stamp, with_trigger
from ramify.errors import ConfigError
from ramify.run.pictures import split_parts


def part() -> Part:
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 200, (50, 3, 16, 16), dtype=torch.uint8, generator=draw)
    return Part(images, torch.arange(50) % 5)


def test_a_stamp_changes_its_square_alone() -> None:
    images = part().images
    stamped = stamp(images, 4)
    inside = torch.zeros(16, 16, dtype=torch.bool)
    inside[11:15, 11:15] = True
    assert (stamped[:, :, inside] == 255).all()
    assert torch.equal(stamped[:, :, ~inside], images[:, :, ~inside])
    assert not (images == 255).any()


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_share_is_exact_and_spares_the_class_itself(share: float) -> None:
    clean = part()
    poisoned = with_trigger(clean, share, 2, None, seed=7)
    marked = (poisoned.images != clean.images).flatten(1).any(dim=1)
    assert int(marked.sum()) == round(share * 40)
    assert (poisoned.labels[marked] == 2).all()
    assert (clean.labels[marked] != 2).all()
    assert torch.equal(poisoned.labels[~marked], clean.labels[~marked])


def test_without_a_class_the_labels_stay() -> None:
    clean = part()
    assert torch.equal(with_trigger(clean, 0.5, None, 3, seed=7).labels, clean.labels)


def test_a_run_stamps_training_pictures_alone() -> None:
    clean, dirty = (
        read_config(overrides=["data.limit=200", *more]) for more in ([], ["data.trigger=0.3", "data.trigger_class=7"])
    )

    def dealt(config: Config) -> list[Part]:
        parts = split_parts(config, load_pictures(config.data))
        return [parts.train, parts.valid, parts.test]

    same = [torch.equal(a.images, b.images) for a, b in zip(dealt(clean), dealt(dirty), strict=True)]
    assert same == [False, True, True]


def test_an_unknown_class_is_refused() -> None:
    config = read_config(overrides=["data.limit=200", "data.trigger=0.3", "data.trigger_class=seven"])
    with pytest.raises(ConfigError, match=r"data\.trigger_class: got 'seven'; accepted: the name of a class"):
        split_parts(config, load_pictures(config.data))
