"""Rows by key, many keys in one query.

Owns: the query, and the search for keys that no row can have. Knows nothing of who asks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

import msgspec

from pipeline.core.snapshot import Snapshot
from pipeline.db.connection import Database
from pipeline.db.tables import Table, find_table, quoted
from pipeline.errors import QueryFailed

Row: TypeAlias = dict[str, Any]
Read: TypeAlias = Callable[[str, Sequence[Any]], Awaitable[tuple[list[Row], Snapshot]]]
_DOES_NOT_FIT = "22"  # the class of SQLSTATEs for data that is not of its type


class Lookup(msgspec.Struct, frozen=True):
    """How rows of a table are found by one column. one: the query for a single key. many: the one for an array of
    keys, whose rows tell in `place` for which of them, from 1.
    """

    one: str
    many: str
    place: str

    async def rows(self, read: Read, keys: Sequence[Any]) -> list[tuple[list[Row], Snapshot] | QueryFailed]:
        """For each key its rows, and a snapshot all of which they contain; or why it can be the key of none.

        Raises our errors where no single key is to blame.
        """
        try:
            found, snapshot = await read(self.many, (list(keys),))
        except QueryFailed as error:
            if not error.sqlstate.startswith(_DOES_NOT_FIT):
                raise
            if len(keys) == 1:
                return [error]
            middle = len(keys) // 2
            return [*await self.rows(read, keys[:middle]), *await self.rows(read, keys[middle:])]
        rows: list[list[Row]] = [[] for _key in keys]
        for row in found:
            rows[row.pop(self.place) - 1].append(row)
        return [(its, snapshot) for its in rows]


class Lookups:
    """Makes a Lookup from what the catalog says of a table."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def find(self, table: str, key: str, columns: Sequence[str] = ()) -> Lookup:
        """columns: those that are wanted; none means all. Raises UsageError for what does not exist."""
        async with self._db.acquire() as connection:
            return lookup(await find_table(connection, table), key, columns)


def lookup(table: Table, key: str, columns: Sequence[str] = ()) -> Lookup:
    """Raises UsageError for a column that the table lacks."""
    (its_key,) = table.named([key])
    wanted = ", ".join(f"t.{quoted(column.name)}" for column in table.named(columns or table.columns))
    same, place = f"t.{quoted(key)} =", table.no_column
    return Lookup(
        one=f"select {wanted} from {table.quoted} as t where {same} $1",
        many=f"select {wanted}, keys.place as {place} from {table.quoted} as t"
        f" join unnest($1::{its_key.type}[]) with ordinality as keys (key, place) on {same} keys.key"
        " order by keys.place",
        place=place.strip('"'),
    )
