"""Asks Postgres for the plan of a statement without running it.

Owns: the connection on which that is done, never one of the application's, and the words of a refusal. Which texts
may be asked for is decided in pipeline/core/plan_query.py; running one to measure it is in measure.py.

The statement is prepared and its generic plan explained, in a transaction that only reads, waits 100 ms for a lock
at most, may take 2 s, and is rolled back. A plain EXPLAIN of a text with parameters would need values, and null
gives another plan than the one that runs. All goes by the extended protocol, which takes one statement only.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Literal

import asyncpg
import msgspec

from pipeline.core.plan import Node, kept, kept_settings, pruned
from pipeline.core.plan_query import Planned
from pipeline.db.connection import OwnConnection, connect_session
from pipeline.db.pooler import configure
from pipeline.db.statements import statement
from pipeline.errors import PgreflexError

NAME = "pgreflex_plan"
WHOLE_SECONDS = 8.0  # for all that one plan takes, whatever hangs
LIMITS = {
    "lock_timeout": "100ms",
    "statement_timeout": "2s",
    "idle_in_transaction_session_timeout": "10s",
    "plan_cache_mode": "force_generic_plan",
}
OPTIONS = "format json, verbose off, settings on"
LOCK, CANCELLED, FORBIDDEN, READ_ONLY = "55P03", "57014", "42501", "25006"
_FINAL = {LOCK, CANCELLED, FORBIDDEN}  # with the other form of the text it would be the same
# whose messages name objects only, and none of the statement's values
_TELLING = {FORBIDDEN, "42P01", "42703", "42883", "42P18", "3F000", READ_ONLY, "0A000"}


class Explained(msgspec.Struct, frozen=True):
    """A plan as it may be stored. kind: "analyzed" where the statement was run, with what its nodes did."""

    plan: Node
    settings: dict[str, str]
    kind: Literal["generic", "analyzed"]


class PlanFailed(Exception):
    """Postgres gave no plan; the text is the reason, without values."""


class Explainer:
    """A connection that asks for plans, opened when it is needed. dsn: the application's own, for its role and
    settings, past a pooler that keeps no session. settings: what the application sets in its sessions besides.
    """

    def __init__(self, dsn: str | None, *, settings: dict[str, str] | None = None) -> None:
        self._dsn = dsn
        self._settings = settings or {}
        self._connection: OwnConnection | None = None

    async def explain(self, wanted: Planned) -> Explained:
        """The generic plan; of the text without its literals, if Postgres takes that. Raises PlanFailed."""
        texts = [wanted.text] if wanted.without is None else [wanted.without, wanted.text]
        while True:
            text = texts.pop(0)
            try:
                async with asyncio.timeout(WHOLE_SECONDS):
                    return await self._explain(text)
            except asyncpg.PostgresError as error:
                if not texts or error.sqlstate in _FINAL:
                    raise PlanFailed(reason(error)) from None
            except RecursionError:
                raise PlanFailed("its plan is nested too deeply") from None
            except (asyncpg.InterfaceError, OSError, TimeoutError, PgreflexError) as error:
                self.drop()
                raise PlanFailed(reason(error)) from None

    async def connect(self) -> OwnConnection:
        """A connection of its own, for whoever needs one that is closed afterwards. Raises PgreflexError."""
        return await connect_session(self._dsn, purpose="plans", settings={**self._settings, **LIMITS})

    async def close(self) -> None:
        """Close the connection until it is needed again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
                await connection.close(timeout=2.0)

    def drop(self) -> None:
        """Give up the connection, which may be in the middle of something."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    @property
    def connected(self) -> bool:
        return self._connection is not None and not self._connection.is_closed()

    async def _explain(self, text: str) -> Explained:
        if self._connection is None or self._connection.is_closed():
            self._connection = await self.connect()
        for pruning in (True, False):
            async with prepared(self._connection, text, pruning=pruning) as types:
                found = await explain_prepared(self._connection, ["null"] * len(types), OPTIONS, "generic")
            if not pruned(found.plan):
                break
        return found


@asynccontextmanager
async def prepared(connection: OwnConnection, text: str, *, pruning: bool = True) -> AsyncIterator[list[int]]:
    """The statement NAME, in a transaction that is rolled back; gives the types of its parameters.

    pruning: leave partitions out that no row of can be in the result. Where that depends on a parameter, EXPLAIN
    leaves out all of them, since nothing equals null: without pruning it shows what is done to each.
    """
    transaction = connection.transaction(readonly=True)
    await transaction.start()
    try:
        if not pruning:
            await configure(connection, {"enable_partition_pruning": "off"}, local=True)
        await alone(connection, f"prepare {NAME} as {text}")
        yield await connection.fetchval(statement("plans/parameters"), NAME)
    finally:
        if not connection.is_closed():
            await transaction.rollback()
            with suppress(asyncpg.InvalidSQLStatementNameError):  # it was not prepared
                await alone(connection, f"deallocate {NAME}")  # by its name: the driver has statements, too


async def explain_prepared(
    connection: OwnConnection, values: list[str], options: str, kind: Literal["generic", "analyzed"]
) -> Explained:
    """EXPLAIN of the prepared statement with these values, as they are written in SQL."""
    arguments = f" ({', '.join(values)})" if values else ""
    rows = await alone(connection, f"explain ({options}) execute {NAME}{arguments}")
    [told] = msgspec.json.decode(rows[0][0])
    return Explained(kept(told["Plan"]), kept_settings(told.get("Settings")), kind)


async def alone(connection: OwnConnection, text: str) -> list[Any]:
    """Run one statement by the extended protocol, which refuses two."""
    made = await connection.prepare(text)
    return await made.fetch()


def reason(error: BaseException) -> str:
    """Why there is no plan, in words that contain none of the statement's values."""
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or "unknown"
        if state == LOCK:
            return "a lock was not free within 100 ms"
        if state == CANCELLED:
            return "planning took longer than 2 s"
        if state in _TELLING:
            return f"{error.args[0]} (SQLSTATE {state})"
        return f"Postgres cannot prepare it: {type(error).__name__} (SQLSTATE {state})"
    if isinstance(error, PgreflexError):
        return error.message
    return f"the connection failed: {type(error).__name__}"
