"""What a step is fed: off, exactly what it was before; on, the same pictures however many processes share them."""

from pathlib import Path

import pytest
import torch

from ramify.config.read import read_config
from ramify.config.rules import Config
from ramify.data.pictures import Part
from ramify.data.store import Rows, Store
from ramify.nn.network import Network
from ramify.run.evaluate import to_float
from ramify.seeds import generator
from ramify.training.feeding import Batch, Feeder
from tests.data.making import augment

ALL = slice(None)
EVERYTHING = ("data.augment=strong", "data.cutout=4", "data.mixup=0.4", "data.cutmix=1", "data.sizes=[[1,12],[3,16]]")


def config(*overrides: str) -> Config:
    fixed = ("data.source=photos", "network.classes=4", "network.input_shape=[3,16,16]", "train.epochs=8", "seed=3")
    return read_config(overrides=[*fixed, *overrides])


def batch(count: int = 10) -> Part:
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8, generator=draw)
    return Part(images, torch.randint(4, (count,), generator=draw))


NETWORK = Network(config().network)
NETWORK.set_normalization([0.2, 0.4, 0.6], [1.0, 1.0, 1.0])


def feed(chosen: Config, epoch: int = 1, own: slice = ALL, share: float = 0.5) -> Batch:
    return Feeder(chosen, epoch, NETWORK, batch(), [torch.arange(10)]).feed(own, share)


def test_alternating_flips_mirror_every_picture_in_every_second_epoch() -> None:
    still = ("data.shift=1", "data.border=edge", "data.flip=alternating")
    plain = to_float(batch().images)[:, :, 1:-1, 1:-1]
    mirrored = []
    for epoch in (1, 2, 3):
        found = feed(config(*still), epoch).images
        fits = [
            {
                bool(flip)
                for flip in (False, True)
                for y in range(3)
                for x in range(3)
                if torch.equal(whole[:, y : y + 14, x : x + 14], each.flip(-1) if flip else each)
            }
            for whole, each in zip(found, plain, strict=True)
        ]
        assert all(len(each) == 1 for each in fits)
        mirrored.append([each.pop() for each in fits])
    assert mirrored[0] == mirrored[2]
    assert mirrored[0] == [not each for each in mirrored[1]]
    assert 0 < sum(mirrored[0]) < 10


def test_photo_reads_the_pictures_of_a_batch_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = batch()
    (tmp_path / "pixels").write_bytes(whole.images.numpy().tobytes())
    part = Part(Rows(Store(tmp_path / "pixels", (10, 3, 16, 16)), torch.arange(10)), whole.labels)
    counts: list[int] = []
    read = Store.read

    def counting(store: Store, rows: torch.Tensor) -> torch.Tensor:
        counts.append(len(rows))
        return read(store, rows)

    monkeypatch.setattr(Store, "read", counting)
    Feeder(config("data.augment=photo"), 1, NETWORK, part, [torch.arange(4)]).feed(ALL, 0.5)
    assert counts == [4]


def test_without_a_recipe_it_is_augmentation_alone() -> None:
    found = feed(config())
    expected = to_float(augment(batch().images, "crop_flip", generator(3, "augment", 1)))
    assert torch.equal(found.images, expected)
    assert found.images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(found.targets, batch().labels)
    assert torch.equal(found.labels, batch().labels)


@pytest.mark.parametrize("overrides", [(), *((each,) for each in EVERYTHING), EVERYTHING])
@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_what_one_would_be_feed(overrides: tuple[str, ...], processes: int) -> None:
    whole = feed(config(*overrides))
    for rank in range(processes):
        own = slice(rank, 10, processes)
        share = feed(config(*overrides), own=own)
        for name in ("images", "targets", "labels", "index"):
            assert torch.equal(getattr(share, name), getattr(whole, name)[own]), name


@pytest.mark.parametrize("overrides", [(), *((each,) for each in EVERYTHING), EVERYTHING])
def test_batches_changed_together_are_those_changed_one_by_one(
    overrides: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    dealt = torch.randperm(30, generator=torch.Generator().manual_seed(1)).split(8)

    def batches() -> list[Batch]:
        feeder = Feeder(config(*overrides), 3, NETWORK, batch(30), dealt)
        return [feeder.feed(ALL, 0.5) for _ in dealt]

    alone = batches()
    monkeypatch.setattr("ramify.training.feeding.batches_per_call", lambda device: 3)
    for one, other, index in zip(alone, batches(), dealt, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.targets, other.targets)
        assert torch.equal(one.index, index)
        assert torch.equal(other.index, index)


@pytest.mark.parametrize("overrides", [(each,) for each in EVERYTHING])
def test_every_part_changes_the_pictures_by_the_seed(overrides: tuple[str, ...]) -> None:
    first, again, plain = feed(config(*overrides)), feed(config(*overrides)), feed(config())
    assert torch.equal(first.images, again.images)
    assert first.images.shape != plain.images.shape or not torch.equal(first.images, plain.images)
    assert first.images.min() >= 0
    assert first.images.max() <= 1


def test_a_mixed_picture_counts_as_what_it_shows_most_of() -> None:
    for name in ("mixup", "cutmix"):
        for seed in range(6):
            found = feed(config(f"data.{name}=1", f"seed={seed}"))
            assert found.targets.shape == (10, 4)
            torch.testing.assert_close(found.targets.sum(dim=1), torch.ones(10))
            assert torch.equal(found.labels, found.targets.argmax(dim=1))


def test_mixing_is_ramped_in() -> None:
    chosen = config("data.mixup=1", "data.mix_ramp=0.5")
    assert feed(chosen, epoch=1, share=0.0).targets.dim() == 1
    assert all(feed(chosen, epoch=epoch, share=0.0).targets.dim() == 2 for epoch in (5, 8))


def test_a_blanked_square_has_the_mean_colour() -> None:
    found = feed(config("data.augment=none", "data.cutout=6"))
    mean = (NETWORK.mean * 255).round() / 255
    blank = torch.isclose(found.images, mean[:, None, None], atol=1e-6).all(dim=1).flatten(1).sum(dim=1)
    assert bool((blank >= 9).all())
    assert bool((blank <= 36).all())


def test_sizes_end_at_full_size() -> None:
    chosen = config("data.sizes=[[1,8],[3,12],[6,16]]")
    sides = [feed(chosen, epoch).images.shape[-1] for epoch in range(1, 9)]
    assert sides == [8, 8, 12, 12, 12, 16, 16, 16]
    assert torch.equal(feed(chosen, 8).images, feed(config(), 8).images)
