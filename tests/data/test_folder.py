"""Folders and archives of them: the same pictures either way, and a sentence for everything that is wrong."""

import io
import lzma
import os
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ramify.config.rules import DataConfig
from ramify.data.folder import load_path
from ramify.data.sources import load_pictures
from ramify.errors import DataError
from tests.data.making import encoded, picture, pixels, same, tar_bytes, tree, values, write_tree, zip_bytes

ARCHIVES: dict[str, Callable[[Mapping[str, bytes]], bytes]] = {
    "set.tar": tar_bytes,
    "set.tar.gz": lambda files: tar_bytes(files, "gz"),
    "set.tgz": lambda files: tar_bytes(files, "gz"),
    "set.tar.xz": lambda files: tar_bytes(files, "xz"),
    "set.zip": zip_bytes,
}


def problem(path: Path, **data: object) -> str:
    with pytest.raises(DataError) as caught:
        load_pictures(DataConfig.model_validate({"source": str(path), **data}))
    assert caught.value.exit_code == 2
    return str(caught.value)


# --- what is read -------------------------------------------------------------------------------------


def test_a_folder_gives_its_pictures_in_the_order_of_their_names(tmp_path: Path) -> None:
    pictures = load_path(write_tree(tmp_path / "set", tree()))
    assert pictures.classes == ("cat", "dog")
    assert pictures.train.labels.tolist() == [0, 0, 0, 1, 1]
    assert pictures.train.images[:, 0, 0, 0].tolist() == [0, 10, 20, 30, 40]
    assert pictures.test.labels.tolist() == [0, 1, 1]
    assert pictures.test.images[:, 2, 7, 7].tolist() == [50, 60, 70]
    assert (pictures.train.images.dtype, pictures.train.labels.dtype) == (torch.uint8, torch.int64)


@pytest.mark.parametrize("enclosing", ["", "set/", "a/b/"])
@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_gives_what_its_folder_gives(tmp_path: Path, name: str, enclosing: str) -> None:
    whole = load_path(write_tree(tmp_path / "set", tree()))
    backwards = dict(reversed([(enclosing + file, content) for file, content in tree().items()]))
    (tmp_path / name).write_bytes(ARCHIVES[name](backwards))
    assert same(load_path(tmp_path / name), whole)


def test_pixels_are_what_was_stored(tmp_path: Path) -> None:
    stored = pixels(4, 9, 12, 3)
    files = {f"{'ab'[i // 2]}/{i}.png": encoded(Image.fromarray(stored[i])) for i in range(4)}
    images = load_path(write_tree(tmp_path, files)).train.images
    assert images.permute(0, 2, 3, 1).numpy().tolist() == stored.tolist()


@pytest.mark.parametrize("prefix", ["", "train/"])
def test_without_a_test_part_a_fixed_share_is_held_out(tmp_path: Path, prefix: str) -> None:
    path = write_tree(tmp_path, tree({f"{prefix}cat": 10, f"{prefix}dog": 5}))
    first = load_pictures(DataConfig(source=str(path), test_fraction=0.4))
    held = first.test.labels.bincount().tolist()
    assert 2 <= held[0] <= 6  # four asked for, within a half
    assert 1 <= held[1] <= 3
    assert len(first.train) + len(first.test) == 15
    assert same(first, load_pictures(DataConfig(source=str(path), test_fraction=0.4)))


def test_what_is_not_a_picture_of_a_class_is_passed_over(tmp_path: Path) -> None:
    files = tree()
    whole = load_path(write_tree(tmp_path / "plain", files))
    extra = {
        "README.txt": b"-",
        "cover.png": b"-",
        "train/stray.png": b"-",
        "train/cat/notes.md": b"-",
        "train/cat/.hidden.png": b"-",
        ".git/x/1.png": b"-",
        "__MACOSX/train/cat/._0.png": b"-",
    }
    write_tree(tmp_path / "more", {**extra, **files})
    assert same(load_path(tmp_path / "more"), whole)
    for name, pack in ARCHIVES.items():
        (tmp_path / name).write_bytes(pack({f"set/{file}": content for file, content in {**extra, **files}.items()}))
        assert same(load_path(tmp_path / name), whole)


def test_links_in_a_folder_are_followed_and_never_in_circles(tmp_path: Path) -> None:
    write_tree(tmp_path / "far", {"1.png": picture(7)})
    path = write_tree(tmp_path / "set", {"cat/1.png": picture(1), "cat/2.png": picture(2)})
    (path / "dog").symlink_to(tmp_path / "far")
    (path / "cat" / "again").symlink_to(path)
    (path / "cat" / "broken.png").symlink_to(path / "nowhere")
    assert load_path(path).train.images[:, 0, 0, 0].tolist() == [1, 2, 7]


def test_an_archive_writes_nothing_and_reaches_nowhere(tmp_path: Path) -> None:
    buffer = io.BytesIO(tar_bytes({**tree(), "../out/1.png": picture(), "/abs/1.txt": b""}))
    with tarfile.open(fileobj=buffer, mode="a:") as tar:
        for name, kind in (("train/cat/l.png", tarfile.SYMTYPE), ("train/cat/d.png", tarfile.CHRTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/hostname"
            tar.addfile(member)
    box = tmp_path / "box"
    box.mkdir()
    (box / "set.tar").write_bytes(buffer.getvalue())
    pictures = load_path(box / "set.tar")
    assert len(pictures.train) == 5
    assert [entry.name for entry in box.iterdir()] == ["set.tar"]
    assert not (tmp_path / "out").exists()


# --- how a picture is decoded -------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["L", "1", "LA"])
def test_gray_pictures_have_one_channel(tmp_path: Path, mode: str) -> None:
    content = picture(200 if mode != "1" else 255, mode=mode)
    pictures = load_path(write_tree(tmp_path, {"a/1.png": content, "b/1.png": content}))
    assert pictures.shape == (1, 8, 8)
    assert values(pictures.train.images) == {255 if mode == "1" else 200}


@pytest.mark.parametrize(
    ("mode", "kind", "suffix"),
    [("P", "PNG", "png"), ("RGBA", "PNG", "PNG"), ("CMYK", "JPEG", "jpeg"), ("P", "GIF", "gif"), ("RGB", "BMP", "bmp")],
)
def test_one_picture_in_color_makes_all_three_channels(tmp_path: Path, mode: str, kind: str, suffix: str) -> None:
    files = {"a/1.png": picture(90, mode="L"), f"b/1.{suffix}": picture(90, mode=mode, kind=kind)}
    pictures = load_path(write_tree(tmp_path, files))
    assert pictures.shape == (3, 8, 8)
    assert pictures.train.images.float().sub(90).abs().max() <= 3


def test_a_picture_is_turned_upright(tmp_path: Path) -> None:
    lying = np.zeros((8, 16), dtype=np.uint8)
    lying[:, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise
    content = encoded(Image.fromarray(lying), "PNG", exif=exif.tobytes())
    images = load_path(write_tree(tmp_path, {"a/1.png": content, "b/1.png": content})).train.images
    assert images.shape == (2, 1, 16, 8)
    assert images[0, 0, :, 0].tolist() == [255] * 8 + [0] * 8


@pytest.mark.parametrize(("size", "shape"), [(8, (3, 8, 8)), ((12, 10), (3, 12, 10))])
def test_data_size_brings_pictures_to_one_size(tmp_path: Path, size: int | list[int], shape: tuple[int, ...]) -> None:
    files = {"a/1.png": picture(9, (30, 20)), "a/2.png": picture(9, (8, 40)), "b/1.png": picture(9, (3, 5))}
    files["b/2.png"] = picture(9)
    pictures = load_pictures(DataConfig.model_validate({"source": str(write_tree(tmp_path, files)), "size": size}))
    assert pictures.shape == shape
    assert values(pictures.train.images) == {9}


def test_scaling_keeps_the_middle_and_the_shape(tmp_path: Path) -> None:
    wide = np.zeros((16, 48), dtype=np.uint8)
    wide[:, 16:32] = 255
    content = encoded(Image.fromarray(wide))
    path = write_tree(tmp_path, {"a/1.png": content, "b/1.png": content})
    assert bool((load_path(path, (8, 8)).train.images[:, :, :, 2:6] == 255).all())


# --- what is wrong ------------------------------------------------------------------------------------


def both_ways(tmp_path: Path, files: Mapping[str, bytes]) -> list[Path]:
    """A tree as a folder, a tar and a zip."""
    paths = [write_tree(tmp_path / "bad", files), tmp_path / "bad.tar.xz", tmp_path / "bad.zip"]
    paths[1].write_bytes(tar_bytes(files, "xz"))
    paths[2].write_bytes(zip_bytes(files))
    return paths


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({"train/cat/z.png": picture(size=(9, 8))}, ("train/cat/z.png", "8x9", "8x8", "data.size")),
        ({"train/cat/z.png": b"hello"}, ("train/cat/z.png", "not a picture")),
        ({"train/cat/z.jpg": picture(size=(64, 64), kind="JPEG")[:300]}, ("train/cat/z.jpg", "cannot be decoded")),
        ({"train/cat/z.png": picture(size=(64, 64))[:60]}, ("train/cat/z.png", "cannot be decoded")),
        ({"train/cat/z.png": b""}, ("train/cat/z.png", "cannot be decoded")),
        ({"test/cow/1.png": picture()}, ("class cow", "not in train")),
    ],
)
def test_a_fault_is_named_with_its_place(tmp_path: Path, extra: dict[str, bytes], said: tuple[str, ...]) -> None:
    for path in both_ways(tmp_path, {**tree(), **extra}):
        message = problem(path)
        assert all(words in message for words in (str(path), *said)), message
        if path.is_file() and "/z." in said[0] and "data.size" not in said:
            assert f"{path}: {said[0]}" in message


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (tree({"cat": 3}), "the one class cat"),
        (tree({"train/cat": 3, "test/cat": 3}), "the one class cat"),
        ({"notes/a.txt": b""}, "got no pictures"),
        ({"1.png": picture(), "2.png": picture()}, "no folders of classes"),
        ({**tree({"train/a": 2, "train/b": 2}), "test/1.png": picture(), "test/2.png": picture()}, "test/<class>"),
        (tree({"test/a": 2, "test/b": 1, "val/a": 1, "val/b": 1}), "without train"),
        ({name: picture(size=(7, 30)) for name in tree()}, "sides of at least 8"),
        (tree({"cat": 3, "dog": 1}), "class dog: got 1 picture"),
    ],
)
def test_a_tree_of_another_kind_is_refused(tmp_path: Path, files: dict[str, bytes], said: str) -> None:
    for path in both_ways(tmp_path, files):
        if said == "test/<class>" and path.is_file():
            continue  # an archive need not have an entry for an empty folder
        message = problem(path)
        assert said in message
        assert str(path) in message or "class dog" in message


def test_an_empty_class_is_named(tmp_path: Path) -> None:
    path = write_tree(tmp_path / "set", tree())
    (path / "train" / "cow").mkdir()
    write_tree(path, {"train/emu/notes.txt": b""})
    with tarfile.open(tmp_path / "set.tar", "w") as tar:
        tar.add(path, "set")
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for file in path.rglob("*"):
            archive.write(file, file.relative_to(path))
    for source in (path, tmp_path / "set.tar", tmp_path / "set.zip"):
        message = problem(source)
        assert str(source) in message
        assert "class cow has no training pictures" in message
        assert "class emu has no training pictures" in message


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    path = write_tree(tmp_path, {**tree(), "train/cat/big.png": picture(size=(100, 100))})
    assert f"{path / 'train/cat/big.png'}: cannot be decoded" in problem(path)


@pytest.mark.parametrize("name", ARCHIVES)
def test_a_cut_archive_is_refused_wherever_it_is_cut(tmp_path: Path, name: str) -> None:
    content = ARCHIVES[name]({f"set/{file}": data for file, data in tree().items()})
    # A plain tar is padded with zeros behind its end: cutting there takes nothing away.
    end = len(content) if name != "set.tar" else len(content.rstrip(b"\0")) // 512 * 512
    cuts = {end * i // 16 for i in range(16)} | {512 * i for i in range(end // 512)}
    for cut in sorted(cuts if name == "set.tar" else {end * i // 16 for i in range(16)}):
        (tmp_path / name).write_bytes(content[:cut])
        message = problem(tmp_path / name)
        assert f"{tmp_path / name}: cannot be read as an archive" in message, cut


@pytest.mark.parametrize("name", ["set.tar.gz", "set.tar.xz", "set.zip"])
def test_a_flipped_byte_in_an_archive_is_noticed(tmp_path: Path, name: str) -> None:
    content = bytearray(ARCHIVES[name]({"dog/a.png": picture(), "cat/a.png": picture() + bytes(pixels(5000))}))
    content[len(content) // 2] ^= 0xFF
    (tmp_path / name).write_bytes(content)
    assert f"{tmp_path / name}: cannot be read as an archive" in problem(tmp_path / name)


def test_a_damaged_header_does_not_end_a_tar_silently(tmp_path: Path) -> None:
    content = bytearray(tar_bytes(tree()))
    content[4 * 1024 + 5] ^= 0xFF
    (tmp_path / "set.tar.xz").write_bytes(lzma.compress(content))
    assert "in the middle" in problem(tmp_path / "set.tar.xz")


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(picture())
    assert f"{tmp_path / 'one.png'}: cannot be read as an archive" in problem(tmp_path / "one.png")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")
def test_a_device_is_refused() -> None:
    assert "/dev/null: is no folder and no regular file" in problem(Path("/dev/null"))
