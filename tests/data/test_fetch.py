"""Downloads resume, go on to the next mirror, and end in the right bytes or in a sentence."""

import hashlib
import socket
from itertools import pairwise
from pathlib import Path

import pytest

from ramify.data.fetch import FILES, RemoteFile, fetch
from ramify.errors import RunError
from tests.data.making import cifar10_files, pixels, tar_bytes
from tests.data.site import Site

CONTENT = bytes(pixels(300_000))
NAME = "set.bin"


def remote(*mirrors: str, content: bytes = CONTENT) -> RemoteFile:
    return RemoteFile(NAME, f"md5:{hashlib.md5(content).hexdigest()}", mirrors)


def dead_address() -> str:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}"


def quickly(file: RemoteFile, folder: Path, mirror: str | None = None) -> bytes:
    return fetch(file, folder, mirror, pauses=(0.0, 0.0)).read_bytes()


def leftovers(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {NAME, f"{NAME}.lock"}


def test_a_file_is_fetched_once_and_its_progress_reported(site: Site, tmp_path: Path) -> None:
    site.files[NAME] = CONTENT
    reports: list[tuple[str, int, int | None, str]] = []
    path = fetch(remote(site.address), tmp_path / "new", progress=lambda *report: reports.append(report))
    assert path == tmp_path / "new" / NAME
    assert path.read_bytes() == CONTENT
    assert reports[0] == (NAME, 0, len(CONTENT), "bytes")
    assert reports[-1] == (NAME, len(CONTENT), len(CONTENT), "bytes")
    assert all(a[1] <= b[1] for a, b in pairwise(reports))
    fetch(remote(site.address), tmp_path / "new")
    assert len(site.asked) == 1
    assert leftovers(path.parent) == set()


def test_a_dropped_connection_is_resumed_where_it_stopped(site: Site, tmp_path: Path) -> None:
    site.files[NAME], site.drops[NAME] = CONTENT, [100_000, 50_000]
    assert quickly(remote(site.address), tmp_path) == CONTENT
    assert site.asked == [(NAME, None), (NAME, "bytes=100000-"), (NAME, "bytes=150000-")]
    assert site.sent == len(CONTENT)


def test_a_later_run_resumes_too(site: Site, tmp_path: Path) -> None:
    site.files[NAME], site.drops[NAME] = CONTENT, [100_000]
    with pytest.raises(RunError, match="the connection dropped after 100000"):
        fetch(remote(site.address), tmp_path, pauses=())
    assert (tmp_path / f"{NAME}.part").read_bytes() == CONTENT[:100_000]
    assert not (tmp_path / NAME).exists()
    assert quickly(remote(site.address), tmp_path) == CONTENT
    assert site.sent == len(CONTENT)
    assert leftovers(tmp_path) == set()


def test_a_connection_that_keeps_dropping_is_used_as_long_as_it_brings_bytes(site: Site, tmp_path: Path) -> None:
    site.files[NAME], site.drops[NAME] = CONTENT, [30_000] * 9
    assert quickly(remote(site.address), tmp_path) == CONTENT
    assert len(site.asked) == 10


def test_a_connection_that_brings_nothing_is_given_up(site: Site, tmp_path: Path) -> None:
    site.files[NAME], site.drops[NAME] = CONTENT, [0] * 99
    with pytest.raises(RunError, match="the connection dropped"):
        quickly(remote(site.address), tmp_path)
    assert len(site.asked) == 3


def test_a_server_that_ignores_the_range_is_read_from_the_start(site: Site, tmp_path: Path) -> None:
    site.files[NAME], site.drops[NAME], site.knows_range = CONTENT, [100_000], False
    assert quickly(remote(site.address), tmp_path) == CONTENT
    assert site.asked[1] == (NAME, "bytes=100000-")


def test_a_server_that_refuses_the_range_is_read_from_the_start(site: Site, tmp_path: Path) -> None:
    site.files[NAME], site.refuses_range = CONTENT, True
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT + b"more")
    assert quickly(remote(site.address), tmp_path) == CONTENT
    assert site.asked == [(NAME, f"bytes={len(CONTENT) + 4}-"), (NAME, None)]


def test_a_wrong_beginning_is_thrown_away(site: Site, tmp_path: Path) -> None:
    site.files[NAME] = CONTENT
    (tmp_path / f"{NAME}.part").write_bytes(b"something else")
    assert quickly(remote(site.address), tmp_path) == CONTENT
    assert site.asked == [(NAME, "bytes=14-"), (NAME, None)]


def test_a_damaged_file_is_fetched_again(site: Site, tmp_path: Path) -> None:
    site.files[NAME] = CONTENT
    (tmp_path / NAME).write_bytes(CONTENT[:-1])
    assert quickly(remote(site.address), tmp_path) == CONTENT


@pytest.mark.parametrize("content", [None, CONTENT[:-1] + b"?", b"<html>please log in</html>"])
def test_the_next_mirror_is_asked(site: Site, other_site: Site, tmp_path: Path, content: bytes | None) -> None:
    site.files.update({} if content is None else {NAME: content})
    other_site.files[NAME] = CONTENT
    assert quickly(remote(dead_address(), f"{site.address}/", other_site.address), tmp_path) == CONTENT
    assert len(site.asked) == 1
    assert leftovers(tmp_path) == set()


def test_when_all_mirrors_fail_each_is_named_with_its_reason(site: Site, other_site: Site, tmp_path: Path) -> None:
    other_site.files[NAME], dead = b"wrong", dead_address()
    with pytest.raises(RunError) as caught:
        quickly(remote(site.address, other_site.address, dead), tmp_path)
    message = str(caught.value)
    assert f"{site.address}/{NAME} (it answers 404 Not Found)" in message
    assert f"{other_site.address}/{NAME} (its checksum is wrong)" in message
    assert f"{dead}/{NAME} (" in message
    assert "refused" in message
    assert "data.mirror=<base address>" in message
    assert (caught.value.exit_code, message.count("\n"), "0x" in message) == (1, 0, False)
    assert not (tmp_path / NAME).exists()


def test_a_given_mirror_is_the_only_one_asked(site: Site, other_site: Site, tmp_path: Path) -> None:
    other_site.files[NAME] = CONTENT
    file = remote(other_site.address)
    with pytest.raises(RunError, match="404"):
        quickly(file, tmp_path, site.address)
    assert other_site.asked == []
    assert quickly(file, tmp_path, other_site.address + "/") == CONTENT


def test_an_address_that_is_none_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"set\.bin: could not be fetched from http:"):
        quickly(remote(), tmp_path, "http://")


def test_a_folder_that_cannot_be_written_is_a_sentence(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot be written"):
        quickly(remote(site.address), tmp_path / "file")


def test_a_real_format_survives_a_drop(site: Site, tmp_path: Path) -> None:
    content = tar_bytes(cifar10_files(), "gz")
    site.files[NAME], site.drops[NAME] = content, [len(content) // 2]
    assert quickly(remote(site.address, content=content), tmp_path) == content


def test_every_known_file_has_a_checksum_and_a_mirror() -> None:
    for files in FILES.values():
        for file in files:
            algorithm, _, digits = file.checksum.partition(":")
            assert len(bytes.fromhex(digits)) == hashlib.new(algorithm).digest_size
            assert file.mirrors
            assert all(mirror.startswith("http") and mirror.endswith("/") for mirror in file.mirrors)
