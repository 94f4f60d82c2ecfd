"""Pictures of ``data.source``, in parts."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from ramify.config.rules import DataConfig
from ramify.data.cache import cache_folder, cached, digest
from ramify.data.decode import PictureSize, content_digest
from ramify.data.digits import load_digits
from ramify.data.fetch import FILES, Progress, RemoteFile, fetch
from ramify.data.fit import fit_set
from ramify.data.folder import load_path
from ramify.data.formats import read_cifar10, read_cifar100, read_fashion_mnist, read_mnist, read_tiny_imagenet
from ramify.data.pictures import Files, Part, PictureSet
from ramify.data.split import take, with_fold, with_test
from ramify.errors import DataError, nearest

Reader = Callable[[Sequence[Path]], PictureSet]
RemoteFiles = Mapping[str, tuple[RemoteFile, ...]]
CHW = tuple[int, int, int]

# Each named source: the function that reads it from its files (ramify.data.fetch.FILES).
SOURCES: dict[str, Reader] = {
    "digits": lambda paths: load_digits(),
    "cifar10": read_cifar10,
    "cifar100": read_cifar100,
    "mnist": read_mnist,
    "fashion_mnist": read_fashion_mnist,
    "tiny_imagenet": read_tiny_imagenet,
}


def load_pictures(
    config: DataConfig, progress: Progress | None = None, *, shape: CHW | None = None, files: RemoteFiles = FILES
) -> PictureSet:
    """The pictures of ``config.source``: a name of :data:`SOURCES`, else the path of a folder or archive.

    They are fetched, decoded or read from the cache, scaled to ``config.size``, given a test part if they have none
    (``config.fold``, or a split of ``config.test_fraction``, the same in every run), and limited to ``config.limit``
    pictures in each part.

    Args:
        config: the section ``data`` of a configuration.
        progress: reports downloads and decoding.
        shape: (C, H, W) of the pictures, in place of ``config.size``.
        files: the files of the named sources.

    Raises:
        DataError: the source is not known, or cannot be read as a labeled set.
        RunError: a file could not be fetched.

    Example:
        >>> pictures = load_pictures(DataConfig(source="digits", limit=100))
        >>> pictures.shape, len(pictures.train), len(pictures.test)
        ((1, 8, 8), 100, 100)
    """
    pictures = load_source(config, progress, shape=shape, files=files)
    if config.fold is not None:
        pictures = with_fold(pictures, config.fold)
    pictures = with_test(pictures, config.test_fraction)
    if config.limit is not None:
        parts = (pictures.train, pictures.test, pictures.valid)
        train, test, valid = (take(part, config.limit, pictures.classes) for part in parts)
        pictures = pictures.replaced(train, test, valid)
    return pictures


def load_source(
    config: DataConfig, progress: Progress | None = None, *, shape: CHW | None = None, files: RemoteFiles = FILES
) -> PictureSet:
    """All pictures of ``config.source``, in the parts that the source itself has; else as :func:`load_pictures`."""
    size: PictureSize | None = (config.size, config.size) if isinstance(config.size, int) else config.size
    if shape is not None:
        size = shape[1:]
    if config.source in SOURCES:
        problems = [
            f"data.{key}: got {getattr(config, key)!r}; accepted: null, as {config.source} is no folder"
            for key in ("labels", "group")
            if getattr(config, key) is not None
        ]
        if problems:
            raise DataError(*problems)
        remote = files.get(config.source, ())

        def build() -> PictureSet:
            # Sets have files of the same names, so each has a folder of its own.
            folder = cache_folder() / "files" / config.source
            whole = SOURCES[config.source]([fetch(file, folder, config.mirror, progress) for file in remote])
            return _named(whole if size is None else fit_set(whole, (whole.shape[0], *size)))

        pictures = cached(digest(config.source, size), digest([file.checksum for file in remote]), build)
    else:
        pictures = load_path(_existing(config.source), size, config, progress)
    return pictures if shape is None else fit_set(pictures, shape)


def _named(pictures: PictureSet) -> PictureSet:
    """The pictures of a known set, with a name for each and a digest of its pixels."""
    parts = {"train": pictures.train, "test": pictures.test}
    names = tuple(
        f"{part}/{number}" if len(pictures.test) else str(number)
        for part, pictures_of_part in parts.items()
        for number in range(len(pictures_of_part))
    )
    contents = (content_digest(image.tobytes()) for part in parts.values() for image in part.images.numpy())
    digests = torch.frombuffer(bytearray(b"".join(contents)), dtype=torch.uint8).view(len(names), -1)
    ids = torch.arange(len(names)).split([len(part) for part in parts.values()])
    train, test = (Part(part.images, part.labels, own) for part, own in zip(parts.values(), ids, strict=True))
    labels = torch.cat([part.labels for part in parts.values()])
    return PictureSet(train, test, pictures.classes, None, Files(names, digests, labels))


def _existing(source: str) -> Path:
    try:
        path = Path(source).expanduser()
        if path.exists():
            return path
    except (OSError, RuntimeError):  # a name that the system refuses, or the home of nobody
        pass
    raise DataError(
        f"data.source: got {source!r}, which is neither a known name nor a path that exists; accepted: "
        f"{', '.join(SOURCES)}, or the path of a folder, .tar or .zip{nearest(source.lower(), SOURCES)}"
    )
