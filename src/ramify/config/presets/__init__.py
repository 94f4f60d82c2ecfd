"""The configurations that come with ramify, each a YAML file beside this one; ``ramify train NAME`` takes them by name.

A preset begins with comments, which say first what it is for.
"""

import re
from pathlib import Path


def presets() -> dict[str, Path]:
    """Every preset's file by its name.

    Example:
        >>> presets()["digits"].name
        'digits.yaml'
    """
    return {path.stem: path for path in sorted(Path(__file__).parent.glob("*.yaml"))}


def purpose(preset: Path) -> str:
    """What a preset is for: its comments up to the first full stop or colon.

    Example:
        >>> purpose(presets()["tiny-20k"])
        'CIFAR-10 with at most 20,000 weights'
    """
    lines = preset.read_text(encoding="utf-8").splitlines()
    comments = [line.removeprefix("#").strip() for line in lines if line.startswith("#")]
    return re.split(r"[.:] ", " ".join(comments), maxsplit=1)[0]
