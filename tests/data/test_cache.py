"""Decoding happens once; damage and full disks cost time and nothing else."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ramify.data import cache as module
from ramify.data import folder
from ramify.data.cache import cache_folder, cached, digest
from ramify.data.decode import decoding
from ramify.data.folder import load_path
from ramify.data.pictures import Part, PictureSet
from tests.data.making import picture, same, tar_bytes, tree, write_tree


def some_pictures(count: int = 3, classes: tuple[str, ...] = ("cat", "dög")) -> PictureSet:
    images = torch.arange(count * 64, dtype=torch.int64).remainder(256).to(torch.uint8).reshape(count, 1, 8, 8)
    train = Part(images, torch.arange(count) % 2)
    return PictureSet(train, train[torch.tensor([], dtype=torch.int64)], classes)


def never() -> PictureSet:
    raise AssertionError("it was to come from the cache")


@pytest.fixture
def decodings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """An entry for each time that a set of pictures is decoded."""
    seen: list[int] = []

    def counting(*args: object) -> object:
        seen.append(1)
        return decoding(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(folder, "decoding", counting)
    return seen


def test_what_was_built_is_read_back(cache: Path) -> None:
    built = cached("a", "1", some_pictures)
    assert same(cached("a", "1", never), built)
    assert same(built, some_pictures())
    assert [path.name for path in (cache / "decoded").iterdir()] == ["a-1.safetensors"]


def test_a_new_state_replaces_the_old_one_and_nothing_else(cache: Path) -> None:
    for identity, state in (("a", "1"), ("b", "1"), ("a", "2")):
        cached(identity, state, some_pictures)
    (cache / "decoded" / "a-left-behind.tmp").touch()
    os.utime(cache / "decoded" / "a-left-behind.tmp", (5, 5))
    (cache / "decoded" / "a-at-work.tmp").touch()
    cached("a", "3", some_pictures)
    left = sorted(path.name for path in (cache / "decoded").iterdir())
    assert left == ["a-3.safetensors", "a-at-work.tmp", "b-1.safetensors"]


def test_every_flipped_byte_and_every_cut_is_noticed(cache: Path) -> None:
    built = cached("a", "1", some_pictures)
    path = cache / "decoded" / "a-1.safetensors"
    content = path.read_bytes()
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 0x20
        path.write_bytes(damaged if place % 2 else content[:place])
        rebuilt = cached("a", "1", some_pictures)
        assert same(rebuilt, built)
    assert same(cached("a", "1", never), built)


@pytest.mark.parametrize("blocked", ["", "decoded"])
def test_where_it_cannot_write_it_goes_on_without(cache: Path, blocked: str) -> None:
    (cache / blocked).parent.mkdir(exist_ok=True)
    (cache / blocked).write_text("in the way")
    assert same(cached("a", "1", some_pictures), some_pictures())


def test_a_full_disk_leaves_nothing_behind(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "save_file", full)
    assert same(cached("a", "1", some_pictures), some_pictures())
    assert list((cache / "decoded").iterdir()) == []


def test_the_folder_is_where_the_environment_says(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == cache
    monkeypatch.setenv("RAMIFY_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "system"))
    assert cache_folder().name == "ramify"


@settings(max_examples=30)
@given(st.lists(st.text(), min_size=2, max_size=2, unique=True))
def test_a_digest_tells_texts_apart(texts: list[str]) -> None:
    assert digest(texts[0]) != digest(texts[1])
    assert digest(*texts) != digest("".join(texts))


def test_a_folder_is_decoded_again_when_a_file_has_changed(tmp_path: Path, decodings: list[int]) -> None:
    path = write_tree(tmp_path / "set", tree())
    first = load_path(path)
    assert same(load_path(path), first)
    assert len(decodings) == 1
    (path / "train/cat/0.png").write_bytes(picture(99))
    assert load_path(path).train.images[0, 0, 0, 0] == 99
    (path / "train/cat/new.png").write_bytes(picture(1))
    assert len(load_path(path).train) == 6
    (path / "train/cat/new.png").unlink()
    os.utime(path / "train/cat/1.png", ns=(5, 5))
    load_path(path)
    load_path(path, (9, 9))
    assert len(decodings) == 5
    load_path(path)
    assert len(decodings) == 5


def test_an_archive_is_decoded_again_when_it_has_changed(tmp_path: Path, decodings: list[int]) -> None:
    path = tmp_path / "set.tar"
    path.write_bytes(tar_bytes(tree()))
    first = load_path(path)
    assert same(load_path(path), first)
    assert len(decodings) == 1
    path.write_bytes(tar_bytes(tree({"a": 2, "b": 2})))
    assert load_path(path).classes == ("a", "b")
    assert len(decodings) == 2
