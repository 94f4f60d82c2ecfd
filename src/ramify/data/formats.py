"""Parsers for the files in which the well-known data sets are published.

Each takes the paths of a set's files. CIFAR is read in its binary version, since the Python version is a pickle.
"""

import gzip
import math
import struct
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from ramify.data.archive import members
from ramify.data.decode import Decoded, Pixels, Reading, channels_first, decoding
from ramify.data.listing import is_picture
from ramify.data.pictures import Part, PictureSet
from ramify.errors import DataError

CIFAR_SHAPE = (3, 32, 32)
CIFAR10_TRAIN = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
IDX_IMAGES, IDX_LABELS = 0x0803, 0x0801  # unsigned bytes in 3 dimensions and in 1
_DIGITS = tuple(str(digit) for digit in range(10))
FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


def read_cifar10(paths: Sequence[Path]) -> PictureSet:
    """CIFAR-10 from its one file ``cifar-10-binary.tar.gz``.

    Raises:
        DataError: the archive is damaged or lacks a file, or a file has another length or a wrong label.
    """
    return _read_cifar(paths, "batches.meta.txt", CIFAR10_TRAIN, "test_batch.bin", label_bytes=1)


def read_cifar100(paths: Sequence[Path]) -> PictureSet:
    """CIFAR-100 with its 100 fine classes from its one file ``cifar-100-binary.tar.gz``; see :func:`read_cifar10`."""
    return _read_cifar(paths, "fine_label_names.txt", ("train.bin",), "test.bin", label_bytes=2)


def _read_cifar(
    paths: Sequence[Path], names: str, train: tuple[str, ...], test: str, *, label_bytes: int
) -> PictureSet:
    (path,) = paths
    needed = {names, *train, test}
    contents = members(path, lambda name: PurePosixPath(name).name in needed)
    files = {PurePosixPath(name).name: content for name, content in contents}
    _check_published(sorted(needed - files.keys()), path)
    classes = tuple(_lines(files[names], f"{path}: {names}"))
    parts = {name: cifar_records(files[name], f"{path}: {name}", label_bytes, len(classes)) for name in (*train, test)}
    images = torch.cat([parts[name].images for name in train])
    labels = torch.cat([parts[name].labels for name in train])
    return PictureSet(Part(images, labels), parts[test], classes)


def cifar_records(content: bytes, name: str, label_bytes: int, classes: int) -> Part:
    """Pictures ``[3, 32, 32]`` of a CIFAR batch: records of labels, of which the last is used, and 3,072 bytes.

    Raises:
        DataError: ``content`` is not a whole number of records, or a label is not below ``classes``.
    """
    length = label_bytes + 3072
    if not content or len(content) % length:
        raise DataError(f"{name}: got {len(content)} bytes; accepted: a whole number of records of {length} bytes")
    records = np.frombuffer(content, dtype=np.uint8).reshape(-1, length)
    labels = torch.from_numpy(records[:, label_bytes - 1].astype(np.int64))
    _check_labels(labels, name, classes)
    images = torch.from_numpy(records[:, label_bytes:].copy()).reshape(-1, *CIFAR_SHAPE)
    return Part(images, labels)


def read_mnist(paths: Sequence[Path]) -> PictureSet:
    """MNIST from its four files: training images and labels, test images and labels.

    Raises:
        DataError: a file is damaged or of another kind, or images and labels differ in number.
    """
    return _read_idx(paths, _DIGITS)


def read_fashion_mnist(paths: Sequence[Path]) -> PictureSet:
    """Fashion-MNIST from its four files; see :func:`read_mnist`."""
    return _read_idx(paths, FASHION)


def _read_idx(paths: Sequence[Path], classes: tuple[str, ...]) -> PictureSet:
    train_images, train_labels, test_images, test_labels = paths
    train = _idx_part(train_images, train_labels, len(classes))
    return PictureSet(train, _idx_part(test_images, test_labels, len(classes)), classes)


def _idx_part(images_path: Path, labels_path: Path, classes: int) -> Part:
    images = idx_images(_gunzip(images_path), str(images_path))
    labels = idx_labels(_gunzip(labels_path), str(labels_path), classes)
    if len(images) != len(labels):
        raise DataError(f"{labels_path}: got {len(labels)} labels; accepted: {len(images)}, as {images_path} has")
    return Part(images, labels)


def idx_images(content: bytes, name: str) -> torch.Tensor:
    """uint8 ``[N, 1, H, W]`` from an IDX file of pictures."""
    count, height, width = _idx_header(content, name, IDX_IMAGES, 3)
    pixels = np.frombuffer(content, dtype=np.uint8, offset=16).copy()
    return torch.from_numpy(pixels).reshape(count, 1, height, width)


def idx_labels(content: bytes, name: str, classes: int) -> torch.Tensor:
    """int64 ``[N]`` below ``classes`` from an IDX file of labels."""
    _idx_header(content, name, IDX_LABELS, 1)
    labels = torch.from_numpy(np.frombuffer(content, dtype=np.uint8, offset=8).astype(np.int64))
    _check_labels(labels, name, classes)
    return labels


def _idx_header(content: bytes, name: str, magic: int, dimensions: int) -> tuple[int, ...]:
    start = 4 + 4 * dimensions
    if len(content) < start:
        raise DataError(f"{name}: got {len(content)} bytes; accepted: an IDX file, with a header of {start} bytes")
    got, *shape = struct.unpack(f">{1 + dimensions}I", content[:start])
    if got != magic:
        raise DataError(f"{name}: got the magic number 0x{got:08x}; accepted: 0x{magic:08x}")
    length = start + math.prod(shape)
    if len(content) != length or 0 in shape:
        raise DataError(f"{name}: got {len(content)} bytes for {'x'.join(map(str, shape))}; accepted: {length}")
    return tuple(shape)


def _gunzip(path: Path) -> bytes:
    try:
        with gzip.open(path) as file:
            return file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be unpacked ({error}); accepted: a whole .gz file") from error


def read_tiny_imagenet(paths: Sequence[Path]) -> PictureSet:
    """Tiny ImageNet from its one file ``tiny-imagenet-200.zip``: RGB pictures, classes named by their WordNet ids.

    Its validation pictures are the test part, since the labels of its own test pictures are not public.

    Raises:
        DataError: the archive is damaged, lacks a list, or its lists and pictures do not fit together.
    """
    (path,) = paths
    contents = members(path, lambda name: _is_tiny(_below(name)))
    files = {_below(name): content for name, content in contents}
    _check_published([name for name in (_WNIDS, _ANNOTATIONS) if name not in files], path)
    classes = tuple(sorted(_lines(files[_WNIDS], f"{path}: {_WNIDS}")))
    annotations = _lines(files[_ANNOTATIONS], f"{path}: {_ANNOTATIONS}")
    label_of = {wnid: label for label, wnid in enumerate(classes)}
    train = [(name, name.split("/")[1]) for name in sorted(files) if name.startswith("train/")]
    test = sorted(_annotation(line, f"{path}: {_ANNOTATIONS}") for line in annotations)
    _check_published([name for name, _ in test if name not in files][:1], path)
    for name, wnid in (*train, *test):
        if wnid not in label_of:
            raise DataError(f"{path}: {name} got the class {wnid}; accepted: one that {_WNIDS} names")
    empty = sorted(set(classes) - {wnid for _, wnid in train})
    if empty:
        raise DataError(f"{path}: class {empty[0]} has no training pictures; accepted: at least one")
    pictures = ((number, f"{path}: {name}", files[name]) for number, (name, _) in enumerate((*train, *test)))
    with decoding(pictures, Reading()) as decoded:
        images = _stack(decoded)
    labels = torch.tensor([label_of[wnid] for _, wnid in (*train, *test)])
    cut = len(train)
    return PictureSet(Part(images[:cut], labels[:cut]), Part(images[cut:], labels[cut:]), classes)


_WNIDS, _ANNOTATIONS = "wnids.txt", "val/val_annotations.txt"


def _below(name: str) -> str:
    """A member's name inside the enclosing folder."""
    return name.partition("/")[2]


def _is_tiny(name: str) -> bool:
    match name.split("/"):
        case ["train", _, "images", _] | ["val", "images", _]:
            return is_picture(name)
        case _:
            return name in (_WNIDS, _ANNOTATIONS)


def _annotation(line: str, name: str) -> tuple[str, str]:
    picture, *rest = line.split("\t")
    if not rest:
        raise DataError(f"{name}: got the line {line!r}; accepted: a file, a tab, and its class")
    return f"val/images/{picture}", rest[0]


def _check_published(missing: Sequence[str], path: Path) -> None:
    if missing:
        raise DataError(f"{path}: got no {', '.join(missing)} in it; accepted: the archive as published")


def _lines(content: bytes, name: str) -> list[str]:
    try:
        lines = [line.strip() for line in content.decode("utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: is not text ({error})") from error
    return [line for line in lines if line]


def _check_labels(labels: torch.Tensor, name: str, classes: int) -> None:
    highest = int(labels.max())
    if highest >= classes:
        raise DataError(f"{name}: got the label {highest}; accepted: 0 to {classes - 1}")


def _stack(pictures: Iterable[tuple[int, Decoded | DataError]]) -> torch.Tensor:
    """Decoded pictures of a known set as uint8 ``[N, C, H, W]``: C is 1 if all are gray, else 3."""
    decoded: list[Pixels] = []
    for number, picture in pictures:
        if isinstance(picture, DataError):
            raise picture
        assert picture.pixels is not None, "known sets have 8 bits"
        if decoded and picture.pixels.shape[:2] != decoded[0].shape[:2]:
            raise DataError(f"picture {number}: got another size than those before; accepted: one size")
        decoded.append(picture.pixels)
    channels = 1 if all(picture.ndim == 2 for picture in decoded) else 3
    whole = np.empty((len(decoded), channels, *decoded[0].shape[:2]), dtype=np.uint8)
    for i in range(len(decoded)):
        whole[i] = channels_first(decoded[i])
        decoded[i] = decoded[i][:0].copy()  # memory holds the set about once
    return torch.from_numpy(whole)
