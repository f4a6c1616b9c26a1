"""The tour in README.md, run as it is printed: its commands, its SQL, its Python, on a fresh database."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from tests.cli.conftest import ROOT, clean_environment
from tests.conftest import eventually

PASSWORD = "secret"
HEADING = "## Five minutes with a database of your own"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Tour:
    """The blocks of the tour by their language, in the order of the page."""

    sh: list[str]
    sql: list[list[str]]
    python: dict[str, str]


@pytest.fixture(scope="module")
def tour() -> Tour:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split(HEADING)[1].split("\n## ")[0]
    blocks = BLOCK.findall(section)
    lines = [line for kind, body in blocks if kind == "sh" for line in body.splitlines()]
    sql = [re.split(r";\n", body.strip() + "\n")[:-1] for kind, body in blocks if kind == "sql"]
    python = {body.split("\n")[0].removeprefix("# "): body for kind, body in blocks if kind == "python"}
    return Tour(lines, sql, python)


@pytest.fixture
def workplace(tour: Tour, tmp_path: Path) -> Path:
    """A directory with the modules of the tour, and with the two programs that it calls."""
    for name, body in tour.python.items():
        (tmp_path / name).write_text(body, encoding="utf-8")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, command in {"pgreflex": [sys.executable, str(ROOT / "run.py")], "python": [sys.executable]}.items():
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n', encoding="utf-8")
        program.chmod(0o755)
    return tmp_path


@asynccontextmanager
async def command(
    line: str, workplace: Path, dsn: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, list[str]]]:
    """A line of the tour, running; the list grows by what it prints."""
    environment = clean_environment(
        DATABASE_URL=dsn, PGREFLEX_HTTP_PORT="0", PYTHONPATH=str(ROOT), PYTHONWARNINGS="error"
    )
    process = await asyncio.create_subprocess_exec(
        *shlex.split(line),
        cwd=workplace,
        env=environment | {"PATH": f"{workplace / 'bin'}{os.pathsep}{os.environ['PATH']}"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said: list[str] = []

    async def listen() -> None:
        assert process.stdout is not None
        async for raw in process.stdout:
            said.append(raw.decode().rstrip())

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(listen())
        try:
            yield process, said
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            await process.wait()


@pytest.fixture
async def own_dsn(empty_dsn: str, server_dsn: str) -> AsyncIterator[str]:
    """An empty database and its owner, an ordinary role: all that the tour asks for."""
    role, parts = f"owner_{uuid.uuid4().hex[:12]}", urlsplit(empty_dsn)
    admin = await asyncpg.connect(server_dsn)
    await admin.execute(f"create role {role} login password '{PASSWORD}'")
    await admin.execute(f'alter database "{parts.path[1:]}" owner to {role}')
    yield urlunsplit(parts._replace(netloc=f"{role}:{PASSWORD}@{parts.netloc.rpartition('@')[2]}"))
    await admin.close()
    inside = await asyncpg.connect(empty_dsn)
    await inside.execute(f"reassign owned by {role} to current_user")
    await inside.execute(f"drop role {role}")
    await inside.close()


def has(said: list[str], *words: str) -> Callable[[], bool]:
    return lambda: all(any(word in line for line in said) for word in words)


def test_the_tour_has_the_commands_and_modules_that_it_speaks_of(tour: Tour) -> None:
    ours = [line for line in tour.sh if line.startswith(("pgreflex ", "python "))]
    assert ours == ["pgreflex migrate", "pgreflex run --import shop", "python read.py"]
    assert sorted(tour.python) == ["read.py", "shop.py"]
    assert len(tour.sql) == 4


async def test_the_tour_works_as_printed(tour: Tour, workplace: Path, own_dsn: str) -> None:
    async with command("pgreflex migrate", workplace, own_dsn) as (process, said):
        assert await process.wait() == 0, said
    sql = await asyncpg.connect(own_dsn)

    async def run(block: list[str]) -> list[list[Any]]:
        return [await sql.fetch(statement) for statement in block]

    setting_up, using, changing, asking = tour.sql
    await run(setting_up)
    async with command("pgreflex run --import shop", workplace, own_dsn) as (_, daemon):
        # a consumer that is new begins with what comes next, so wait until each has its place
        await eventually(lambda: sql.fetchval("select count(*) = 3 from pipeline.consumer"), why="three consumers")
        await run(using)
        async with command("python read.py", workplace, own_dsn) as (reading, reader):
            await eventually(hit_with(reader, "paid"), why=f"a hit in {reader}")
            await run(changing)
            assert await reading.wait() == 0, reader
        hits = [int(line.split()[1]) for line in reader if re.fullmatch(r"(paid|sent) \d+", line)]
        assert len(hits) == 30
        assert hit_with(reader, "sent")(), reader
        wanted = ("thank you, Ada", "thank you, Edsger", "thank you, Grace", "thank you, Barbara")
        await eventually(has(daemon, *wanted), why=f"four jobs in {daemon}")
        assert has(daemon, "orders ('1',): 1 row(s) updated", "only three left")(), daemon
        await eventually(lambda: stored(sql), why="a stored timing")
        percentile, series, alerts, jobs, _ = await run(asking)
        assert percentile[0][0] > 0
        assert {row["series"] for row in series} >= {"orders.insert", "orders.update", "checkout"}
        assert [tuple(row) for row in alerts] == [("stock", "firing", "info", "only three left")]
        assert [(row["state"], row["result"], row["attempt"]) for row in jobs] == [
            ("finished", '"thanked"', 1)
        ] * 4
    await sql.close()
    assert not has(daemon, "Traceback")(), daemon


def hit_with(reader: list[str], status: str) -> Callable[[], bool]:
    """Whether two reads in succession had this status and the second came from the cache."""

    def seen() -> bool:
        hits = [int(line.split()[1]) for line in reader if line.startswith(f"{status} ")]
        return any(after > before for before, after in pairwise(hits))

    return seen


def stored(sql: asyncpg.Connection) -> Awaitable[Any]:
    return sql.fetchval("select pipeline.percentile('checkout', 0.5) > 0")
