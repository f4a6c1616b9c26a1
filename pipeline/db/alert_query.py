"""Runs the query of a rule: read only, limited in time and rows, on a connection that nobody uses afterwards.

Owns: the session in which it runs, and its rows as readings. Must not know rules or what follows for them.

A query of the user's can do more than read: take a lock of its session, change a setting, ask for a million rows,
never end. So it runs in a READ ONLY transaction that is rolled back, by the protocol that takes a single
statement, inside a subquery, where nothing that writes may stand; and its connection is closed with all that is
left in it. It has the rights of the daemon's role: whoever may write rules may read what the daemon may.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from contextlib import suppress

import asyncpg
import msgspec

from pipeline.core.alert_metric import Reading, reading_of
from pipeline.db.connection import connect, translated
from pipeline.db.pooler import configure
from pipeline.errors import PgreflexError, QueryFailed

QUERY_SECONDS = 5.0
LEAST_ROWS = 10_000  # that many are always read, because with a threshold most may be good
SETTINGS = {
    "lock_timeout": "500ms",
    "idle_in_transaction_session_timeout": "30s",
    "search_path": "pg_catalog, public, pg_temp",
}

_ROW = msgspec.json.Decoder(dict[str, object])


async def run_query(
    dsn: str | None, query: str, *, most: int, seconds: float = QUERY_SECONDS
) -> tuple[Sequence[Reading], bool]:
    """The rows of a query as readings, and whether there were more than are read.

    most: how many instances the rule may have. Raises QueryFailed with the reason, whatever went wrong.
    """
    limit = max(most, LEAST_ROWS)
    try:
        async with asyncio.timeout(seconds + 5):
            rows = await _rows(dsn, query, limit + 1, seconds)
    except TimeoutError:
        raise QueryFailed(f"the query did not end within {seconds:g} s") from None
    except PgreflexError as error:
        if getattr(error, "sqlstate", "") == "57014":
            raise QueryFailed(f"the query did not end within {seconds:g} s") from None
        raise QueryFailed(f"the query failed: {error.message}") from None
    try:
        return [reading_of(_ROW.decode(row)) for row in rows[:limit]], len(rows) > limit
    except (ValueError, msgspec.DecodeError) as error:
        raise QueryFailed(f"a row cannot be an instance: {error}") from None


async def _rows(dsn: str | None, query: str, limit: int, seconds: float) -> list[str]:
    settings = {**SETTINGS, "statement_timeout": f"{int(seconds * 1000)}ms"}
    text = re.sub(r"[\s;]+\Z", "", query)
    connection = await connect(dsn, purpose="rule", settings=settings)
    try:
        with translated():
            transaction = connection.transaction(isolation="read_committed", readonly=True)
            await transaction.start()
            if connection.pooled:
                await configure(connection, settings, local=True)
            found = await connection.fetch(f"select to_jsonb(q) from (\n{text}\n) as q limit {limit}")
            await transaction.rollback()
            return [row[0] for row in found]
    finally:
        with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            await connection.close(timeout=2)  # which also sees to it that the server gives up a query
