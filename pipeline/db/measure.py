"""Runs a query again to measure its plan (EXPLAIN ANALYZE), where that can do nothing but read.

Owns: the conditions, and the connection, which is closed afterwards whatever happened. It is used only where the
setting timings.analyze_plans is on.

READ ONLY and a rollback are not enough: `nextval` stays consumed, an advisory lock of the session stays held. So
Postgres parses the query, and the tree says what it would call, through views, functions of SQL and operators, by
the rules that decide what may be cached: no volatile function, no foreign table, no row security, no locks, no
writes, one SELECT. The role must not be a superuser. What is left is run in a transaction that only reads, with
short timeouts, on a connection that ends with it. Arguments are those of the slow run; they are written as
literals by the server itself, and the plan, a generic one, shows `$1` in their place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import asyncpg

from pipeline.core.plan import Node
from pipeline.core.plan_query import NotPlanned, planned
from pipeline.db.connection import OwnConnection
from pipeline.db.explain import (
    OPTIONS,
    WHOLE_SECONDS,
    Explained,
    Explainer,
    PlanFailed,
    explain_prepared,
    prepared,
    reason,
)
from pipeline.db.pooler import configure
from pipeline.db.query_look import Look, Source
from pipeline.db.statements import statement
from pipeline.errors import NotCacheable, PgreflexError

_ELSEWHERE = {"Foreign Scan", "Custom Scan"}


async def measure(explainer: Explainer, text: str, args: Sequence[Any] | None) -> Explained:
    """The generic plan of a query with what its nodes did. Raises PlanFailed where that must not or cannot be."""
    allowed = planned(text)
    if isinstance(allowed, NotPlanned):
        raise PlanFailed(allowed.reason)
    try:
        connection = await explainer.connect()
    except PgreflexError as error:
        raise PlanFailed(reason(error)) from None
    try:
        async with asyncio.timeout(WHOLE_SECONDS):
            if await connection.fetchval(statement("plans/is_super")):
                raise PlanFailed(
                    "the role may do too much: it is a superuser, replicates or bypasses row security"
                )
            await _only_reads(connection, text)
            async with prepared(connection, text) as types:
                return await _run(connection, types, args)
    except NotCacheable as error:
        raise PlanFailed(f"it may do more than read tables: {error.message}") from None
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError, ValueError) as error:
        raise PlanFailed(reason(error)) from None
    finally:
        connection.terminate()


async def _only_reads(connection: OwnConnection, text: str) -> None:
    """Raises NotCacheable unless the query surely does nothing but read tables."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute(statement("cache/analyse"))
        made = await connection.prepare(text)  # refuses several statements
        types = [kind.oid for kind in made.get_parameters()]
        settings = await connection.fetchval(statement("cache/settings"))
        quiet = {"pipeline.own_ddl": "on", "check_function_bodies": "off"}
        await configure(connection, quiet, local=True)
        arguments = await connection.fetchval(statement("cache/parameters"), types)
        look = Look(connection, path=settings[3])
        await look.check(Source(text, "pgreflex_query", arguments))
        if look.domains:
            raise PlanFailed("it makes values of a domain, whose checks may call anything")
    finally:
        with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            await transaction.rollback()


async def _run(connection: OwnConnection, types: list[int], args: Sequence[Any] | None) -> Explained:
    if types and (args is None or len(args) != len(types)):
        raise PlanFailed("its arguments are not at hand")
    values = await _literals(connection, types, args or ())
    generic = await explain_prepared(connection, ["null"] * len(types), OPTIONS, "generic")
    if any(node.get("Node Type") in _ELSEWHERE for node in _nodes(generic.plan)):
        raise PlanFailed("it reads what is not in this database")
    await explain_prepared(connection, values, f"{OPTIONS}, analyze, timing off", "analyzed")  # warms the caches
    return await explain_prepared(connection, values, f"{OPTIONS}, analyze, buffers off", "analyzed")


async def _literals(connection: OwnConnection, types: list[int], args: Sequence[Any]) -> list[str]:
    """The arguments as the server writes them."""
    if not types:
        return []
    names = (await connection.fetchval(statement("cache/parameters"), types)).split(", ")
    columns = ", ".join(f"quote_nullable(${at}::{name}::text)" for at, name in enumerate(names, start=1))
    made = await connection.prepare(f"select {columns}")
    row = await made.fetchrow(*args)
    return [str(value) for value in row or ()]


def _nodes(node: Node) -> Iterator[Node]:
    todo = [node]
    while todo:
        one = todo.pop()
        yield one
        todo += one.get("Plans", ())
