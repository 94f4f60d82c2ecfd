"""Draw the picture of the README: a real run on the digits, as the terminal shows it at the end.

python docs/screens.py
"""

import io
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

import ramify
from ramify.show.live import LiveView
from ramify.show.tables import run_table

PICTURE = Path(__file__).parent / "images" / "train.svg"


def main() -> None:
    console = Console(record=True, force_terminal=True, width=100, file=io.StringIO())
    view = LiveView(Console(file=io.StringIO()))
    with tempfile.TemporaryDirectory() as folder:
        summary = ramify.train(ramify.Config(runs_dir=folder), [view])
    console.print(Text.assemble(("$ ", "bright_black"), "ramify train\n"))
    console.print(view.render())
    console.print(run_table(summary))
    PICTURE.parent.mkdir(exist_ok=True)
    console.save_svg(str(PICTURE), title="ramify")


if __name__ == "__main__":
    main()
