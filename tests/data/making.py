"""Small pictures, trees, archives, and data sets in their real formats."""

import gzip
import io
import lzma
import struct
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image

from ramify.config.rules import DataConfig
from ramify.data.augment import Augmentation, Border, changed, draw_changes, farthest
from ramify.data.pictures import PictureSet
from ramify.data.sources import load_pictures
from ramify.errors import DataError

TREE_SIZES = {"train/cat": 3, "train/dog": 2, "test/cat": 1, "test/dog": 2}


def augment(
    images: torch.Tensor,
    how: Augmentation,
    generator: torch.Generator,
    shift: int | None = None,
    border: Border = "zeros",
) -> torch.Tensor:
    """Draw the changes of a batch, and apply them."""
    reach = farthest(images.shape[2], shift)
    return changed(images, how, draw_changes(len(images), how, generator, reach).to(images.device), reach, border)


def picture(
    shade: int = 0, size: tuple[int, int] = (8, 8), mode: str = "RGB", kind: str = "PNG", **options: object
) -> bytes:
    """A picture of one shade; ``size`` is (height, width)."""
    image = Image.new("L", (size[1], size[0]), shade).convert(mode)
    return encoded(image, kind, **options)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def tree(sizes: Mapping[str, int] = TREE_SIZES, mode: str = "RGB") -> dict[str, bytes]:
    """Pictures in folders; each has a shade of its own."""
    names = [f"{folder}/{i}.png" for folder, count in sizes.items() for i in range(count)]
    return {name: picture(10 * shade, mode=mode) for shade, name in enumerate(names)}


def write_tree(root: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def tar_bytes(files: Mapping[str, bytes], compression: Literal["", "gz", "xz"] = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    plain = buffer.getvalue()
    match compression:
        case "gz":
            return gzip.compress(plain, mtime=0)
        case "xz":
            return lzma.compress(plain)
        case "":
            return plain


def zip_bytes(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def pixels(count: int, *shape: int, seed: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def cifar10_files(count: int = 20) -> dict[str, bytes]:
    """The members of cifar-10-binary.tar.gz with ``count`` pictures in each batch."""
    names = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    files = {}
    for seed, name in enumerate(names):
        records = pixels(count, 3073, seed=seed)
        records[:, 0] = np.arange(count) % 10
        files[f"cifar-10-batches-bin/{name}"] = records.tobytes()
    files["cifar-10-batches-bin/batches.meta.txt"] = "".join(f"class{i}\n" for i in range(10)).encode() + b"\n"
    return files


def cifar100_files() -> dict[str, bytes]:
    files = {}
    for seed, name in enumerate(("train.bin", "test.bin")):
        records = pixels(200, 3074, seed=seed)
        records[:, 1] = np.arange(200) % 100
        files[f"cifar-100-binary/{name}"] = records.tobytes()
    files["cifar-100-binary/fine_label_names.txt"] = "".join(f"fine{i}\n" for i in range(100)).encode()
    return files


def idx(array: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    magic = 0x0800 + array.ndim
    return struct.pack(f">{1 + array.ndim}I", magic, *array.shape) + array.tobytes()


def mnist_files() -> dict[str, bytes]:
    labels = (np.arange(30) % 10).astype(np.uint8)
    return {
        "train-images-idx3-ubyte.gz": gzip.compress(idx(pixels(30, 28, 28)), mtime=0),
        "train-labels-idx1-ubyte.gz": gzip.compress(idx(labels), mtime=0),
        "t10k-images-idx3-ubyte.gz": gzip.compress(idx(pixels(20, 28, 28, seed=1)), mtime=0),
        "t10k-labels-idx1-ubyte.gz": gzip.compress(idx(labels[:20]), mtime=0),
    }


def tiny_files() -> dict[str, bytes]:
    root = "tiny-imagenet-200"
    files = {f"{root}/wnids.txt": b"n02\nn01\n", f"{root}/test/images/test_0.JPEG": picture(size=(64, 64), kind="JPEG")}
    for wnid, shade in (("n01", 40), ("n02", 200)):
        files[f"{root}/train/{wnid}/{wnid}_boxes.txt"] = b"0 0 1 1"
        for i in range(3):
            mode = "L" if i == 0 else "RGB"  # as in the real one
            files[f"{root}/train/{wnid}/images/{wnid}_{i}.JPEG"] = picture(shade, (64, 64), mode, "JPEG")
    lines = ""
    for i, (wnid, shade) in enumerate((("n02", 200), ("n01", 40))):
        files[f"{root}/val/images/val_{i}.JPEG"] = picture(shade, (64, 64), "RGB", "JPEG")
        lines += f"val_{i}.JPEG\t{wnid}\t0\t0\t10\t10\n"
    files[f"{root}/val/val_annotations.txt"] = lines.encode()
    return files


def values(images: torch.Tensor) -> set[int]:
    """The different values of some pixels."""
    return set(images.flatten().tolist())


def same(a: PictureSet, b: PictureSet) -> bool:
    pairs = ((a.train, b.train), (a.test, b.test))
    return a.classes == b.classes and all(
        torch.equal(x.images, y.images) and torch.equal(x.labels, y.labels) for x, y in pairs
    )


FLAT = tree({"cat": 4, "dog": 4})
FORMS = ("folder", "tar", "zip")


def write_source(root: Path, files: Mapping[str, bytes], form: str) -> Path:
    if form == "folder":
        return write_tree(root / "set", files)
    root.mkdir(exist_ok=True)
    path = root / f"set.{form}"
    path.write_bytes(tar_bytes(files) if form == "tar" else zip_bytes(files))
    return path


def names(pictures: PictureSet, part: str = "train") -> list[str]:
    ids = getattr(pictures, part).ids
    assert ids is not None
    return [pictures.files.names[i] for i in ids.tolist()]


def skipped(pictures: PictureSet) -> dict[str, str]:
    return {file.name: file.reason for file in pictures.files.skipped}


def problem(path: Path, **data: object) -> str:
    with pytest.raises(DataError) as caught:
        load_pictures(DataConfig.model_validate({"source": str(path), **data}))
    return str(caught.value)
