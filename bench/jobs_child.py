"""The processes that the job benchmark starts: how they are begun, talked to and surely ended.

Owns: the form of the talk. A child writes one JSON object a line; a line to its standard input is an order,
and the end of its input is the order to end, so that none outlives the benchmark, however that ends.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

ROOT = Path(__file__).parents[1]
LONGEST_LINE = 256 * 2**20
END_SECONDS = 15.0


class ChildFailed(Exception):
    """A child ended, or fell silent, before it had said what was asked."""


class Child:
    """A running child, as its parent sees it."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, errors: Path) -> None:
        self.name = name
        self.process = process
        self._errors = errors

    async def hear(self, key: str, within: float) -> Any:
        """The value of `key` in the next line that has it. Raises ChildFailed after `within` seconds."""
        output = self.process.stdout
        assert output is not None
        try:
            async with asyncio.timeout(within):
                while line := await output.readline():
                    with suppress(msgspec.DecodeError):
                        said = msgspec.json.decode(line)
                        if isinstance(said, dict) and key in said:
                            return said[key]
        except TimeoutError:
            raise ChildFailed(f"{self.name} did not say {key!r} within {within:.0f} s: {self._last()}") from None
        raise ChildFailed(f"{self.name} ended before it said {key!r}: {self._last()}")

    def order(self, what: str) -> None:
        """One line to the child."""
        if self.process.stdin is not None:
            self.process.stdin.write(f"{what}\n".encode())

    def end_input(self) -> None:
        """Order it to end; what it says on the way out can still be heard."""
        if self.process.stdin is not None:
            self.process.stdin.close()

    def _last(self) -> str:
        lines = [line for line in self._errors.read_text(errors="replace").splitlines() if line.strip()]
        telling = [line for line in lines if "rror: " in line] or lines
        return telling[-1].strip()[-300:] if telling else "it wrote no error"


@asynccontextmanager
async def child(
    name: str, argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None, cwd: Path = ROOT
) -> AsyncIterator[Child]:
    """A process for the length of the block; asked to end after it, then killed."""
    with tempfile.NamedTemporaryFile(prefix="pgreflex-bench-", suffix=".err") as errors:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            limit=LONGEST_LINE,
        )
        running = Child(name, process, Path(errors.name))
        patience = 1.0  # after a failure
        try:
            yield running
            patience = END_SECONDS
        finally:
            running.end_input()
            with suppress(TimeoutError):
                await asyncio.wait_for(process.communicate(), patience)
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()


def module(name: str, *args: str) -> list[str]:
    """The command line of one of our own modules."""
    return [sys.executable, "-m", f"bench.{name}", *args]


def tell(**values: Any) -> None:
    """In a child: one line to the parent."""
    sys.stdout.buffer.write(msgspec.json.encode(values) + b"\n")
    sys.stdout.buffer.flush()


async def orders() -> asyncio.StreamReader:
    """In a child: the parent's lines."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader
