"""The page of a running server, as a person meets it in a browser."""

import base64
import re
import signal
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from ramify.training.run import train
from tests.conftest import tiny
from tests.serve.serving import command, ended, picture
from tests.show.report.browser import chromium, needs_chromium

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a server in a process of its own, as the command starts it; it must end by itself when it is interrupted."""
    folder = tmp_path_factory.mktemp("runs")
    train(tiny(f"runs_dir={folder}", "name=served"))
    output = folder / "output"
    with command(output, "served", "--threshold", "0.2", "--runs_dir", str(folder)) as (process, port):
        yield f"http://127.0.0.1:{port}/"
        ended(process, signal.SIGINT, output)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture
def page(address: str, browser: Browser) -> Iterator[Page]:
    """The page, opened; at the end nothing may have gone wrong on it and nothing been asked of others."""
    page = browser.new_page(viewport={"width": 1180, "height": 900}, reduced_motion="reduce")
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text))
    page.on(
        "request",
        lambda request: None if request.url.startswith((address, "data:", "blob:")) else faults.append(request.url),
    )
    page.goto(address)
    page.wait_for_selector(".exit")
    yield page
    page.close()
    # Chromium says by itself that a reply was a 4xx.
    assert [each for each in faults if not each.startswith("Failed to load resource: the server responded")] == []


def answered(page: Page) -> str:
    page.wait_for_selector(".exit.left")
    return page.locator("#sentence").inner_text()


def drop(page: Page, *contents: bytes) -> None:
    """A real drop event with files, as a browser makes it."""
    page.evaluate(
        """contents => {
            const dropped = new DataTransfer();
            for (const content of contents)
                dropped.items.add(new File([Uint8Array.from(atob(content), c => c.charCodeAt(0))], "dropped.png"));
            for (const kind of ["dragenter", "dragover", "drop"])
                document.getElementById("drop").dispatchEvent(
                    new DragEvent(kind, { dataTransfer: dropped, bubbles: true, cancelable: true }));
        }""",
        [base64.b64encode(content).decode() for content in contents],
    )


def test_it_tells_of_the_network_before_anything_is_asked(page: Page) -> None:
    assert page.locator("h1").inner_text() == "served"
    assert "10 classes, 8 \u00d7 8 pixels in gray, 3 exits." in page.locator("#about").inner_text()
    assert page.locator(".exit").count() == 3
    assert page.locator(".exit .rule").first.inner_text() == "leaves at 20.0 % or more"
    assert page.locator(".exit .opinion >> visible=true").count() == 0


def test_a_dropped_picture_is_answered(page: Page) -> None:
    drop(page, picture(0, "RGB", (40, 30)))
    sentence = answered(page)
    assert re.search(r"answered at (exit \d of 3, \d+ % of the work, \d+ % saved|the last exit, 3 of 3)", sentence)
    assert sentence.endswith(" ms")
    exits = page.locator(".exit")
    left = page.locator(".exit.left")
    assert left.locator(".mood").inner_text() == "answered here"
    assert left.locator(".opinion .class").inner_text() == page.locator("#said").inner_text()
    moods = [exits.nth(at).locator(".mood").inner_text() for at in range(3)]
    place = moods.index("answered here")
    assert moods == ["not sure enough"] * place + ["answered here"] + ["would have said"] * (2 - place)
    assert exits.locator(".top li").count() == 9
    assert "40x30 RGB made 8x8 gray" in page.locator("#note").inner_text()
    assert page.locator("#seen").evaluate("image => image.naturalWidth") == 8
    assert page.locator("#given").evaluate("image => image.naturalWidth") == 40


def test_a_chosen_picture_is_answered_and_bars_say_what_figures_say(page: Page) -> None:
    page.set_input_files("#file", {"name": "a.png", "mimeType": "image/png", "buffer": picture(1)})
    answered(page)
    for at in range(3):
        card = page.locator(".exit").nth(at)
        sure = float(card.locator(".opinion .sure").inner_text().removesuffix(" % sure"))
        meter = card.locator(".meter")
        width, mark = (
            meter.locator(part).evaluate(f"part => {what} / part.parentElement.getBoundingClientRect().width")
            for part, what in ((".fill", "part.getBoundingClientRect().width"), (".mark-at", "(part.offsetLeft + 1)"))
        )
        assert 100 * width == pytest.approx(sure, abs=0.3)
        assert at == 2 or mark == pytest.approx(0.2, abs=0.005)


def test_a_test_picture_is_answered_by_keyboard_alone(page: Page) -> None:
    page.locator("#file").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('#samples') !== null")
    page.keyboard.press("Enter")
    answered(page)
    assert "by its source" in page.locator("#note").inner_text()
    assert page.locator("#samples [aria-pressed=true]").count() == 1


def test_a_pasted_picture_is_answered(page: Page) -> None:
    page.evaluate(
        """content => {
            const pasted = new DataTransfer();
            pasted.items.add(new File([Uint8Array.from(atob(content), c => c.charCodeAt(0))], "pasted.png"));
            dispatchEvent(new ClipboardEvent("paste", { clipboardData: pasted }));
        }""",
        base64.b64encode(picture(2)).decode(),
    )
    assert answered(page)
    assert page.locator(".exit.left").count() == 1


def test_a_broken_file_is_refused_in_a_sentence_and_the_next_is_answered(page: Page) -> None:
    cut = picture(3, "RGB", (64, 64), "JPEG")
    cut = cut[: len(cut) // 2]
    for name, content, sentence in (
        ("broken.jpg", cut, "broken.jpg: cannot be decoded"),
        ("notes.txt", b"Dear all", "notes.txt: is not a picture; accepted: a JPEG, PNG,"),
        ("large.png", bytes(10_000_001), "large.png: got 10.0 MB; accepted: up to 10.0 MB"),
    ):
        page.set_input_files("#file", {"name": name, "mimeType": "image/png", "buffer": picture(3)})
        answered(page)
        assert not page.locator("#error").is_visible()
        page.set_input_files("#file", {"name": name, "mimeType": "image/png", "buffer": content})
        page.wait_for_selector("#error:visible")
        assert page.locator("#error").inner_text().startswith(sentence)
        # What was answered before is not taken for an answer to this.
        assert page.locator(".exit.left").count() == 0
        assert not page.locator("#pictures").is_visible()
    drop(page, picture(0), picture(1))
    assert page.locator("#error").inner_text() == "Got 2 files; give one picture at a time."
    drop(page, picture(0))
    answered(page)
    assert not page.locator("#error").is_visible()


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1180, "light")])
def test_nothing_is_wider_than_the_window(browser: Browser, address: str, width: int, scheme: str) -> None:
    page = browser.new_page(
        viewport={"width": width, "height": 844}, color_scheme="dark" if scheme == "dark" else "light"
    )
    page.goto(address)
    page.locator("#samples button").first.click()
    answered(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # The ink stands out from the paper in both schemes.
    ink, paper = (
        sum(map(int, re.findall(r"\d+", page.evaluate(f"getComputedStyle(document.body).{what}"))[:3]))
        for what in ("color", "backgroundColor")
    )
    assert (ink > paper) == (scheme == "dark")
    assert abs(ink - paper) > 450
    page.close()
