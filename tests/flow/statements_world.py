"""What the tests of statement counts share: a server of their own, and what pg_stat_statements says itself."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg

from pipeline.embedded import EmbeddedServer

SETTINGS = {"fsync": "off", "track_io_timing": "on", "shared_preload_libraries": "pg_stat_statements"}
EXACT = (
    "calls", "rows", "shared_hit", "shared_read", "shared_dirtied", "shared_written", "temp_read", "temp_written",
    "wal_bytes", "plans",
)  # fmt: skip
ITS_OWN = """
select queryid, sum(calls)::bigint as calls, sum(rows)::bigint as rows, sum(shared_blks_hit)::bigint as shared_hit,
    sum(shared_blks_read)::bigint as shared_read, sum(shared_blks_dirtied)::bigint as shared_dirtied,
    sum(shared_blks_written)::bigint as shared_written, sum(temp_blks_read)::bigint as temp_read,
    sum(temp_blks_written)::bigint as temp_written, sum(wal_bytes)::bigint as wal_bytes,
    sum(plans)::bigint as plans, sum(total_exec_time) as total_ms, max(max_exec_time) as max_ms
from pg_stat_statements
where query like $1 and dbid = (select oid from pg_database where datname = current_database())
group by queryid
"""
OURS = """
select queryid, sum(calls)::bigint as calls, sum(rows)::bigint as rows, sum(shared_hit)::bigint as shared_hit,
    sum(shared_read)::bigint as shared_read, sum(shared_dirtied)::bigint as shared_dirtied,
    sum(shared_written)::bigint as shared_written, sum(temp_read)::bigint as temp_read,
    sum(temp_written)::bigint as temp_written, sum(wal_bytes)::bigint as wal_bytes, sum(plans)::bigint as plans,
    sum(total_ms) as total_ms
from pipeline.statement_window
where seconds = 60
group by queryid
"""


@contextmanager
def own_server(**settings: str) -> Iterator[EmbeddedServer]:
    """A server whose counters nobody else moves."""
    home = Path(tempfile.mkdtemp(prefix="pgreflex-statements-"))
    home.chmod(0o755)
    server = EmbeddedServer(home, settings=SETTINGS | settings, database="shop")
    server.start()
    try:
        yield server
    finally:
        server.stop("immediate")
        shutil.rmtree(home, ignore_errors=True)


async def its_own(sql: asyncpg.Connection, like: str) -> dict[int, asyncpg.Record]:
    """What pg_stat_statements has of the statements whose text is like that, by queryid."""
    return {row["queryid"]: row for row in await sql.fetch(ITS_OWN, like)}


async def ours(sql: asyncpg.Connection) -> dict[int, asyncpg.Record]:
    """What our windows hold, by queryid."""
    return {row["queryid"]: row for row in await sql.fetch(OURS)}


async def pgbench(server: EmbeddedServer, *args: str) -> None:
    """Run pgbench to its end."""
    argv, env = server.command("pgbench", *args, server.database)
    process = await asyncio.create_subprocess_exec(
        *argv, env=env, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    _out, complaint = await process.communicate()
    assert process.returncode == 0, complaint.decode()
