"""Draw the picture of the README: a real run on the digits and its exit policy, as the terminal shows them.

python docs/screens.py
"""

import io
import re
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

import ramify
from ramify.config.presets import presets
from ramify.run.readback import remeasure
from ramify.show.terminal.live import LiveView
from ramify.show.terminal.tables import outcome_line, policy_table, run_table

PICTURE = Path(__file__).parent / "images" / "train.svg"


def main() -> None:
    console = Console(record=True, force_terminal=True, width=100, file=io.StringIO())
    view = LiveView(Console(file=io.StringIO()))
    with tempfile.TemporaryDirectory() as folder:
        summary = ramify.train(ramify.read_config([presets()["digits"]], [f"runs_dir={folder}"]), [view])
        policy = ramify.calibrate_run(Path(summary.folder), max_drop=0.005)
        measured = remeasure(Path(summary.folder))
    _type(console, "ramify train")
    console.print(view.render())
    console.print(run_table(summary))
    _type(console, f"ramify calibrate {summary.name} --max_drop 0.005")
    console.print(policy_table(policy))
    _type(console, f"ramify evaluate {summary.name}")
    console.print(outcome_line(measured))
    PICTURE.parent.mkdir(exist_ok=True)
    # The fonts of the reader's machine will do; a picture should fetch nothing.
    picture = re.sub(r"@font-face \{.*?\}", "", console.export_svg(title="ramify"), flags=re.DOTALL)
    PICTURE.write_text(picture)


def _type(console: Console, command: str) -> None:
    console.print(Text.assemble(("\n$ ", "bright_black"), f"{command}\n"))


if __name__ == "__main__":
    main()
