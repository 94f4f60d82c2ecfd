"""Copies are found across parts and classes, exact ones by content and near ones by what they look like."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ramify.config.rules import DataConfig
from ramify.data.duplicates import copies, copies_line, near_copies
from ramify.data.pictures import Part, PictureSet
from ramify.data.sources import load_pictures
from tests.data.making import encoded, write_tree


def photo(seed: int, side: int = 32) -> Image.Image:
    """Smooth noise, as photographs are."""
    random = np.random.default_rng(seed)
    return Image.fromarray(random.integers(0, 256, (6, 6, 3), np.uint8)).resize((side, side), Image.Resampling.BICUBIC)


def as_jpeg(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=70)
    return file.getvalue()


@pytest.fixture
def pictures(tmp_path: Path) -> PictureSet:
    files = {
        f"{part}/{name}/{i}.png": encoded(photo(100 * p + 10 * n + i))
        for p, part in enumerate(("train", "test"))
        for n, name in enumerate("ab")
        for i in range(5)
    }
    files["test/a/leak.png"] = files["train/a/3.png"]
    files["train/b/other.png"] = files["train/a/1.png"]
    files["train/a/twice.png"] = files["train/a/2.png"]  # no leak: one part, one class
    files["test/b/saved.jpg"] = as_jpeg(photo(12).resize((40, 40)))
    return load_pictures(DataConfig(source=str(write_tree(tmp_path, files)), size=32))


def parts_of(pictures: PictureSet) -> dict[str, Part]:
    return {"train": pictures.train, "test": pictures.test}


def test_exact_copies_are_named_with_their_parts_and_classes(pictures: PictureSet) -> None:
    found = copies(pictures.files, pictures.classes, parts_of(pictures))
    assert [each.files for each in found] == [
        ("train/a/1.png", "train/b/other.png"),
        ("train/a/3.png", "test/a/leak.png"),
    ]
    assert [(each.leaks, each.disagrees) for each in found] == [(False, True), (True, False)]
    line = copies_line(found)
    assert line is not None
    assert "1 in more than one part, 1 in more than one class" in line
    assert copies_line(()) is None


def test_near_copies_are_found_through_scaling_and_saving(pictures: PictureSet) -> None:
    found = near_copies(pictures.files, pictures.classes, parts_of(pictures))
    assert ("train/b/2.png", "test/b/saved.jpg") in [each.files for each in found]
    assert len(found) == 3  # and the exact ones, nothing else
