"""Copies the part of ramify that answers without torch into the wheel, under the name ``ramify_runtime``.

The name is another one so that both packages may be installed side by side. Only the imports differ from the files in
``src/ramify``.
"""

import re
import shutil
import tempfile
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = Path(__file__).resolve().parents[2] / "src" / "ramify"
FILES = (
    "version.py",
    "errors.py",
    "files.py",
    "needs.py",
    "sealed.py",
    "shortage.py",
    "data/__init__.py",
    "data/decode.py",
    "data/listing.py",
    "data/names.py",
    "ops/__init__.py",
    "ops/exits/__init__.py",
    "ops/exits/certify.py",
    "ops/exits/sentences.py",
    "answer/__init__.py",
    "answer/card.py",
    "answer/picture.py",
    "answer/runtime.py",
    "py.typed",
)


def renamed(text: str) -> str:
    """``text`` with the imports of ramify under their name in the runtime."""
    return re.sub(r"^(\s*(?:>>> )?from )ramify\.", r"\1ramify_runtime.", text, flags=re.MULTILINE)


class Runtime(BuildHookInterface):
    """The files of the wheel that are not in this folder."""

    def initialize(self, version: str, build_data: dict[str, dict[str, str]]) -> None:
        """Write the renamed copies and name them to the builder."""
        build_data["force_include"][str(SOURCE.parents[1] / "LICENSE")] = "ramify_runtime/LICENSE"
        self.copies = Path(tempfile.mkdtemp())
        for name in FILES:
            copy = self.copies / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(renamed((SOURCE / name).read_text()))
            build_data["force_include"][str(copy)] = f"ramify_runtime/{name}"

    def finalize(self, version: str, build_data: dict[str, dict[str, str]], artifact_path: str) -> None:
        """Remove the copies."""
        shutil.rmtree(self.copies)
