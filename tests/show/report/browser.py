"""A headless Chromium for tests of pages: it watches for errors and for requests that leave the page."""

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


@dataclass
class Watched:
    """An open page, and everything that should not have happened on it."""

    page: Page
    faults: list[str] = field(default_factory=list)


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A browser that is closed at the end."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def opened(browser: Browser, file: Path, width: int = 1280, scheme: str = "light") -> Watched:
    """``file`` in a window of ``width`` pixels, all its plots drawn."""
    page = browser.new_page(
        viewport={"width": width, "height": 844}, color_scheme="dark" if scheme == "dark" else "light"
    )
    watched = Watched(page)
    page.on("console", lambda told: watched.faults.append(f"console: {told.text}"))
    page.on("pageerror", lambda error: watched.faults.append(f"error: {error}"))
    page.on(
        "request",
        lambda asked: (
            None if asked.url.startswith(("file:", "data:", "blob:")) else watched.faults.append(f"asks: {asked.url}")
        ),
    )
    page.goto(file.resolve().as_uri())
    page.wait_for_selector("html.drawn", state="attached")
    return watched
