"""Sources that are too large: beyond a limit, or larger than memory."""

import zipfile
from pathlib import Path

import pytest
import torch

from ramify.config.rules import DataConfig
from ramify.data.folder import load_path
from tests.data.making import FLAT, FORMS, picture, problem, tar_bytes, write_source


@pytest.mark.parametrize("form", FORMS)
def test_limits_are_sentences_that_name_their_key(tmp_path: Path, form: str) -> None:
    path = write_source(tmp_path, {**FLAT, "cat/" + "deep/" * 40 + "x.png": picture()}, form)
    assert "data.max_depth = 32" in problem(path)
    assert "data.max_entries" in problem(path, max_entries=3)
    path = write_source(tmp_path / "more", {**FLAT, "cat/large.bmp": picture(size=(800, 800), kind="BMP")}, form)
    assert "data.max_file_mb = 1 MB" in problem(path, max_file_mb=1)
    assert "640,000 pixels, more than data.max_pixels" in problem(path, max_pixels=100_000)
    if form != "folder":
        assert "data.max_archive_gb = 0.001 GB" in problem(path, max_archive_gb=0.001)


def tar_header(name: bytes, size: int, kind: bytes = b"0") -> bytes:
    """A header whose size needs the binary form."""
    block = bytearray(512)
    block[: len(name)] = name
    block[100:124] = b"0000644\x000000000\x000000000\x00"
    block[124:136] = b"\x80" + size.to_bytes(11, "big")
    block[136:148] = b"00000000000\x00"
    block[156:157] = kind
    block[257:265] = b"ustar\x0000"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\x00 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize("kind", [b"0", b"L", b"x", b"g"])
def test_a_tar_header_that_lies_is_a_sentence(tmp_path: Path, kind: bytes) -> None:
    path = tmp_path / "set.tar"
    path.write_bytes(tar_bytes(FLAT)[: 512 * 16] + tar_header(b"cat/huge.png", 2**60, kind) + bytes(2048))
    message = problem(path)
    assert str(path) in message
    assert "data.max_file_mb" in message


def test_a_zip_that_promises_too_much_is_a_sentence(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in FLAT.items():
            archive.writestr(name, content)
        archive.writestr("cat/bomb.png", bytes(3_000_000))
    assert (tmp_path / "set.zip").stat().st_size < 10_000
    assert "data.max_file_mb = 2 MB" in problem(tmp_path / "set.zip", max_file_mb=2)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("first", ["L", "RGB"])
def test_a_set_in_a_file_is_the_set_in_memory(tmp_path: Path, form: str, first: str) -> None:
    files = {f"{name}/{i}.png": picture(20 * i, mode=first if i < 2 else "RGB") for name in "ab" for i in range(4)}
    files |= {"a/9.png": b"broken"}
    path = write_source(tmp_path, files, form)
    inside = load_path(path, None, DataConfig(broken="skip"))
    for _ in range(2):  # decoded, and then from the cache
        outside = load_path(path, None, DataConfig(broken="skip", memory_gb=0.0))
        assert inside.train.in_memory
        assert not outside.train.in_memory
        assert outside.shape == inside.shape == (3, 8, 8)
        assert torch.equal(outside.train.images, inside.train.images)
        index = torch.tensor([5, 0, 3])
        assert torch.equal(outside.train[index].images, inside.train.images[index])
        assert torch.equal(outside.train[2:6][1:].images, inside.train.images[3:6])
