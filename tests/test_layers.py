"""The data flows downhill: a file imports only from its own folder and from layers that stand above it."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import ramify

SOURCE = Path(ramify.__file__).parent

HIGHEST_FIRST = """
version errors sealed files shortage seeds needs
nn.masked nn.trunk nn.cells nn.zoo nn.exit nn.modes nn.recording nn.channel_rules nn.graph nn.branching
data.strong data.augment ops.pruning.policies ops.pruning.saliency
config schedule
nn
ops ops.pruning ops.growing ops.exits
data run training search
show show.terminal show.trackers show.report
answer exporting serve bench
opened ramify cli __main__
"""
LAYERS = HIGHEST_FIRST.split()
"""Folders and single files, highest first. A module belongs to the longest name here that it begins with."""


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "ramify"


FILES = {module_name(path): path for path in SOURCE.rglob("*.py")}


def layer(module: str) -> int:
    """The place of a module in the list of layers."""
    names = [name for name in LAYERS if module == name or module.startswith(f"{name}.")]
    assert names, f"{module} has no layer"
    return LAYERS.index(max(names, key=len))


def imports(path: Path) -> set[str]:
    """Modules of ramify that a file imports, wherever in the file the import stands."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides its layer"
            names = [f"{node.module}.{alias.name}".removeprefix("ramify.") for alias in node.names]
            found.update(name if name in FILES else (node.module or "").removeprefix("ramify.") for name in names)
        elif isinstance(node, ast.Import):
            found.update(alias.name.removeprefix("ramify.") for alias in node.names)
    return found & FILES.keys()


GRAPH = {name: imports(path) - {name} for name, path in FILES.items()}


def upward(graph: dict[str, set[str]]) -> list[str]:
    """The imports of a layer that stands below."""
    return [f"{name} imports {other}" for name in graph for other in sorted(graph[name]) if layer(other) > layer(name)]


def test_no_import_goes_upward() -> None:
    assert upward(GRAPH) == []


def test_an_upward_import_is_found() -> None:
    assert upward({"nn.network": {"nn.masked", "training.loop"}}) == ["nn.network imports training.loop"]


def test_no_imports_in_a_circle() -> None:
    TopologicalSorter(GRAPH).prepare()


def test_a_circle_is_found() -> None:
    with pytest.raises(CycleError):
        TopologicalSorter({**GRAPH, "nn.masked": {"nn.network"}}).prepare()


def test_the_public_names_exist() -> None:
    for name in ramify.__all__:
        assert getattr(ramify, name) is not None
