"""Many rows written at once, into a table of the application's.

Owns: the statements, which are made from the table's columns, and the search for rows that the table refuses.
Knows nothing of the cache and of jobs.

Inserts go by COPY, which is the fastest way in, unless rows are asked back or the table takes no COPY; updates by
one UPDATE from arrays. Both run in a transaction, or in a savepoint of the caller's, and each attempt in a
savepoint of its own, so that a refused row takes nothing with it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import asyncpg

from pipeline.core.bulk import BulkResult, Doubles, Numbered, Row, RowFailure, batches
from pipeline.db.connection import Connection, Database, translated
from pipeline.db.tables import Column, Table, find_table, quoted
from pipeline.errors import RowsRefused, UsageError

FAILURES_SOUGHT = 100  # when nothing is kept anyway, the caller needs examples, not all of them
Written: TypeAlias = "tuple[int, list[dict[str, Any]]]"  # how many rows, and what was asked back of them
Write: TypeAlias = "Callable[[Sequence[Numbered]], Awaitable[Written]]"


class Bulk:
    """Bulk writes through one pool."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def insert(
        self,
        table: str,
        rows: Iterable[Row],
        *,
        returning: Sequence[str] = (),
        keep_others: bool = False,
        conn: Connection | None = None,
    ) -> BulkResult:
        """Insert `rows`, each a mapping from column to value, all with the same columns.

        returning: columns to have back, such as a generated id. keep_others: a row that the table refuses is
        reported, and the others are written; without it nothing is written, and RowsRefused names the rows.
        conn: an asyncpg connection whose transaction this is part of; else it is a transaction of its own.
        Raises UsageError for a table or column that does not exist and for rows with different columns.
        """
        async with self._transaction(conn) as connection:
            known = await find_table(connection, table)
            run = _Run(connection, keep_others)
            for names, batch in batches(rows):
                await run.place(_inserter(connection, known, known.named(names), returning), batch)
            return run.result()

    async def update(
        self,
        table: str,
        rows: Iterable[Row],
        *,
        key: str | Sequence[str] = "id",
        keep_others: bool = False,
        conn: Connection | None = None,
    ) -> BulkResult:
        """Update the rows that `key` names, each to the other values of its mapping.

        A row whose key is not in the table, or that came before, counts as refused. keep_others, conn and
        errors are those of `insert`.
        """
        keys = (key,) if isinstance(key, str) else tuple(key)
        async with self._transaction(conn) as connection:
            known = await find_table(connection, table)
            run, doubles = _Run(connection, keep_others), Doubles()
            for names, batch in batches(rows):
                columns = known.named(_keys_first(keys, names))
                order = [names.index(column.name) for column in columns]
                ordered = [Numbered(row.index, tuple(row.values[place] for place in order)) for row in batch]
                kept, twice = doubles.sift(ordered, len(keys))
                run.refuse(twice)
                await run.place(_updater(connection, known, columns, len(keys), run), kept)
            return run.result()

    @asynccontextmanager
    async def _transaction(self, conn: Connection | None) -> AsyncIterator[Connection]:
        if conn is not None:
            with translated():
                async with conn.transaction():
                    yield conn
        else:
            async with self._db.transaction() as connection:
                yield connection


class _Run:
    """One call: what was written and what was not."""

    def __init__(self, connection: Connection, keep_others: bool) -> None:
        self._connection = connection
        self._keep_others = keep_others
        self._failures: list[RowFailure] = []
        self._returned: list[dict[str, Any]] = []
        self._written = 0

    def refuse(self, failures: Iterable[RowFailure]) -> None:
        self._failures.extend(failures)

    async def place(self, write: Write, rows: Sequence[Numbered]) -> None:
        """Write the rows that the table takes, and note the others."""
        waiting = [rows]
        while waiting and not (not self._keep_others and len(self._failures) >= FAILURES_SOUGHT):
            part = waiting.pop()
            if not part:
                continue
            try:
                async with self._connection.transaction():
                    written, returned = await write(part)
            except asyncpg.PostgresError as error:
                if not _is_of_a_row(error):
                    raise
                if len(part) == 1:
                    self._failures.append(RowFailure(part[0].index, _reason(error), error.sqlstate or ""))
                else:
                    middle = len(part) // 2
                    waiting += [part[middle:], part[:middle]]  # the first half is the next to be taken
            else:
                self._written += written
                self._returned += returned

    def result(self) -> BulkResult:
        """The report. Raises RowsRefused, which undoes everything, unless the others are to be kept."""
        failures = tuple(sorted(self._failures, key=lambda failure: failure.index))
        if failures and not self._keep_others:
            raise RowsRefused(failures)
        return BulkResult(self._written, failures, tuple(self._returned))


def _inserter(connection: Connection, table: Table, columns: list[Column], returning: Sequence[str]) -> Write:
    names = [column.name for column in columns]
    back = ", ".join(quoted(column.name) for column in table.named(returning))
    places = ", ".join(f"${number}::{column.type}" for number, column in enumerate(columns, 1))
    one_by_one = (
        f"insert into {table.quoted} ({', '.join(map(quoted, names))}) values ({places})"
        f" returning {back or 'null'}"
    )

    async def copy(rows: Sequence[Numbered]) -> Written:
        try:
            tag = await connection.copy_records_to_table(
                table.name, schema_name=table.schema, columns=names, records=[row.values for row in rows]
            )
        except _UNFIT as error:
            raise asyncpg.DataError(f"a value does not fit its column: {error}") from error
        return int(tag.rpartition(" ")[2]), []

    async def insert(rows: Sequence[Numbered]) -> Written:
        found = await connection.fetchmany(one_by_one, [row.values for row in rows])
        return len(found), [dict(row) for row in found] if back else []

    return copy if table.copies and not back else insert


def _updater(connection: Connection, table: Table, columns: list[Column], width: int, run: _Run) -> Write:
    """One UPDATE from arrays; or, where a column is an array itself, which unnest would take apart, one a row."""
    several = not any(column.array for column in columns)
    source = ", ".join(f"${number}::{column.type}{'[]' * several}" for number, column in enumerate(columns, 1))
    names = [quoted(column.name) for column in columns]
    changes = ", ".join(f"{name} = new.{name}" for name in names[width:])
    same = " and ".join(f"old.{name} = new.{name}" for name in names[:width])
    place = table.no_column
    rows_from = f"unnest({source}) with ordinality" if several else f"(values ({source}, 1))"
    sql = (
        f"update {table.quoted} as old set {changes} from {rows_from} as new ({', '.join(names)}, {place})"
        f" where {same} returning new.{place} as place"
    )

    async def update(rows: Sequence[Numbered]) -> Written:
        if several:
            arrays = zip(*(row.values for row in rows), strict=True)
            found = {row["place"] - 1 for row in await connection.fetch(sql, *map(list, arrays))}
            absent = [row for place, row in enumerate(rows) if place not in found]
        else:
            absent = [row for row in rows if not await connection.fetch(sql, *row.values)]
        run.refuse(RowFailure(row.index, "the table has no row with this key") for row in absent)
        return len(rows) - len(absent), []

    return update


def _keys_first(keys: Sequence[str], names: Sequence[str]) -> list[str]:
    for key in keys:
        if key not in names:
            raise UsageError(f"the rows have no {key}, which is to tell them apart", hint="Or give key=.")
    others = [name for name in names if name not in keys]
    if not others:
        raise UsageError("the rows have nothing but their key, so there is nothing to update")
    return [*keys, *others]


# For values that it cannot encode, COPY lets through what the codec of the type raised, whatever that is; other
# statements make a DataError of it.
_UNFIT = (TypeError, ValueError, ArithmeticError, AttributeError, LookupError)

# What a row can be blamed for: data that does not fit, a constraint, a view's check option, a trigger's objection.
_OF_A_ROW = ("22", "23", "44", "P0")


def _is_of_a_row(error: asyncpg.PostgresError) -> bool:
    return (error.sqlstate or "").startswith(_OF_A_ROW)


def _reason(error: asyncpg.PostgresError) -> str:
    """The server's own words, but not its detail, which quotes rows."""
    return str(getattr(error, "message", None) or error)
