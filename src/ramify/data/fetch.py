"""Files of the named data sets, fetched when missing.

Every file has a checksum and mirrors, and a download goes on where it stopped.
"""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ramify.errors import RunError
from ramify.files import cannot_write

PAUSES = (0.5, 1.0, 2.0)  # seconds before each further attempt that follows one without progress
TIMEOUTS = (10.0, 30.0)  # seconds to connect, and without a byte
_CHUNK = 1 << 18

Progress = Callable[[str, int, int | None, str], None]
"""Reports a download, or the decoding of a source: its name, how much is done, of how much (None while that is
unknown), and the unit, ``bytes`` or ``pictures``."""


@dataclass(frozen=True)
class RemoteFile:
    """A file to fetch, at ``<mirror>/<name>``: mirrors are tried in turn.

    ``checksum`` is ``md5:`` or ``sha256:`` and hexadecimal digits.
    """

    name: str
    checksum: str
    mirrors: tuple[str, ...]


_TORONTO = ("https://www.cs.toronto.edu/~kriz/", "https://cave.cs.toronto.edu/kriz/")
_MNIST = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")
_FASHION = (
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
)
_STANFORD = ("http://cs231n.stanford.edu/",)

# The files of each named source, in the order in which its parser takes them.
FILES: dict[str, tuple[RemoteFile, ...]] = {
    "cifar10": (RemoteFile("cifar-10-binary.tar.gz", "md5:c32a1d4ab5d03f1284b67883e8d87530", _TORONTO),),
    "cifar100": (RemoteFile("cifar-100-binary.tar.gz", "md5:03b5dce01913d631647c71ecec9e9cb8", _TORONTO),),
    "mnist": (
        RemoteFile("train-images-idx3-ubyte.gz", "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873", _MNIST),
        RemoteFile("train-labels-idx1-ubyte.gz", "md5:d53e105ee54ea40749a09fcbcd1e9432", _MNIST),
        RemoteFile("t10k-images-idx3-ubyte.gz", "md5:9fb629c4189551a2d022fa330f9573f3", _MNIST),
        RemoteFile("t10k-labels-idx1-ubyte.gz", "md5:ec29112dd5afa0611ce80d1b7f02629c", _MNIST),
    ),
    "fashion_mnist": (
        RemoteFile("train-images-idx3-ubyte.gz", "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d", _FASHION),
        RemoteFile("train-labels-idx1-ubyte.gz", "md5:25c81989df183df01b3e8a0aad5dffbe", _FASHION),
        RemoteFile("t10k-images-idx3-ubyte.gz", "md5:bef4ecab320f06d8554ea6380940ec79", _FASHION),
        RemoteFile("t10k-labels-idx1-ubyte.gz", "md5:bb300cfdad3c16e7a12a480ee83cd310", _FASHION),
    ),
    "tiny_imagenet": (RemoteFile("tiny-imagenet-200.zip", "md5:90528d7ca1a48142e341f4ef8d21d0de", _STANFORD),),
}


def fetch(
    file: RemoteFile,
    folder: Path,
    mirror: str | None = None,
    progress: Progress | None = None,
    pauses: Sequence[float] = PAUSES,
) -> Path:
    """The path of ``file`` in ``folder``, fetched first if it is missing or has another checksum.

    A download is kept as ``<name>.part`` and goes on where it stopped, in a later run too. If a resumed file has a
    wrong checksum, it is fetched once more from the start; then the next mirror is tried. Processes that fetch the
    same file wait for one another.

    Args:
        file: to fetch.
        folder: where it is kept.
        mirror: base address in place of the known ones.
        progress: reports the download.
        pauses: seconds before each further attempt on a mirror.

    Raises:
        RunError: no mirror gave the file, or it cannot be written.
    """
    path = folder / file.name
    if _is_whole(path, file):
        return path
    from filelock import FileLock

    mirrors = file.mirrors if mirror is None else (mirror,)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{file.name}.lock"):
            if not _is_whole(path, file):  # another process may have fetched it while this one waited
                _fetch_from_any(file, path, mirrors, progress, pauses)
    except OSError as error:
        raise cannot_write(path, error) from error
    return path


def _is_whole(path: Path, file: RemoteFile) -> bool:
    import pooch

    algorithm, _, checksum = file.checksum.partition(":")
    try:
        return path.is_file() and pooch.file_hash(str(path), alg=algorithm) == checksum
    except OSError:
        return False


def _fetch_from_any(
    file: RemoteFile, path: Path, mirrors: Sequence[str], progress: Progress | None, pauses: Sequence[float]
) -> None:
    """Fetch ``file`` to ``path`` from the first mirror that has it."""
    import requests

    part = path.with_name(file.name + ".part")
    failures: list[str] = []
    for mirror in mirrors:
        url, again = f"{mirror.rstrip('/')}/{file.name}", True
        while again:
            again = part.exists()  # what was begun may be damaged, and is then fetched from the start
            try:
                _download(url, part, file.name, progress, pauses)
                if _is_whole(part, file):
                    part.replace(path)
                    return
                part.unlink()
                reason = "its checksum is wrong"
            except requests.RequestException as error:
                again, reason = False, _reason(error)
        failures.append(f"{url} ({reason})")
    raise RunError(
        f"{file.name}: could not be fetched from {' nor from '.join(failures)}; "
        "accepted: a connection to one of these, or data.mirror=<base address> of a copy"
    )


def _download(url: str, part: Path, name: str, progress: Progress | None, pauses: Sequence[float]) -> None:
    """Download ``url`` to ``part``, going on where it stopped.

    Raises:
        requests.RequestException: every attempt failed.
        OSError: ``part`` cannot be written.
    """
    import requests

    left = iter(pauses)
    furthest = _bytes_in(part)
    while True:
        try:
            _attempt(url, part, name, progress)
            return
        except requests.RequestException as error:
            reached = _bytes_in(part)
            if reached > furthest:
                furthest, left = reached, iter(pauses)  # a connection that still brings bytes is not given up
            pause = next(left, None)
            if pause is None or not _may_pass(error):
                raise
            time.sleep(pause)


def _attempt(url: str, part: Path, name: str, progress: Progress | None) -> None:
    """Ask once for the rest of ``part``."""
    import requests
    import urllib3

    have = _bytes_in(part)
    # Without compression by the server, which would make resuming impossible.
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUTS) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable and have:
            part.unlink()
            raise requests.ConnectionError("it refuses to go on with what is there")
        response.raise_for_status()
        total = _number(response.headers.get("Content-Length"))
        if response.status_code == requests.codes.partial_content:
            sent = re.match(rf"bytes {have}-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
            if sent is None:
                part.unlink(missing_ok=True)
                raise requests.ConnectionError("it went on at another place than asked for")
            total = _number(sent[1])
        else:
            have = 0  # the server sends the whole file
        with part.open("ab" if have else "wb") as output:
            if progress:
                progress(name, have, total, "bytes")
            try:
                for chunk in response.raw.stream(_CHUNK, decode_content=False):
                    output.write(chunk)
                    have += len(chunk)
                    if progress:
                        progress(name, have, total, "bytes")
            except urllib3.exceptions.HTTPError as error:
                raise requests.ConnectionError(f"the connection dropped after {have} bytes") from error
    if total is not None and have < total:
        raise requests.ConnectionError(f"the connection dropped after {have} of {total} bytes")


def _may_pass(error: Exception) -> bool:
    """Whether asking again may help."""
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return error.response.status_code >= 500 or error.response.status_code in (408, 429)
    return isinstance(error, requests.ConnectionError | requests.Timeout)


def _reason(error: Exception) -> str:
    """A failure in a few words."""
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"it answers {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.Timeout):
        return "it does not answer in time"
    cause = error.args[0] if error.args else error
    # requests wraps what happened several times; the innermost has the system's words.
    while (inner := getattr(cause, "reason", None) or getattr(cause, "__cause__", None)) and inner is not cause:
        cause = inner
    text = re.sub(r"^<.*?>: |^\w*Connection\(.*?\): ", "", " ".join(str(cause).split()))
    return text or type(error).__name__


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


def _bytes_in(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0
