"""Every source gives a set of the same kind, with each option, through the cache."""

import hashlib
from collections import Counter
from pathlib import Path

import pytest
import torch

from ramify.config.rules import DataConfig
from ramify.data.decode import with_channels
from ramify.data.fetch import FILES, RemoteFile
from ramify.data.fit import fit, resize
from ramify.data.pictures import Part
from ramify.data.recolor import recolor
from ramify.data.sources import SOURCES, load_pictures
from ramify.errors import DataError, RunError
from tests.data.making import (
    cifar10_files,
    cifar100_files,
    mnist_files,
    picture,
    tar_bytes,
    tiny_files,
    tree,
    values,
    write_tree,
    zip_bytes,
)
from tests.data.site import Site

SHAPES = {
    "digits": (1, 8, 8),
    "cifar10": (3, 32, 32),
    "cifar100": (3, 32, 32),
    "mnist": (1, 28, 28),
    "fashion_mnist": (1, 28, 28),
    "tiny_imagenet": (3, 64, 64),
}


def small_files() -> dict[str, dict[str, bytes]]:
    """For each named source, small files in its real formats."""
    return {
        "digits": {},
        "cifar10": {"cifar-10-binary.tar.gz": tar_bytes(cifar10_files(), "gz")},
        "cifar100": {"cifar-100-binary.tar.gz": tar_bytes(cifar100_files(), "gz")},
        "mnist": mnist_files(),
        "fashion_mnist": mnist_files(),
        "tiny_imagenet": {"tiny-imagenet-200.zip": zip_bytes(tiny_files())},
    }


def served(site: Site, name: str) -> dict[str, tuple[RemoteFile, ...]]:
    """The small files of a source on ``site``, and the table that says so."""
    files = small_files()[name]
    assert [file.name for file in FILES.get(name, ())] == list(files)
    site.files.update(files)
    checksums = {file: f"md5:{hashlib.md5(content).hexdigest()}" for file, content in files.items()}
    return {name: tuple(RemoteFile(file, checksum, (site.address,)) for file, checksum in checksums.items())}


def test_every_source_is_tested_here() -> None:
    assert set(SHAPES) == set(SOURCES) == set(FILES) | {"digits"}


@pytest.mark.parametrize("name", SOURCES)
def test_a_named_source_is_fetched_read_and_cached(name: str, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    table = served(site, name)
    first = load_pictures(DataConfig(source=name), files=table)
    assert first.shape == SHAPES[name]
    for part in (first.train, first.test):
        assert (part.images.dtype, part.labels.dtype) == (torch.uint8, torch.int64)
        assert part.images.shape == (len(part), *first.shape)
        assert set(part.labels.tolist()) == set(range(len(first.classes)))
    asked = len(site.asked)
    monkeypatch.setitem(SOURCES, name, lambda paths: pytest.fail("it was to come from the cache"))
    second = load_pictures(DataConfig(source=name), files=table)
    assert torch.equal(first.train.images, second.train.images)
    assert torch.equal(first.test.labels, second.test.labels)
    assert len(site.asked) == asked == len(small_files()[name])


@pytest.mark.parametrize("name", SOURCES)
def test_size_shape_and_limit_work_for_every_source(name: str, site: Site) -> None:
    table = served(site, name)
    classes = len(load_pictures(DataConfig(source=name), files=table).classes)
    config = DataConfig(source=name, size=(10, 12), limit=classes)
    pictures = load_pictures(config, files=table)
    assert pictures.shape == (SHAPES[name][0], 10, 12)
    for part in (pictures.train, pictures.test):
        assert sorted(part.labels.tolist()) == list(range(classes))
    shape = (4 - SHAPES[name][0], 16, 16)
    assert load_pictures(config, shape=shape, files=table).shape == shape
    with pytest.raises(DataError, match=rf"data\.limit: got {classes - 1}; accepted: at least {classes}"):
        load_pictures(DataConfig.model_construct(source=name, limit=classes - 1), files=table)


def test_sets_that_share_file_names_do_not_share_files(site: Site, cache: Path) -> None:
    for name in ("mnist", "fashion_mnist"):
        load_pictures(DataConfig(source=name), files=served(site, name))
    assert len(list((cache / "files" / "mnist").glob("*.gz"))) == 4
    assert len(list((cache / "files" / "fashion_mnist").glob("*.gz"))) == 4


def test_the_mirror_is_the_configuration_s(site: Site, other_site: Site) -> None:
    table = served(site, "mnist")
    with pytest.raises(RunError, match=other_site.address):
        load_pictures(DataConfig(source="mnist", mirror=other_site.address), files=table)
    assert site.asked == []


@pytest.mark.parametrize(
    ("source", "near"), [("cifar", "cifar10"), ("fashion-mnist", "fashion_mnist"), ("MNIST", "mnist")]
)
def test_an_unknown_source_names_the_nearest(source: str, near: str) -> None:
    with pytest.raises(DataError, match=rf"data\.source: got '{source}'.*\(nearest: {near}\)$"):
        load_pictures(DataConfig(source=source))


@pytest.mark.parametrize("source", ["no/such/folder", "~nobody-of-this-name/x", "x" * 5000, "a\0b"])
def test_a_path_that_is_not_there_is_a_sentence(source: str) -> None:
    with pytest.raises(DataError, match=r"data\.source: got"):
        load_pictures(DataConfig(source=source))


def test_a_path_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_tree(tmp_path / "set", tree())
    assert load_pictures(DataConfig(source="~/set")).classes == ("cat", "dog")


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 16, 20), (3, 8, 8)])
def test_a_folder_becomes_what_a_network_takes(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    mixed = {"a/1.png": picture(9, (30, 20)), "a/2.png": picture(9), "b/1.png": picture(9), "b/2.png": picture(9)}
    path = write_tree(tmp_path, mixed)
    pictures = load_pictures(DataConfig(source=str(path), size=64), shape=shape)
    assert pictures.shape == shape
    assert values(pictures.train.images) == {9}


def test_a_network_of_four_channels_gets_a_sentence() -> None:
    with pytest.raises(DataError, match=r"network\.input_shape: got 4 channels for pictures with 1; accepted: 1 or 3"):
        load_pictures(DataConfig(), shape=(4, 8, 8))


def test_a_limit_deals_out_evenly() -> None:
    pictures = load_pictures(DataConfig(limit=105))
    for part in (pictures.train, pictures.test):
        assert sorted(Counter(part.labels.tolist()).values()) == [10] * 5 + [11] * 5


def test_gray_to_color_and_back_is_the_same() -> None:
    gray = torch.arange(256, dtype=torch.uint8).reshape(4, 1, 8, 8)
    assert torch.equal(recolor(recolor(gray, 3), 1), gray)


def test_resizing_keeps_flat_pictures_and_the_middle() -> None:
    flat = torch.full((3, 3, 17, 30), 77, dtype=torch.uint8)
    assert values(resize(flat, (8, 9))) == {77}
    assert resize(flat, (40, 50)).shape == (3, 3, 40, 50)
    wide = torch.zeros(1, 1, 8, 32, dtype=torch.uint8)
    wide[..., 12:20] = 255
    assert bool((resize(wide, (8, 8)) == 255).all())
    assert resize(flat, (17, 30)) is flat


def test_an_empty_part_becomes_an_empty_part() -> None:
    empty = Part(torch.empty(0, 1, 8, 8, dtype=torch.uint8), torch.empty(0, dtype=torch.int64))
    assert fit(empty, (3, 16, 16)).images.shape == (0, 3, 16, 16)


def test_one_picture_is_recolored_as_many_are() -> None:
    images = torch.randint(0, 256, (1, 3, 9, 7), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    gray = recolor(images, 1)
    assert torch.equal(torch.from_numpy(with_channels(images[0].numpy(), 1)), gray[0])
    assert torch.equal(torch.from_numpy(with_channels(gray[0].numpy(), 3)), recolor(gray, 3)[0])
