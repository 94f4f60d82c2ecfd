"""Whatever file is handed over becomes what the network reads, or is refused in a sentence."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ramify.answer.picture import MAX_BYTES, Header, conversion, find_pictures, read_file, read_header, read_picture
from ramify.answer.samples import png_of
from ramify.data.listing import reads_avif
from ramify.errors import DataError
from tests.data.making import encoded
from tests.serve.serving import huge_header, picture


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 12, 9)])
def test_any_mode_and_size_is_made_what_the_network_reads(mode: str, shape: tuple[int, int, int]) -> None:
    found = read_picture(picture(1, mode, (20, 30)), "it", shape)
    assert found.shape == shape
    assert found.dtype == np.float32
    assert 0 <= found.min() < found.max() <= 1


@given(st.integers(0, 1000), st.sampled_from([(1, 8, 8), (3, 8, 9)]))
def test_a_png_of_the_right_size_comes_back_as_it_is(seed: int, shape: tuple[int, int, int]) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, shape).astype(np.float32) / np.float32(255)
    file = png_of(pixels)
    assert np.array_equal(read_picture(file, "it", shape), pixels)
    assert conversion(read_header(file, "it"), shape) is None


def test_a_turned_photo_is_turned_upright() -> None:
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(file, "JPEG", exif=exif)
    assert read_header(file.getvalue(), "it") == Header(40, 20, "RGB", False)


def test_what_was_converted_is_told() -> None:
    assert conversion(Header(8, 8, "RGB", False), (1, 8, 8)) == "8x8 RGB made 8x8 gray"
    assert conversion(Header(8, 8, "gray", True), (1, 8, 8)) == "8x8 gray with transparency made 8x8 gray"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not a picture"),
        (b"plain text", "is not a picture"),
        (picture(0)[:20], "damaged"),
        (picture(0, size=(64, 64))[:-300], "damaged|truncated"),
        (huge_header(10_000), "got a picture of 10000x10000 = 100,000,000 pixels; accepted: up to 89,000,000"),
        (huge_header(200_000), "got a picture of too many pixels; accepted: up to 89,000,000"),
    ],
    ids=["empty", "text", "start only", "cut", "100 megapixels", "40 gigapixels"],
)
def test_what_is_no_picture_is_refused(content: bytes, said: str) -> None:
    with pytest.raises(DataError, match=f"it: .*({said})"):
        read_picture(content, "it", (1, 8, 8))


def test_avif_is_read_as_for_training() -> None:
    if not reads_avif():
        pytest.skip("this Pillow does not")
    assert read_picture(encoded(Image.new("RGB", (9, 9), "white"), "AVIF"), "it", (3, 8, 8)).min() > 0.9


def test_files_are_found_in_folders_and_odd_paths_are_told(tmp_path: Path) -> None:
    for name in ("b.png", "deep/a.jpg", "deep/phone.heic", ".hidden/c.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert find_pictures([tmp_path, Path("other.bin")]) == [
        tmp_path / "b.png",
        tmp_path / "deep" / "a.jpg",
        tmp_path / "deep" / "phone.heic",
        Path("other.bin"),
    ]
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="a folder without pictures"):
        find_pictures([empty])
    os.mkfifo(tmp_path / "pipe")
    for path, said in (
        (empty, "is no regular file"),
        (tmp_path / "pipe", "no regular file"),
        (Path("x"), "no such file"),
    ):
        with pytest.raises(DataError, match=said):
            read_file(path)
    with (tmp_path / "large").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(DataError, match=r"got a file of 300,000,001 bytes; accepted: up to 300,000,000"):
        read_file(tmp_path / "large")
