"""Rows as Parquet, by pyarrow, which comes with the extra `parquet`.

Owns: the Arrow type of each kind of column. Knows no query and no job. A batch is one row group; the footer that
makes a Parquet file readable comes last, so an unfinished one cannot be gone on with.

numeric stays text, because a column of it has no scale that all its values share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime
from typing import Any

from handlers.export_files import Appending, PartFile
from pipeline.core.export import Column
from pipeline.core.export_format import Rows
from pipeline.errors import TaskError


def arrow() -> Any:
    """The library. Raises TaskError where it is not installed."""
    try:
        import pyarrow.parquet  # noqa: PLC0415 - optional, and 50 MB of memory
    except ImportError:
        raise TaskError(
            "Parquet needs pyarrow, which is not installed in the daemon's environment",
            hint="Install pgreflex[parquet], or export to CSV or NDJSON.",
        ) from None
    return pyarrow


class ParquetWriter:
    """Writes a Parquet file, compressed with zstd."""

    def __init__(self, file: PartFile, columns: Sequence[Column]) -> None:
        pa = self._pa = arrow()
        kinds = {
            "int": pa.int64(),
            "float": pa.float64(),
            "bool": pa.bool_(),
            "bytes": pa.binary(),
            "date": pa.date32(),
            "timestamp": pa.timestamp("us"),
            "timestamptz": pa.timestamp("us", tz="UTC"),
        }
        self._columns = columns
        self._schema = pa.schema([(c.name, kinds.get(c.kind, pa.string())) for c in columns])
        self._stream = Appending(file)

    def begin(self) -> None:
        self._writer = self._pa.parquet.ParquetWriter(self._stream, self._schema, compression="zstd")

    def write(self, rows: Rows) -> None:
        arrays = [
            self._array(column, kind, [row[place] for row in rows])
            for place, (column, kind) in enumerate(zip(self._columns, self._schema.types, strict=True))
        ]
        self._writer.write_table(self._pa.Table.from_arrays(arrays, schema=self._schema))

    def end(self) -> None:
        self._writer.close()

    def abandon(self) -> None:
        """Close the library's writer, which would else write its footer whenever it is collected."""
        self._stream.abandon()
        self._writer.close()

    def _array(self, column: Column, kind: Any, values: list[Any]) -> Any:
        read = _READ.get(column.kind)
        if read is not None:
            try:
                values = [None if value is None else read(value) for value in values]
            except ValueError:
                raise TaskError(
                    f"a value of {column.name} does not fit Parquet's {kind}: infinity, or no year from 1 to 9999",
                    hint=f'Export it as text: {column.name}::text as "{column.name}".',
                ) from None
        return self._pa.array(values, type=kind)


_READ: dict[str, Callable[[str], Any]] = {
    "date": date.fromisoformat,
    "timestamp": datetime.fromisoformat,
    "timestamptz": datetime.fromisoformat,
}
