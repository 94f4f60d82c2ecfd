"""The view of a sweep: runs under way with their progress, failures, and the time that is left."""

import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ramify.search.sweep import RunBegan, RunEnded, RunsUnderWay, Sweep, SweepEvent
from ramify.show.words import duration, percent

BAR, ENDED_SHOWN = 24, 6


class SweepView:
    """An observer of a sweep: a live view in the block ``with view.live`` on a terminal, lines elsewhere.

    Args:
        console: None for lines alone.
        write: called with each line.
    """

    def __init__(self, sweep: Sweep, console: Console | None, write: Callable[[str], None]) -> None:
        self._planned = {str(config.name): config.train.epochs for config in sweep.configs}
        self._name, self._write = sweep.name, write
        self._done: dict[str, int] = {}
        self._began: dict[str, int] = {}
        self._now: dict[str, tuple[int, float | None]] = {}
        self._ended: dict[str, str | None] = {}
        self._clock = time.monotonic()
        self._lines = console is None
        self.live: AbstractContextManager[object] = nullcontext()
        if console is not None:
            self.live = Live(console=console, get_renderable=self.render, refresh_per_second=4)

    def __call__(self, event: SweepEvent) -> None:
        match event:
            case RunBegan(run, epoch):
                self._began.setdefault(run, epoch)
                self._done[run] = epoch
                if self._lines:
                    self._write(f"{run}: {f'goes on from epoch {epoch}' if epoch else 'starts'}")
            case RunEnded(run, failed):
                self._ended[run] = failed
                self._done[run] = self._planned[run]
                self._began.setdefault(run, self._planned[run])
                if self._lines:
                    outcome = f"failed ({failed})" if failed else "finished"
                    self._write(f"{run}: {outcome}; {self.summary()}")
            case RunsUnderWay(runs):
                self._now = dict(runs)
                self._done.update({run: epoch for run, (epoch, _) in runs.items()})

    def summary(self) -> str:
        """How many runs are finished and failed, and how long the others will take."""
        counts = Counter("failed" if failed else "finished" for failed in self._ended.values())
        total, spent = sum(self._planned.values()), time.monotonic() - self._clock
        here = sum(self._done.values()) - sum(self._began.values())
        left = total - sum(self._done.values())
        eta = f", about {duration(spent / here * left)} left" if here > 0 and left > 0 else ""
        failed = f", {counts['failed']} failed" if counts["failed"] else ""
        return f"{counts['finished']} of {len(self._planned)} runs finished{failed}{eta}"

    def render(self) -> RenderableType:
        """The view as it is now."""
        table = Table(box=None, padding=(0, 1, 0, 0), show_header=False, show_edge=False)
        for run, (epoch, valid) in self._now.items():
            planned = self._planned[run]
            bar = ProgressBar(planned, epoch, BAR, style="bright_black", complete_style="cyan", finished_style="cyan")
            table.add_row(run, bar, f"epoch {epoch}/{planned}", f"valid {percent(valid)}")
        last = [
            Text(f"{run}: failed ({failed})", "red") if failed else Text(f"{run}: finished", "dim")
            for run, failed in list(self._ended.items())[-ENDED_SHOWN:]
        ]
        return Group(Text.assemble((f"sweep {self._name}  ", "bold"), self.summary()), *last, table)
