"""A public name means one thing: it is defined at the top level of one file alone."""

import ast
from collections import defaultdict

from tests.test_layers import FILES

COMMANDS = "cli."
"""The functions of commands are named as the commands are, and these as what they call."""

SHARED = frozenset({"too_large"})
"""Names that still stand in two files; none may be added."""


def defined(path_text: str) -> set[str]:
    """The names that the top level of a file defines, without those that begin with an underscore."""
    found: set[str] = set()
    for node in ast.parse(path_text).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found.update(target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
    return {name for name in found if not name.startswith("_")}


def test_a_name_is_defined_once() -> None:
    homes: defaultdict[str, list[str]] = defaultdict(list)
    for module, path in FILES.items():
        if not module.startswith(COMMANDS):
            for name in defined(path.read_text()):
                homes[name].append(module)
    twice = {name: modules for name, modules in homes.items() if len(modules) > 1}
    assert {name: modules for name, modules in twice.items() if name not in SHARED} == {}
    assert sorted(SHARED - twice.keys()) == []  # what has been told apart leaves the list
