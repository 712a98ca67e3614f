"""A fleet coming up, stage by stage: live in a terminal, plain lines elsewhere, a table at the end.

The display is fed with counts and knows nothing of where they come from.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

BAR = 30


class Stage(Enum):
    """The stages of a device's journey, in their order; values are the names in JSON."""

    MADE = "made"
    DEPLOYED = "deployed"
    DISCOVERED = "discovered"
    NETWORK_GRANTED = "network_granted"
    ATTACHED = "attached"
    SERVICE_GRANTED = "service_granted"
    CONNECTED = "connected"
    RECEIPTS_READ = "receipts_read"

    @property
    def words(self) -> str:
        """The stage's name for people."""
        return self.value.replace("_", " ")


@dataclass(slots=True)
class Progress:
    """How far a fleet has come: for each stage the count, and when its first and its last device came there.

    Times are seconds since the start. Counts never fall, nor rise above ``total``.
    """

    total: int
    counts: dict[Stage, int] = field(default_factory=lambda: dict.fromkeys(Stage, 0))
    first: dict[Stage, float] = field(default_factory=dict)
    last: dict[Stage, float] = field(default_factory=dict)

    def update(self, counts: Mapping[Stage, int], now: float) -> list[Stage]:
        """Take over ``counts`` as of ``now`` and return the stages that moved."""
        moved = []
        for stage, given in counts.items():
            count = min(given, self.total)
            if count > self.counts[stage]:
                self.first.setdefault(stage, now)
                self.last[stage] = now
                self.counts[stage] = count
                moved.append(stage)
        return moved

    @property
    def complete(self) -> bool:
        """Whether every device has passed every stage."""
        return all(count == self.total for count in self.counts.values())


def live_table(progress: Progress) -> Table:
    """Return the table that is shown while things happen: stage, bar, count."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for stage, count in progress.counts.items():
        done = count == progress.total
        style = "green" if done else "cyan" if count else "dim"
        bar = ProgressBar(total=max(progress.total, 1), completed=count, width=BAR, complete_style=style)
        table.add_row(Text(stage.words, style=style), bar, Text(f"{count}/{progress.total}", style=style))
    return table


def final_table(progress: Progress) -> Table:
    """Return the table of counts and times."""
    table = Table("stage", pad_edge=False, box=None)
    for column in ("devices", "first after", "last after"):
        table.add_column(column, justify="right")
    for stage, count in progress.counts.items():
        times = [_seconds(when.get(stage)) for when in (progress.first, progress.last)]
        table.add_row(stage.words, f"{count}/{progress.total}", *times)
    return table


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} s"


class FleetDisplay:
    """Shows a :class:`Progress`; a context manager."""

    def __init__(
        self,
        total: int,
        *,
        file: TextIO | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        terminal: bool | None = None,
    ) -> None:
        """Show ``total`` devices on ``file`` (without it, stdout); ``terminal`` overrules what the file is."""
        self._console = Console(file=file, force_terminal=terminal, highlight=False, markup=False, emoji=False)
        self._monotonic = monotonic
        self._began = monotonic()
        self._saying = Text("")
        self._live: Live | None = None
        self.progress = Progress(total)
        if self._console.is_terminal:
            self._live = Live(console=self._console, refresh_per_second=8, get_renderable=self._picture)

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    @property
    def seconds(self) -> float:
        """Seconds since the display was made."""
        return self._monotonic() - self._began

    def say(self, text: str) -> None:
        """Say what is going on besides the counts."""
        if self._live is None:
            self._console.print(f"{self.seconds:7.1f} s  {text}", soft_wrap=True)
        else:
            self._saying = Text(text, style="bold")

    def update(self, counts: Mapping[Stage, int]) -> None:
        """Show new counts; without a terminal, one line for each stage that moved."""
        seconds = self.seconds
        for stage in self.progress.update(counts, seconds):
            if self._live is None:
                count = self.progress.counts[stage]
                self._console.print(f"{seconds:7.1f} s  {stage.words}: {count}/{self.progress.total}", soft_wrap=True)

    def finish(self) -> None:
        """Print the final table of counts and times."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        self._console.print(final_table(self.progress))

    def _picture(self) -> Group:
        return Group(self._saying, live_table(self.progress))
