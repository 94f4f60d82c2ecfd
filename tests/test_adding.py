"""What CONTRIBUTING says of adding things, followed literally: each block is run, and then its command."""

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest

from ramify.data.augment import CHANGES, SAMPLERS
from ramify.data.sources import SOURCES
from ramify.exporting.write import EXPORTERS
from ramify.nn.cells import CELLS
from ramify.nn.exit import EXITS
from ramify.ops.exits.policy import CRITERIA
from ramify.ops.pruning.policies import POLICIES
from ramify.ops.pruning.saliency import SALIENCIES
from ramify.search.samplers import SEARCH_SAMPLERS
from tests.conftest import TINY, CommandLine

REGISTRIES = (CELLS, EXITS, SALIENCIES, POLICIES, CRITERIA, SOURCES, CHANGES, SAMPLERS, SEARCH_SAMPLERS, EXPORTERS)
GUIDE = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text().partition("## Adding things")[2]
ENTRIES = re.findall(r"\*\*([\w ]+)\*\*.*?```python\n(.*?)```\n\n    ramify ([^\n]+)\n", GUIDE, flags=re.DOTALL)


@pytest.fixture
def registries() -> Iterator[None]:
    """The registries, which are put back afterwards."""
    patches = [patch.dict(registry) for registry in REGISTRIES]
    for each in patches:
        each.start()
    yield
    for each in patches:
        each.stop()


def test_each_thing_has_its_block_and_its_command() -> None:
    assert len(ENTRIES) == GUIDE.count("```python") == len(REGISTRIES)


@pytest.mark.slow
@pytest.mark.parametrize(("code", "command"), [entry[1:] for entry in ENTRIES], ids=[entry[0] for entry in ENTRIES])
@pytest.mark.usefixtures("registries")
def test_a_thing_is_added_by_one_block(code: str, command: str, ramify: CommandLine, demo: Path) -> None:
    words = shlex.split(command)
    if words[0] == "train":
        words = [
            "train",
            "train.epochs=3",
            *(each for each in TINY if "epochs" not in each),
            "growth.epochs=[2,3]",
            *words[1:],
        ]
    else:
        shutil.copytree(demo, "runs/demo")
    refused = ramify(*words)
    assert refused.code == 2
    exec(compile(code, "CONTRIBUTING.md", "exec"), {"__name__": "added"})
    done = ramify(*words)
    assert done.code == 0, done.err
