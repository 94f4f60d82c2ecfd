"""The notebooks of the documentation run, and hold what they printed when they were run."""

import json
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "docs" / "notebooks").glob("*.ipynb"))


def code(notebook: Path) -> list[tuple[str, bool]]:
    """The code of each cell, and whether its output was kept."""
    cells = json.loads(notebook.read_text())["cells"]
    return [("".join(cell["source"]), bool(cell["outputs"])) for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(notebook: Path) -> None:
    names: dict[str, object] = {"__name__": "__main__"}
    for number, (cell, _) in enumerate(code(notebook)):
        exec(compile(cell, f"{notebook.name}, cell {number}", "exec"), names)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_cell_that_prints_has_its_output(notebook: Path) -> None:
    assert all(seen for cell, seen in code(notebook) if "print(" in cell)


def test_there_are_notebooks() -> None:
    assert len(NOTEBOOKS) == 3
