"""Draw the picture of the README: a real run on the digits, as the terminal shows it at the end.

python docs/screens.py
"""

import io
import re
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

import ramify
from ramify.show.terminal.live import LiveView
from ramify.show.terminal.tables import run_table

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
    # The fonts of the reader's machine will do; a picture should fetch nothing.
    picture = re.sub(r"@font-face \{.*?\}", "", console.export_svg(title="ramify"), flags=re.DOTALL)
    PICTURE.write_text(picture)


if __name__ == "__main__":
    main()
