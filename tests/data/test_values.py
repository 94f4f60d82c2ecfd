"""Transparency, palettes, deep pictures: the values of odd pictures in a folder, a tar and a zip."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from ramify.config.rules import DataConfig
from ramify.data.folder import load_path
from ramify.data.sources import load_pictures
from tests.data.making import FLAT, FORMS, encoded, picture, write_source, write_tree


def glyph(mode: str, ink: tuple[int, ...], nothing: tuple[int, ...]) -> bytes:
    image = Image.new(mode, (16, 16), nothing)
    ImageDraw.Draw(image).rectangle((4, 4, 11, 11), fill=ink)
    return encoded(image)


@pytest.mark.parametrize(
    ("background", "ground"), [("white", (255, 255, 255)), ("black", (0, 0, 0)), ([10, 20, 30], (10, 20, 30))]
)
def test_transparency_is_laid_on_the_background(tmp_path: Path, background: object, ground: tuple[int, ...]) -> None:
    red, clear = (200, 0, 0, 255), (0, 0, 0, 0)
    path = write_tree(tmp_path, {f"{name}/{i}.png": glyph("RGBA", red, clear) for name in "ab" for i in range(3)})
    image = load_pictures(DataConfig.model_validate({"source": str(path), "background": background})).train.images[0]
    assert (image[:, 0, 0].tolist(), image[:, 8, 8].tolist()) == (list(ground), [200, 0, 0])


def test_ink_of_the_background_s_color_is_not_lost(tmp_path: Path) -> None:
    white = glyph("LA", (255, 255), (255, 0))
    pictures = load_path(write_tree(tmp_path, {f"{name}/{i}.png": white for name in "ab" for i in range(3)}))
    assert pictures.train.images[0, 0, (0, 8), (0, 8)].tolist() == [0, 255]
    assert any("opposite color" in note for note in pictures.files.notes)


def test_a_palette_s_transparency_is_seen(tmp_path: Path) -> None:
    image = Image.new("P", (16, 16), 0)
    image.putpalette([0, 0, 0, 10, 200, 10])
    ImageDraw.Draw(image).rectangle((4, 4, 11, 11), fill=1)
    content = encoded(image, transparency=0)
    image_ = load_path(
        write_tree(tmp_path, {f"{name}/{i}.png": content for name in "ab" for i in range(2)})
    ).train.images
    assert image_[0, :, 0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize(("dtype", "kind"), [(np.uint16, "PNG"), (np.int32, "TIFF"), (np.float32, "TIFF")])
@pytest.mark.parametrize("form", FORMS)
def test_deep_pictures_are_scaled_by_the_range_of_the_set(
    tmp_path: Path, form: str, dtype: type[np.uint16], kind: str
) -> None:
    levels = {"a/0": 100, "a/1": 300, "b/0": 2100, "b/1": 4100}  # 12 bits in 16: by the upper 8 all would be black
    files = {
        f"{name}.{kind.lower()}": encoded(Image.fromarray(np.full((8, 8), level, dtype)), kind)
        for name, level in levels.items()
    }
    pictures = load_path(write_source(tmp_path, files, form))
    assert pictures.files.range == (100.0, 4100.0)
    assert pictures.train.images[:, 0, 0, 0].tolist() == [0, 13, 128, 255]
    config = DataConfig(range=(0.0, 8200.0))
    assert load_path(write_source(tmp_path, files, form), None, config).train.images[-1, 0, 0, 0] == 128


def test_a_nearly_constant_set_is_said(tmp_path: Path) -> None:
    dull = {f"{name}/{i}.png": picture(i) for name in "ab" for i in range(3)}
    assert any("nearly constant" in note for note in load_path(write_tree(tmp_path, dull)).files.notes)
    assert any("one value throughout" in note for note in load_path(write_tree(tmp_path / "more", FLAT)).files.notes)


def test_colors_of_16_bits_are_said(tmp_path: Path) -> None:
    rows = b"".join(b"\0" + bytes([16 * y, 0] * 3 * 8) for y in range(8))

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0))
    wide = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    pictures = load_path(write_tree(tmp_path, {**FLAT, "cat/wide.png": wide}))
    assert any("1 pictures have colors of 16 bits" in note for note in pictures.files.notes)
