"""Rows as CSV and as NDJSON.

Owns: how each value is spelled in each format. Knows no database and no file; values arrive as core/export.py's
Column says.

CSV is RFC 4180: a header, lines that end in CR LF, quotes where they are needed. An empty cell is null and "" is
the empty text; Postgres' own COPY reads it so. In both formats numeric is spelled in full, and in NDJSON it is a
string, because most readers make a double of a number; times are ISO 8601, with zone in UTC; binary data is
base64; arrays, composites and JSON are JSON.
"""

from __future__ import annotations

import math
import re
from base64 import b64encode
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from pipeline.core.export import Column, Kind

Rows = Sequence[Any]  # each row a tuple, or a record of the driver
Spell = Callable[[Any], str]

_NEEDS_QUOTES = re.compile(r'[",\r\n]')
_FORMULA = (
    "=",
    "+",
    "-",
    "@",
    "\t",
    "\r",
    "\n",
    "＝",
    "＋",
    "－",
    "＠",
)  # some take the wide ones, too
_ZULU = re.compile(r"\+00(?= BC$|$)")


class Encoder(Protocol):
    """Turns rows into bytes; `header` comes once, before all."""

    def header(self) -> bytes: ...

    def rows(self, rows: Rows) -> bytes: ...


class CsvEncoder:
    """CSV. spreadsheet_safe: text that a spreadsheet would run as a formula gets an apostrophe in front."""

    def __init__(self, columns: Sequence[Column], *, spreadsheet_safe: bool = False) -> None:
        self._columns = columns
        self._safe = spreadsheet_safe
        self._cells = [self._cell(column.kind) for column in columns]

    def header(self) -> bytes:
        cell = self._cell("text")
        return (",".join(cell(column.name) for column in self._columns) + "\r\n").encode()

    def rows(self, rows: Rows) -> bytes:
        cells = self._cells
        lines = [",".join([cell(v) for cell, v in zip(cells, row, strict=True)]) + "\r\n" for row in rows]
        return "".join(lines).encode()

    def _cell(self, kind: Kind) -> Spell:
        spell, safe = CSV_SPELLINGS[kind], self._safe and kind == "text"  # JSON and numbers are no formulas

        def cell(value: Any) -> str:
            if value is None:
                return ""
            text = spell(value)
            if safe and text.startswith(_FORMULA):
                text = f"'{text}"
            if not text or _NEEDS_QUOTES.search(text):
                return '"' + text.replace('"', '""') + '"'
            return text

        return cell


class NdjsonEncoder:
    """One JSON object a line."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self._names = [column.name for column in columns]
        self._spell = [(place, NDJSON[c.kind]) for place, c in enumerate(columns) if c.kind in NDJSON]
        self._encoder = msgspec.json.Encoder()

    def header(self) -> bytes:
        return b""

    def rows(self, rows: Rows) -> bytes:
        return self._encoder.encode_lines([self._object(row) for row in rows])

    def _object(self, row: Any) -> dict[str, Any]:
        values = list(row)
        for place, spell in self._spell:
            if values[place] is not None:
                values[place] = spell(values[place])
        return dict(zip(self._names, values, strict=True))


def iso_time(text: str) -> str:
    """A time as Postgres spells it in UTC, in ISO 8601; `infinity` and years before Christ keep their word."""
    return _ZULU.sub("Z", text.replace(" ", "T", 1), count=1)


def iso_time_without_zone(text: str) -> str:
    """The same without a zone."""
    return text.replace(" ", "T", 1)


def float_text(value: float) -> str:
    """The shortest text that gives the same double again; Postgres' words for what is no number."""
    if math.isfinite(value):
        return repr(value)
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def one_line(text: str) -> str:
    """JSON without line breaks: outside of its strings they mean nothing, and inside there are none."""
    return text.replace("\r", " ").replace("\n", " ")


CSV_SPELLINGS: dict[Kind, Spell] = {
    "int": str,
    "float": float_text,
    "bool": lambda value: "true" if value else "false",
    "numeric": str,
    "text": str,
    "bytes": lambda value: b64encode(value).decode(),
    "json": str,
    "date": str,
    "timestamp": iso_time_without_zone,
    "timestamptz": iso_time,
}
NDJSON: dict[Kind, Callable[[Any], Any]] = {
    "float": lambda value: value if math.isfinite(value) else float_text(value),
    "json": lambda text: msgspec.Raw(one_line(text).encode()),
    "timestamp": iso_time_without_zone,
    "timestamptz": iso_time,
}


def encoder_for(format: str, columns: Sequence[Column], *, spreadsheet_safe: bool) -> Encoder:
    """The encoder of a format of lines."""
    return CsvEncoder(columns, spreadsheet_safe=spreadsheet_safe) if format == "csv" else NdjsonEncoder(columns)
