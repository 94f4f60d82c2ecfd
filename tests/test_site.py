"""The site of `make docs`: every public name is on a page, links lead somewhere, and nothing is fetched."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import ramify

DOCS = Path(__file__).parent.parent / "docs"


def check(folder: Path) -> list[str]:
    """What docs/check.py says of a site."""
    command: list[str | Path] = [sys.executable, DOCS / "check.py", folder]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode == 0) == (done.stderr == "")
    return done.stderr.splitlines()


def test_every_public_name_is_on_one_page_of_the_api() -> None:
    text = "".join(page.read_text() for page in DOCS.glob("api/*.md"))
    assert sorted(re.findall(r"\.\. auto\w+:: ramify\.(\w+)\n", text)) == ramify.__all__


def test_every_page_is_in_the_table_of_contents() -> None:
    listed = set(re.findall(r"^[\w/-]+$", (DOCS / "index.md").read_text(), flags=re.MULTILINE))
    pages = [path for kind in ("md", "ipynb") for path in DOCS.rglob(f"*.{kind}") if "_build" not in path.parts]
    assert listed == {path.relative_to(DOCS).with_suffix("").as_posix() for path in pages} - {"index"}


def test_what_is_wrong_with_a_site_is_found(tmp_path: Path) -> None:
    entries = "".join(f'<p id="ramify.{name}">' for name in ramify.__all__ if name != "grow")
    (tmp_path / "a.html").write_text(f'{entries}<a href="b.html#there">b</a><a href="https://example.org">e</a>')
    (tmp_path / "b.html").write_text(
        '<p id="there"><a href="a.html#gone"></a><a href="c.html"></a><script src="https://example.org/x.js"></script>'
    )
    assert check(tmp_path) == [
        "b.html: loads https://example.org/x.js from elsewhere",
        "b.html: the link a.html#gone leads nowhere",
        "b.html: the link c.html leads nowhere",
        "ramify.grow: has no entry",
    ]


@pytest.mark.slow
def test_the_site_is_made_without_warnings_and_is_whole(tmp_path: Path) -> None:
    for package in ("sphinx", "furo", "myst_nb"):
        pytest.importorskip(package, reason="make docs installs what makes the site")
    sphinx: list[str | Path] = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", "-d", tmp_path / "trees"]
    subprocess.run([*sphinx, DOCS, tmp_path / "site"], check=True, timeout=240)
    assert check(tmp_path / "site") == []
