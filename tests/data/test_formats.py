"""The parsers give back what was put into the real formats, and name the file that is wrong."""

import gzip
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ramify.data.formats import (
    cifar_records,
    idx_images,
    idx_labels,
    read_cifar10,
    read_cifar100,
    read_mnist,
    read_tiny_imagenet,
)
from ramify.errors import DataError
from tests.data.making import cifar10_files, cifar100_files, idx, mnist_files, pixels, tar_bytes, tiny_files, zip_bytes


@given(st.integers(1, 5), st.sampled_from([1, 2]), st.integers(0, 100))
def test_cifar_records_come_back(count: int, label_bytes: int, seed: int) -> None:
    records = pixels(count, label_bytes + 3072, seed=seed)
    part = cifar_records(records.tobytes(), "a.bin", label_bytes, 256)
    assert part.images.reshape(count, -1).tolist() == records[:, label_bytes:].tolist()
    assert part.labels.tolist() == records[:, label_bytes - 1].tolist()


@given(st.integers(1, 5), st.integers(1, 9), st.integers(1, 9))
def test_idx_files_come_back(count: int, height: int, width: int) -> None:
    stored = pixels(count, height, width)
    assert torch.equal(idx_images(idx(stored), "a"), torch.from_numpy(stored)[:, None])
    assert idx_labels(idx(stored[:, 0, 0]), "a", 256).tolist() == stored[:, 0, 0].tolist()


@given(st.binary(max_size=40))
def test_arbitrary_bytes_are_an_error_and_nothing_else(content: bytes) -> None:
    for parse in (
        lambda: cifar_records(content, "name", 1, 10),
        lambda: idx_images(content, "name"),
        lambda: idx_images(struct.pack(">I", 0x0803) + content, "name"),
    ):
        with pytest.raises(DataError, match=r"^name: got"):
            parse()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (idx(np.array([1, 10], dtype=np.uint8)), "got the label 10; accepted: 0 to 9"),
        (idx(pixels(2, 3, 3)), "got the magic number 0x00000803; accepted: 0x00000801"),
        (idx(np.array([1, 2], dtype=np.uint8))[:-1], "got 9 bytes for 2; accepted: 10"),
        (struct.pack(">II", 0x0801, 0), "accepted: 8"),
        (b"", "got 0 bytes"),
    ],
)
def test_labels_are_checked(content: bytes, said: str) -> None:
    with pytest.raises(DataError) as caught:
        idx_labels(content, "labels.gz", 10)
    assert str(caught.value).startswith("labels.gz: ")
    assert said in str(caught.value)


def test_a_cifar_label_out_of_range_is_named() -> None:
    with pytest.raises(DataError, match=r"batch\.bin: got the label 10; accepted: 0 to 9"):
        cifar_records(bytes([10]) + bytes(3072), "batch.bin", 1, 10)


def cifar_archive(path: Path, files: Mapping[str, bytes]) -> Path:
    path.write_bytes(tar_bytes(files, "gz"))
    return path


def test_cifar10_joins_its_batches_in_order(tmp_path: Path) -> None:
    files = cifar10_files()
    shuffled = dict(reversed(files.items()))
    pictures = read_cifar10([cifar_archive(tmp_path / "c.tar.gz", shuffled)])
    assert (pictures.shape, len(pictures.train), len(pictures.test)) == ((3, 32, 32), 100, 20)
    assert pictures.classes == tuple(f"class{i}" for i in range(10))
    third = np.frombuffer(files["cifar-10-batches-bin/data_batch_3.bin"], np.uint8).reshape(-1, 3073)
    assert pictures.train.images[40:60].reshape(20, -1).tolist() == third[:, 1:].tolist()


def test_cifar100_takes_the_fine_labels(tmp_path: Path) -> None:
    pictures = read_cifar100([cifar_archive(tmp_path / "c.tar.gz", cifar100_files())])
    assert (pictures.shape, len(pictures.classes), pictures.classes[7]) == ((3, 32, 32), 100, "fine7")
    assert pictures.test.labels[:101].tolist() == [*range(100), 0]


@pytest.mark.parametrize("missing", ["data_batch_3.bin", "batches.meta.txt", "test_batch.bin"])
def test_a_missing_member_is_named(tmp_path: Path, missing: str) -> None:
    files = {name: content for name, content in cifar10_files().items() if not name.endswith(missing)}
    with pytest.raises(DataError) as caught:
        read_cifar10([cifar_archive(tmp_path / "c.tar.gz", files)])
    assert f"{tmp_path / 'c.tar.gz'}: got no {missing}" in str(caught.value)


def test_a_cut_batch_is_named(tmp_path: Path) -> None:
    files = cifar10_files()
    files["cifar-10-batches-bin/data_batch_2.bin"] = files["cifar-10-batches-bin/data_batch_2.bin"][:-1]
    with pytest.raises(DataError, match=r"c\.tar\.gz: data_batch_2\.bin: got 61459 bytes"):
        read_cifar10([cifar_archive(tmp_path / "c.tar.gz", files)])


def write_all(folder: Path, files: Mapping[str, bytes]) -> list[Path]:
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in files]


def test_mnist_is_read_from_its_four_files(tmp_path: Path) -> None:
    pictures = read_mnist(write_all(tmp_path, mnist_files()))
    assert (pictures.shape, len(pictures.train), len(pictures.test)) == ((1, 28, 28), 30, 20)
    assert torch.equal(pictures.train.images[:, 0], torch.from_numpy(pixels(30, 28, 28)))


def test_mnist_with_labels_for_other_pictures_is_refused(tmp_path: Path) -> None:
    paths = write_all(tmp_path, mnist_files())
    with pytest.raises(DataError, match="got 20 labels; accepted: 30"):
        read_mnist([paths[0], paths[3], paths[2], paths[3]])


@pytest.mark.parametrize(
    "content", [b"no gzip", gzip.compress(bytes(1000), mtime=0)[:-4], b""], ids=["no gzip", "cut short", "empty"]
)
def test_a_damaged_gz_is_named(tmp_path: Path, content: bytes) -> None:
    paths = write_all(tmp_path, {**mnist_files(), "t10k-images-idx3-ubyte.gz": content})
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte\.gz: "):
        read_mnist(paths)


def tiny(path: Path, files: Mapping[str, bytes]) -> Path:
    path.write_bytes(zip_bytes(files))
    return path


def test_tiny_imagenet_takes_its_validation_pictures_for_the_test(tmp_path: Path) -> None:
    pictures = read_tiny_imagenet([tiny(tmp_path / "t.zip", tiny_files())])
    assert (pictures.shape, pictures.classes) == ((3, 64, 64), ("n01", "n02"))
    assert pictures.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert pictures.test.labels.tolist() == [1, 0]
    assert pictures.test.images[:, 0, 0, 0].tolist() == [200, 40]
    assert pictures.train.images[:, 2, 0, 0].tolist() == [40] * 3 + [200] * 3


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("wnids.txt", None, "got no wnids.txt"),
        ("wnids.txt", b"n01\n", "got the class n02"),
        ("wnids.txt", b"n01\nn02\nn03\n", "class n03 has no training pictures"),
        ("wnids.txt", b"\xff\xfe", "wnids.txt: is not text"),
        ("val/val_annotations.txt", b"val_9.JPEG\tn01\n", "got no val/images/val_9.JPEG"),
        ("val/val_annotations.txt", b"val_0.JPEG n01\n", "got the line 'val_0.JPEG n01'"),
        ("val/images/val_0.JPEG", b"\xff\xd8", "val/images/val_0.JPEG: cannot be decoded"),
    ],
)
def test_a_fault_in_tiny_imagenet_is_named(tmp_path: Path, name: str, content: bytes | None, said: str) -> None:
    files = tiny_files()
    del files[f"tiny-imagenet-200/{name}"]
    if content is not None:
        files[f"tiny-imagenet-200/{name}"] = content
    with pytest.raises(DataError) as caught:
        read_tiny_imagenet([tiny(tmp_path / "t.zip", files)])
    assert str(caught.value).startswith(f"{tmp_path / 't.zip'}: ")
    assert said in str(caught.value)
