"""One server for the whole run, one migrated template database, a fresh copy of it for each test.

PGREFLEX_TEST_DSN names a server to use instead of the embedded one; the role must be a superuser.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from pipeline.db.connection import Database
from pipeline.db.migrate import migrate

SERVER_SETTINGS = {
    "fsync": "off",
    "max_connections": "200",
    "max_prepared_transactions": "20",
    "wal_level": "logical",
    "max_worker_processes": "20",
    "wal_compression": "off",  # each test writes a database of 10 MB, which takes 8 ms without and 150 ms with it
    "shared_preload_libraries": "pg_stat_statements",
    "compute_query_id": "on",
    "pg_stat_statements.track": "top",
}


def with_database(dsn: str, name: str) -> str:
    """The same address with another database."""
    parts = urlsplit(dsn)
    return urlunsplit(parts._replace(path=f"/{name}"))


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        config.stash[SERVER] = config.workerinput["pgreflex_dsn"]


SERVER = pytest.StashKey[str]()


@pytest.fixture(scope="session")
def server_dsn(request: pytest.FixtureRequest) -> str:
    """The address of the run's server, as a superuser."""
    return request.config.stash[SERVER]


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    config = session.config
    if hasattr(config, "workerinput") or config.option.collectonly:
        return
    dsn = os.environ.get("PGREFLEX_TEST_DSN")
    if dsn is None:
        from pipeline.embedded import EmbeddedServer

        home = Path(tempfile.mkdtemp(prefix="pgreflex-test-"))
        server = EmbeddedServer(home, settings=SERVER_SETTINGS)
        server.start()
        config.add_cleanup(lambda: _end(server, home))
        dsn = server.dsn
    template = f"pgreflex_template_{uuid.uuid4().hex[:12]}"
    config.stash[SERVER] = dsn
    config.stash[TEMPLATE] = template
    asyncio.run(_make_template(dsn, template))
    if os.environ.get("PGREFLEX_TEST_DSN"):
        config.add_cleanup(lambda: asyncio.run(_drop_template(dsn, template)))


TEMPLATE = pytest.StashKey[str]()


def _end(server: Any, home: Path) -> None:
    import shutil

    server.stop("immediate")
    shutil.rmtree(home, ignore_errors=True)


async def _make_template(dsn: str, name: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(f'create database "{name}"')
    await connection.close()
    await migrate(with_database(dsn, name))


async def _drop_template(dsn: str, name: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(f'drop database if exists "{name}" with (force)')
    await connection.close()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell each xdist worker where the server is."""
    node.workerinput["pgreflex_dsn"] = node.config.stash[SERVER]
    node.workerinput["pgreflex_template"] = node.config.stash[TEMPLATE]


@pytest.fixture(scope="session")
def template(request: pytest.FixtureRequest) -> str:
    worker = getattr(request.config, "workerinput", None)
    return worker["pgreflex_template"] if worker else request.config.stash[TEMPLATE]


@pytest.fixture
async def new_database(server_dsn: str) -> AsyncIterator[Callable[[str], Awaitable[str]]]:
    """Makes a database from a template and returns its address; all are dropped at the end."""
    made: list[str] = []

    async def make(template: str) -> str:
        name = f"t_{uuid.uuid4().hex[:16]}"
        connection = await asyncpg.connect(server_dsn)
        try:
            await connection.execute(f'create database "{name}" template "{template}"')
        finally:
            await connection.close()
        made.append(name)
        return with_database(server_dsn, name)

    yield make
    connection = await asyncpg.connect(server_dsn)
    for name in made:
        await _forget_prepared(connection, with_database(server_dsn, name), name)
        await connection.execute(f'drop database "{name}" with (force)')
    await connection.close()


async def _forget_prepared(connection: asyncpg.Connection, dsn: str, name: str) -> None:
    """Roll back what a failed test left prepared: nothing else would ever end it, and the drop waits for it."""
    left = await connection.fetch("select gid from pg_prepared_xacts where database = $1", name)
    if left:
        inside = await asyncpg.connect(dsn)
        for row in left:
            await inside.execute(f"rollback prepared '{row['gid']}'")
        await inside.close()


@pytest.fixture
async def dsn(new_database: Callable[[str], Awaitable[str]], template: str) -> str:
    """The address of a fresh database with pgreflex installed."""
    return await new_database(template)


@pytest.fixture
async def empty_dsn(new_database: Callable[[str], Awaitable[str]]) -> str:
    """The address of a fresh database without pgreflex."""
    return await new_database("template1")


@pytest.fixture
async def db(dsn: str) -> AsyncIterator[Database]:
    """Our own pool on the fresh database."""
    async with Database(dsn, purpose="test") as database:
        yield database


@pytest.fixture
async def sql(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """A plain connection to the fresh database, as the user's own client would have."""
    connection = await asyncpg.connect(dsn)
    yield connection
    await connection.close()


@pytest.fixture
async def pg_stat_statements(sql: asyncpg.Connection) -> None:
    """pg_stat_statements is there in the fresh database; skips where the server has not loaded it."""
    if not await sql.fetchval("select exists (select from pg_settings where name = 'pg_stat_statements.max')"):
        pytest.skip("this server has not loaded pg_stat_statements (shared_preload_libraries)")
    await sql.execute("create extension pg_stat_statements")


def pytest_asyncio_loop_factories() -> dict[str, Any]:
    """Tests run on the loop that the daemon runs on."""
    import uvloop

    return {"uvloop": uvloop.new_event_loop}


async def eventually(condition: Callable[[], Any], *, within: float = 10.0, why: str = "the condition") -> Any:
    """Wait until `condition()` (plain or async) is true; returns its value. Fails after `within` seconds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        if loop.time() > deadline:
            raise AssertionError(f"{why} did not come true within {within} s")
        await asyncio.sleep(0.01)
