"""One call of the command line: its global flags, its configuration, its two streams.

Owns: what goes to stdout (data) and to stderr (everything else), and how long work is run to its end.
Knows no verb.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import click
import msgspec
import uvloop
from rich.console import Console
from rich.table import Table

from pipeline import log
from pipeline.config import Config, Loaded, load
from pipeline.config_sources import Given
from pipeline.db.connection import Database

T = TypeVar("T")
WIDE = 10_000  # columns of a stdout that is no terminal: a program reads it, so nothing is cut


class Programs(Protocol):
    """What the composition root lends to the command line. Each returns when it is over, with an exit status
    or None for 0; each handles SIGTERM by itself."""

    async def run(self, config: Config) -> int | None:
        """The daemon, until it is told to stop."""

    async def demo(self, config: Config, *, data: Path | None, plain: bool) -> int | None:
        """A daemon on an embedded server with sample tables. data: its home; None: a passing one."""


class Session:
    """What the verbs of one call share."""

    def __init__(self, programs: Programs) -> None:
        self.programs = programs
        self.file: Path | None = None
        self.flags: dict[str, Given] = {}
        self.json = False
        self.color = "auto"
        self.loaded: Loaded | None = None

    def set(self, key: str, value: Any, flag: str) -> None:
        """A flag that overrides the setting `key`; None means that it was not given."""
        if value is not None:
            self.flags[key] = Given(value, flag)

    def load(self) -> Loaded:
        """The configuration with all flags so far; sets up the log. Raises ConfigError."""
        self.loaded = loaded = load(file=self.file, flags=self.flags)
        log.setup(loaded.config.log.level, loaded.config.log.format, color=self.colored(sys.stderr))
        return loaded

    def colored(self, stream: Any) -> bool:
        """Whether to colour a stream: --color, then NO_COLOR, then whether it is a terminal."""
        if self.color != "auto":
            return self.color == "always"
        return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and stream.isatty()

    def out(self) -> Console:
        """stdout, for data."""
        return self._console(sys.stdout)

    def err(self) -> Console:
        """stderr, for everything else."""
        return self._console(sys.stderr)

    def hint(self, text: str) -> None:
        """Tell a person something that a program need not read."""
        self.err().print(text, style="dim", markup=False)

    def print(self, text: str) -> None:
        """One line of data."""
        self.out().print(text, markup=False, soft_wrap=True)

    def print_json(self, value: Any) -> None:
        """Data as JSON: indented on a terminal, one line elsewhere."""
        text = msgspec.json.encode(value)
        if sys.stdout.isatty():
            text = msgspec.json.format(text, indent=2)
        click.echo(text.decode())

    def print_table(self, columns: list[str], rows: list[list[str]]) -> None:
        """Data as aligned columns, without lines that a program would trip over."""
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        for name in columns:
            table.add_column(name, overflow="fold")
        for row in rows:
            table.add_row(*(cell.replace("[", "\\[") for cell in row))
        self.out().print(table)

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run to the end on the loop of the daemon. Ctrl-C cancels the work, which then cleans up."""
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(work)

    @asynccontextmanager
    async def database(self, settings: dict[str, str] | None = None) -> AsyncIterator[Database]:
        """The configured database, for one verb. settings: server settings for its session."""
        async with Database(self.load().config.dsn, purpose="cli", max_size=1, settings=settings) as database:
            yield database

    def _console(self, stream: Any) -> Console:
        terminal = stream.isatty()
        return Console(
            file=stream,
            force_terminal=self.colored(stream),
            no_color=not self.colored(stream),
            highlight=False,
            width=None if terminal else WIDE,
        )


pass_session = click.make_pass_decorator(Session)
