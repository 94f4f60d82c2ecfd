"""Nothing outside a test's own folder is written or read, and no proxy stands before the local server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.data.site import Site, serving


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("beside") / "cache"
    monkeypatch.setenv("RAMIFY_CACHE", str(folder))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return folder


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as running:
        yield running


@pytest.fixture
def other_site() -> Iterator[Site]:
    with serving() as running:
        yield running
