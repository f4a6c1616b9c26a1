"""What became of many rows that were written together.

Owns: the shape of the rows that are accepted, the report, and the search for the rows that cannot be written.
Knows no table and no driver.

Rows are written many at a time. When the database refuses such a batch, its halves are tried, and theirs, until
the refused rows stand alone: one bad row among n costs about 2 * log2(n) more statements, and the rows beside it
are written all the same.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeAlias

import msgspec

from pipeline.errors import UsageError

BATCH_ROWS = 5_000
Row: TypeAlias = Mapping[str, Any]


class RowFailure(msgspec.Struct, frozen=True):
    """A row that was not written. index: its place among the rows given, from 0. code: SQLSTATE, or "" where the
    database was not asked.
    """

    index: int
    reason: str
    code: str = ""


class BulkResult(msgspec.Struct, frozen=True):
    """written: how many rows. failures: those that were not, in their order. returned: what was asked back of the
    written ones, in their order.
    """

    written: int
    failures: tuple[RowFailure, ...] = ()
    returned: tuple[dict[str, Any], ...] = ()


class Numbered(msgspec.Struct, frozen=True):
    """A row as values in the order of the columns, with its place among all rows."""

    index: int
    values: tuple[Any, ...]


def batches(rows: Iterable[Row], size: int = BATCH_ROWS) -> Iterator[tuple[tuple[str, ...], list[Numbered]]]:
    """The columns, and the rows in batches. The first row names the columns, and the others must name the same.

    Raises UsageError for a row that does not, or that is no mapping: such a call was not meant.
    """
    numbered = enumerate(rows)
    columns: tuple[str, ...] = ()
    while chunk := list(islice(numbered, size)):
        if not columns:
            columns = _columns(chunk[0][1])
        yield columns, [Numbered(index, _values(index, row, columns)) for index, row in chunk]


def _columns(row: Row) -> tuple[str, ...]:
    if not isinstance(row, Mapping) or not row:
        raise UsageError("row 0 names no columns", hint='Give each row as a dict: {"id": 1, "name": "Ada"}.')
    return tuple(row)


def _values(index: int, row: Row, columns: tuple[str, ...]) -> tuple[Any, ...]:
    if not isinstance(row, Mapping) or len(row) != len(columns):
        raise _different(index, columns)
    try:
        return tuple([row[column] for column in columns])
    except KeyError:
        raise _different(index, columns) from None


def _different(index: int, columns: tuple[str, ...]) -> UsageError:
    return UsageError(
        f"row {index} does not name the columns of row 0, which are {', '.join(columns)}",
        hint="Give every row the same columns; None is null.",
    )


class Doubles:
    """Finds rows whose key came before: of two changes to one row the database would make either one."""

    def __init__(self) -> None:
        self._first: dict[Hashable, int] = {}

    def sift(self, rows: Sequence[Numbered], width: int) -> tuple[list[Numbered], list[RowFailure]]:
        """The rows to write and the doubles; the first `width` values of a row are its key."""
        kept, failures = [], []
        for row in rows:
            first = self._first.setdefault(row.values[:width], row.index)
            if first == row.index:
                kept.append(row)
            else:
                failures.append(RowFailure(row.index, f"it has the key of row {first}"))
        return kept, failures
