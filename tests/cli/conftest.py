"""The command line as a user has it: a process of its own, or the same command within this one."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import uuid
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import asyncpg
import pytest
import structlog
from click.testing import CliRunner

from pipeline import log
from pipeline.cli import build
from pipeline.config import Config

ROOT = Path(__file__).parents[2]
PROGRAM = """
import asyncio
from pipeline.cli import build

class Programs:
    async def run(self, config):
        print(f"up on {config.http.port}", flush=True)
        try:
            await asyncio.sleep(60)
        finally:
            print("cleaned up", flush=True)

    async def demo(self, config, *, data, plain):
        raise RuntimeError("no server at postgresql://app:hunter2@db/shop")

build(Programs()).main()
"""


@dataclass(frozen=True)
class Result:
    """How a call ended."""

    status: int
    out: str
    err: str


class Cli(Protocol):
    """Runs the command; keyword arguments become variables of its environment."""

    def __call__(self, *args: str, stdin: str = "", **env: str) -> Awaitable[Result]: ...


class Programs:
    """Remembers with what it was called."""

    def __init__(self) -> None:
        self.config: Config | None = None
        self.demo_args: dict[str, Any] = {}

    async def run(self, config: Config) -> int | None:
        self.config = config
        return None

    async def demo(self, config: Config, *, data: Path | None, plain: bool) -> int | None:
        self.config, self.demo_args = config, {"data": data, "plain": plain}
        return 7


@pytest.fixture
def programs() -> Programs:
    return Programs()


def clean_environment(**more: str) -> dict[str, str]:
    """This environment without anything that pgreflex or the driver would read."""
    ours = ("PGREFLEX_", "PG", "DATABASE_URL", "NO_COLOR", "FORCE_COLOR")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)} | more


@pytest.fixture(autouse=True)
def _quiet_again() -> Iterator[None]:
    """The command sets up the log of its process, which here is the tests' own."""
    yield
    structlog.reset_defaults()
    root = logging.getLogger()
    root.handlers = [handler for handler in root.handlers if not isinstance(handler, log.Bridge)]
    root.setLevel(logging.WARNING)


@pytest.fixture
def cli(programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The command in this process, in an empty directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    async def call(*args: str, stdin: str = "", **env: str) -> Result:
        hidden: dict[str, str | None] = {name: None for name in os.environ if name not in clean_environment()}
        runner = CliRunner(env=hidden | env)
        done = await asyncio.to_thread(runner.invoke, build(programs), list(args), stdin)
        assert done.exception is None or isinstance(done.exception, SystemExit)
        return Result(done.exit_code, done.stdout, done.stderr)

    return call


@pytest.fixture
def process(tmp_path: Path) -> Callable[..., Awaitable[asyncio.subprocess.Process]]:
    """The command as a process of its own, in an empty directory."""

    async def start(*args: str, stdout: int = asyncio.subprocess.PIPE, **env: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            PROGRAM,
            *args,
            cwd=tmp_path,
            env=clean_environment(PYTHONPATH=str(ROOT), **env),
            stdout=stdout,
            stderr=asyncio.subprocess.PIPE,
        )

    return start


def assert_explained(result: Result, status: int, code: str, *words: str) -> None:
    """What holds for every mistake of a user: status, code, hint, 80 columns, no traceback, no data."""
    assert result.status == status, result
    assert result.err.startswith(f"error[{code}]: "), result.err
    assert "  hint: " in result.err, result.err
    assert "Traceback" not in result.err
    # a word that is longer, such as a path, stands whole on a line of its own
    assert all(len(line) <= 80 or len(line.split()) == 1 for line in result.err.splitlines()), result.err
    assert result.out == ""
    flat = " ".join(result.err.split())
    for word in words:
        assert word in flat, f"{word!r} is not in {flat!r}"


@pytest.fixture
async def new_role(server_dsn: str) -> Any:
    """Makes a role that may log in; the argument is a clause of ALTER ROLE. All are dropped at the end."""
    made: list[str] = []
    connection = await asyncpg.connect(server_dsn)

    async def make(clause: str = "") -> str:
        name = f"r_{uuid.uuid4().hex[:12]}"
        await connection.execute(f"create role {name} login")
        made.append(name)
        if clause:
            await connection.execute(f"alter role {name} {clause}")
        return name

    yield make
    for name in made:
        await connection.execute(f"drop role {name}")
    await connection.close()
