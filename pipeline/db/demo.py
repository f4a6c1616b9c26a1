"""What the demo asks of its database.

Owns: the statements in sql/demo. Knows nothing of what the demo shows.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from pipeline.db.connection import Database
from pipeline.db.statements import statement


class DemoDatabase:
    """The demo's own statements on a database that holds pgbench's tables."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def prepare(self, task: str) -> None:
        """Count statements, watch three tables, enqueue `task` for a share of the inserts, alert on a slow p95."""
        for name, args in (
            ("demo/count_statements", ()),
            ("demo/watch", ()),
            ("demo/enqueue_on_insert", (task,)),
            ("demo/alert_on_slow_updates", ()),
        ):
            await self._database.fetch(name, *args)

    async def hold_lock(self, seconds: float) -> None:
        """Keep the branches locked; nothing is changed."""
        async with self._database.transaction() as connection:
            await connection.fetch(statement("demo/lock_branches"))
            await asyncio.sleep(seconds)


class Reads(Protocol):
    """The part of a cache that the demo's reader uses."""

    async def query(self, sql: str, *args: Any, tags: list[str]) -> list[dict[str, Any]]: ...


async def read_account(cache: Reads, account: int) -> int | None:
    """The balance of an account, a moment old at most; None when there is no such account."""
    rows = await cache.query(statement("demo/account"), account, tags=[f"pgbench_accounts:{account}"])
    return rows[0]["balance"] if rows else None


async def read_branch(cache: Reads, branch: int) -> int | None:
    """The balance of a branch, which every third write or so changes; None when there is no such branch."""
    rows = await cache.query(statement("demo/branch"), branch, tags=[f"pgbench_branches:{branch}"])
    return rows[0]["balance"] if rows else None


class Fetches(Protocol):
    """The part of a pool that the demo's reader uses."""

    async def fetch(self, query: str, *args: Any) -> Any: ...


async def look(pool: Fetches, account: int, branch: int) -> None:
    """What a page about a customer would ask past the cache: three queries, of which one is slow."""
    await pool.fetch(statement("demo/account"), account)
    await pool.fetch(statement("demo/history"), account)
    await pool.fetch(statement("demo/richest"), branch)
