"""The application's tables as the catalog has them.

Owns: names and types, quoted so that they can be part of a statement. Knows no row.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from pipeline.db.connection import Connection
from pipeline.db.statements import statement
from pipeline.errors import UsageError


class Column(msgspec.Struct, frozen=True):
    """A column. type: as SQL writes it. array: whether the type is an array."""

    name: str
    type: str
    array: bool
    generated: bool


class Table(msgspec.Struct, frozen=True):
    """A table, view or foreign table. copies: whether COPY may write into it."""

    schema: str
    name: str
    columns: dict[str, Column]
    copies: bool

    @property
    def quoted(self) -> str:
        return f"{quoted(self.schema)}.{quoted(self.name)}"

    @property
    def no_column(self) -> str:
        """A quoted name that none of the columns has: it is longer than each of them."""
        return quoted("n" + "_" * max(map(len, self.columns)))

    def named(self, names: Iterable[str]) -> list[Column]:
        """The columns of these names. Raises UsageError for one that the table lacks."""
        names = list(names)
        missing = [name for name in names if name not in self.columns]
        if missing:
            raise UsageError(
                f"{self.schema}.{self.name} has no column {missing[0]}",
                hint=f"Its columns are {', '.join(self.columns)}.",
            )
        return [self.columns[name] for name in names]


async def find_table(connection: Connection, name: str) -> Table:
    """The table that `name` means on this connection. Raises UsageError when there is none."""
    rows = await connection.fetch(statement("tables/columns"), name)
    if not rows:
        raise UsageError(f"there is no table {name}", hint="Write it as in SQL, with its schema: shop.orders.")
    columns = {row["name"]: Column(row["name"], row["type"], row["array"], row["generated"]) for row in rows}
    return Table(rows[0]["schema"], rows[0]["table"], columns, rows[0]["copies"])


def quoted(name: str) -> str:
    """A name as an identifier in SQL."""
    return '"' + name.replace('"', '""') + '"'
