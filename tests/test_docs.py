"""The examples of the documentation run, and print what the page says."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
README = Path(__file__).parent.parent / "README.md"


@pytest.mark.slow
@pytest.mark.parametrize("page", ["python.md", "attach.md"])
def test_a_page_of_python_runs_and_prints_what_it_says(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```(\w+)\n(.*?)```", (DOCS / page).read_text(), flags=re.DOTALL)
    code = "\n".join(text for language, text in blocks if language == "python")
    exec(compile(code, page, "exec"), {"__name__": page})
    [promised] = [text for language, text in blocks if language == "text"]
    assert capsys.readouterr().out == promised


@pytest.mark.parametrize("page", [README, *DOCS.glob("*.md")], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)|src=\"([^\":]+)\"", page.read_text()):
        assert (page.parent / (target[0] or target[1])).exists(), target


def test_every_parameter_of_the_seed_has_its_line() -> None:
    text = (DOCS / "coming-from-the-seed.md").read_text()
    for word in ("dense", "iterative", "full_ic", "full", "'0'", "'1'", "'2'", "epochs", "milestones", "gammas"):
        assert word in text
    from ramify.config.keys import keys

    known = {name for name, _ in keys()}
    for key in re.findall(r"`((?:data|network|growth|prune|train)\.\w+)", text):
        assert key in known
