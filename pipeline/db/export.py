"""Reads the rows of any query through a server-side cursor, in a transaction that may only read.

Owns: the cursor and its transaction, how each type of Postgres is handed over, the sizes that the planner expects.
Knows no format and no file.

The query is wrapped: `select ... from (query) as q`. Hence it can only be one SELECT, and no COPY, which a
transaction that only reads would let write a file of the server. The outer list casts what Python has no exact
value for (numeric, times with infinity, months of an interval, arrays) to text, on the server.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg

from pipeline.core.export import Column, Kind
from pipeline.db.connection import OwnConnection, Record, connect, translate, translated
from pipeline.db.statements import statement
from pipeline.errors import DatabaseUnavailable, PermissionMissing, PgreflexError, TaskError

FETCH_SECONDS = 300.0
CLOSE_SECONDS = 5.0
_KINDS: dict[str, tuple[Kind, str]] = {
    "int2": ("int", ""),
    "int4": ("int", ""),
    "int8": ("int", ""),
    "oid": ("int", "::int8"),
    "float4": ("float", "::text::float8"),  # through text: 0.1 stays 0.1
    "float8": ("float", ""),
    "bool": ("bool", ""),
    "bytea": ("bytes", ""),
    "numeric": ("numeric", "::text"),
    "json": ("json", "::text"),
    "jsonb": ("json", "::text"),
    "date": ("date", "::text"),
    "timestamp": ("timestamp", "::text"),
    "timestamptz": ("timestamptz", "::text"),
}
_PLAIN = ("int2", "int4", "int8", "float4", "float8", "bool", "bytea", "text", "varchar", "bpchar", "name")


class Source:
    """An open query. columns: of its result, in order. expected: rows by the planner's guess."""

    def __init__(self, cursor: Any, columns: list[Column], expected: int) -> None:
        self._cursor = cursor
        self.columns = columns
        self.expected = expected

    async def fetch(self, limit: int) -> list[Record]:
        """The next rows; fewer than `limit`, or none, at the end. Raises TaskError for what the query did."""
        try:
            rows: list[Record] = await self._cursor.fetch(limit, timeout=FETCH_SECONDS + 5)
        except _FAILED as error:
            raise _explained(error) from error
        return rows


_FAILED = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)


class ExportStore:
    """Opens queries; each on a connection of its own, which ends with it. dsn: a libpq address."""

    def __init__(self, dsn: str | None) -> None:
        self._dsn = dsn

    @asynccontextmanager
    async def open(
        self,
        query: str | None,
        params: Sequence[Any] = (),
        *,
        table: str | None = None,
        order_by: str | None = None,
        after: str | None = None,
    ) -> AsyncIterator[Source]:
        """The rows of a query, or of a table, in one snapshot.

        order_by: a column of the result to sort by. after: begin behind this value of it, as Postgres spells it.
        Raises TaskError for a query that cannot be exported, DatabaseUnavailable and its kin.
        """
        connection = await connect(self._dsn, purpose="export")
        try:
            with translated():
                transaction = connection.transaction(isolation="repeatable_read", readonly=True)
                await transaction.start()
                await connection.fetchrow(statement("export/settings"), str(int(FETCH_SECONDS * 1000)))
            yield await _source(connection, query, params, table, order_by, after)
        finally:
            with suppress(*_FAILED):
                await connection.close(timeout=CLOSE_SECONDS)


async def _source(
    connection: OwnConnection,
    query: str | None,
    params: Sequence[Any],
    table: str | None,
    order_by: str | None,
    after: str | None,
) -> Source:
    try:
        inner = query if table is None else await connection.fetchval(statement("export/table"), table)
        if inner is None:
            raise TaskError(f"there is no table {table}", hint="Name its schema too, as in public.orders.")
        inner = f"(\n{inner.strip().rstrip(';')}\n) as q"  # a line of its own: the query may end in a comment
        prepared = await connection.prepare(f"select * from {inner}")
        attributes, parameters = prepared.get_attributes(), prepared.get_parameters()
        types = await _types(connection, [a.type.oid for a in attributes] + [p.oid for p in parameters])
        _check_names([a.name for a in attributes], order_by)
        if len(params) != len(parameters):
            raise TaskError(f"the export's query takes {len(parameters)} params, not {len(params)}")
        await _take_text(connection, [types[p.oid] for p in parameters])
        columns, selected, sort = [], [], None
        for a in attributes:
            kind, cast = _handed_over(types[a.type.oid])
            columns.append(Column(a.name, kind))
            selected.append(_selected(_quoted(a.name), cast))
            sort = types[a.type.oid] if a.name == order_by else sort
        sql, given = f"select {', '.join(selected)} from {inner}", list(params)
        if order_by is not None and sort is not None:
            if sort["nested"] or sort["name"] in ("bytea", "json"):
                raise TaskError(f"an export cannot be ordered by {order_by}: it is {sort['spelled']}")
            if after is not None:
                given.append(after)
                sql += f" where q.{_quoted(order_by)} > ${len(given)}::text::{sort['spelled']}"
            sql += f" order by q.{_quoted(order_by)}"
        expected = await _expected(connection, sql, given)
        cursor = await connection.cursor(sql, *given, timeout=FETCH_SECONDS + 5)
    except _FAILED as error:
        raise _explained(error) from error
    return Source(cursor, columns, expected)


async def _types(connection: OwnConnection, oids: Sequence[int]) -> dict[int, Record]:
    rows = await connection.fetch(statement("export/types"), sorted(set(oids)))
    return {row["oid"]: row for row in rows}


def _handed_over(kind: Record) -> tuple[Kind, str]:
    if kind["nested"]:
        return "json", "to_json"
    known = _KINDS.get(kind["name"]) if kind["schema"] == "pg_catalog" else None
    return known or ("text", "::text")


def _selected(column: str, cast: str) -> str:
    return f"pg_catalog.to_json(q.{column})::text" if cast == "to_json" else f"q.{column}{cast}"


def _check_names(names: list[str], order_by: str | None) -> None:
    twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
    if twice is not None:
        raise TaskError(f"two columns are named {twice}", hint='Give each a name of its own: id as "order_id".')
    if not names:
        raise TaskError("the export's query has no columns")
    if order_by is not None and order_by not in names:
        raise TaskError(
            f"the result has no column {order_by} to order by", hint=f"It has {', '.join(names)[:500]}."
        )


async def _take_text(connection: OwnConnection, parameters: Sequence[Record]) -> None:
    """JSON has neither dates nor numerics: take such parameters as text, which Postgres itself reads."""
    for kind in parameters:
        name, schema = kind["element"] or kind["name"], kind["element_schema"] or kind["schema"]
        if name not in _PLAIN:
            await connection.set_type_codec(name, schema=schema, encoder=_as_text, decoder=str, format="text")


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


async def _expected(connection: OwnConnection, sql: str, params: Sequence[Any]) -> int:
    plan = json.loads(await connection.fetchval(f"explain (format json) {sql}", *params))
    return int(plan[0]["Plan"]["Plan Rows"])


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _explained(error: BaseException) -> PgreflexError:
    """What a query's failure means for who asked for the export."""
    known = translate(error)
    if isinstance(error, asyncpg.QueryCanceledError):
        return TaskError(
            f"Postgres gave up on the query: {known.message}",
            hint=f"One fetch may take {FETCH_SECONDS:g} s; an index on the column to order by helps the first.",
        )
    if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
        return TaskError(f"an export may only read: {known.message}", hint="")
    if isinstance(error, (asyncpg.PostgresSyntaxError, asyncpg.FeatureNotSupportedError)):
        return TaskError(
            f"the export's query is not one SELECT that can be read: {known.message}",
            hint="One SELECT, TABLE or VALUES, which may begin with WITH, and writes nothing.",
        )
    if isinstance(known, (DatabaseUnavailable, PermissionMissing)):
        return known
    return TaskError(f"the export's query failed: {known.message}", hint=known.hint)
